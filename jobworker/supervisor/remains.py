"""What is left of a job's processes once they have to go, and how it is known that nothing is.

Decides whom to ask: the kernel tells, by a descriptor that the leaf has for that, and is asked again whenever that has
something to say; where it holds no processes together, each time is one more to kill. A process that is still there
long after its kill is stuck, and not waited for. When they have to go is `job`'s business.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.supervisor.cgroup import Leaf
    from jobworker.supervisor.cgroup_none import Group
    from jobworker.supervisor.loop import Loop, Timer

_UNKILLABLE_NS = 10_000_000_000  # a process still there so long after its kill is stuck in the kernel


class Remains:
    """Of one job; `when_gone` is called when no process is left, `when_unkillable` when one outlives its kill."""

    __slots__ = ("_events_fd", "_leaf", "_loop", "_patience", "_when_gone", "_when_unkillable")

    def __init__(
        self,
        loop: Loop,
        leaf: Leaf | Group,
        *,
        when_gone: Callable[[], None],
        when_unkillable: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._leaf = leaf
        self._when_gone = when_gone
        self._when_unkillable = when_unkillable
        self._events_fd = -1
        self._patience: Timer | None = None  # once they have been killed

    def attend(self) -> bool:
        """Whether a process is left; the end of the last one is awaited from now on."""
        try:
            events_fd = self._leaf.open_events()
        except FileNotFoundError:  # an empty cgroup, and somebody has removed it
            return False
        self._events_fd = events_fd
        if not self._leaf.is_populated(events_fd):
            return False
        self._loop.watch(events_fd, self._leaf.EVENTS, self._on_events)
        return True

    def expect_end(self) -> None:
        """All of them have been killed."""
        if self._patience is None:
            self._patience = self._loop.call_after(_UNKILLABLE_NS, self._when_unkillable)

    def release(self) -> None:
        """Waits for nothing any more; may be called more than once."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._events_fd >= 0:
            self._loop.unwatch(self._events_fd)
            os.close(self._events_fd)
            self._events_fd = -1

    def _on_events(self, _events: int) -> None:
        if self._events_fd < 0:
            return
        if not self._leaf.is_populated(self._events_fd):
            self._when_gone()
        elif self._patience is not None and not self._leaf.holds_its_processes:
            self._leaf.kill()
