"""How many jobs wait because the disk refuses their output.

Decides when that number is told: once it has changed, after the events at hand, so that a job that gets on
for a moment is not reported twice. Whom it is told is the engine's business.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.supervisor.loop import Loop


class Disk:
    """`blocked` is how many jobs wait at the moment; `tell` is called with it when it is another than before."""

    __slots__ = ("_is_scheduled", "_loop", "_tell", "_told", "blocked")

    def __init__(self, loop: Loop, tell: Callable[[int], None]) -> None:
        self._loop = loop
        self._tell = tell
        self._told = 0
        self._is_scheduled = False
        self.blocked = 0

    def refuses(self) -> None:
        """One more job waits."""
        self._change(1)

    def takes(self) -> None:
        """One job waits no more."""
        self._change(-1)

    def _change(self, by: int) -> None:
        self.blocked += by
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.defer(self._report)

    def _report(self) -> None:
        self._is_scheduled = False
        if self.blocked != self._told:
            self._told = self.blocked
            self._tell(self.blocked)
