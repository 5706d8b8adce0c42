"""What is left of a job's processes once they have to go, and how it is known that nothing is.

Decides whom to ask: the kernel tells, by a descriptor that the leaf has for that, and is asked again whenever that has
something to say; where it holds no processes together, each time is one more to kill. What cannot be done for want of
descriptors is tried again. A process that is still there long after its kill is stuck, and not waited for. When they
have to go is `job`'s business.
"""

from __future__ import annotations

import os

from jobworker.supervisor.journal import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.supervisor.cgroup import Leaf
    from jobworker.supervisor.cgroup_none import Group
    from jobworker.supervisor.loop import Loop, Timer

_RETRY_NS = 500_000_000  # nobody tells when there are descriptors to be had
_UNKILLABLE_NS = 10_000_000_000  # a process still there so long after its kill is stuck in the kernel


class Remains:
    """Of one job; `when_gone` is called when no process is left, `when_unkillable` when one outlives its kill."""

    __slots__ = (
        "_events_fd",
        "_kill",
        "_leaf",
        "_loop",
        "_next_kill",
        "_next_look",
        "_patience",
        "_when_gone",
        "_when_unkillable",
    )

    def __init__(
        self,
        loop: Loop,
        leaf: Leaf | Group,
        *,
        kill: Callable[[], None],
        when_gone: Callable[[], None],
        when_unkillable: Callable[[], None],
    ) -> None:
        """`kill` kills all processes that there are."""
        self._loop = loop
        self._leaf = leaf
        self._kill = kill
        self._when_gone = when_gone
        self._when_unkillable = when_unkillable
        self._events_fd = -1
        self._patience: Timer | None = None  # once they have been killed
        self._next_kill: Timer | None = None
        self._next_look: Timer | None = None

    def attend(self) -> bool:
        """Whether a process is left, or that cannot be told now; the end of the last one is awaited from now on."""
        try:
            is_left = self._ask()
            if is_left and self._patience is not None and not self._leaf.holds_its_processes:
                self._leaf.kill()
        except FileNotFoundError:  # an empty cgroup, and somebody has removed it
            return False
        except OSError as error:
            if self._next_look is None:
                note(f"what is left of a job cannot be told, asked every half second: {error.strerror}")
            self._close_events()
            self._next_look = self._loop.call_after(_RETRY_NS, self._go_on)
            return True
        return is_left

    def kill(self) -> None:
        """Kills all of them, as soon as that can be done."""
        try:
            self._kill()
        except OSError as error:
            if self._next_kill is None:
                note(f"what is left of a job cannot be killed, tried every half second: {error.strerror}")
            else:
                self._next_kill.cancel()
            self._next_kill = self._loop.call_after(_RETRY_NS, self.kill)
            return
        if self._patience is None:
            self._patience = self._loop.call_after(_UNKILLABLE_NS, self._when_unkillable)

    def release(self) -> None:
        """Waits for nothing any more; may be called more than once."""
        for timer in (self._patience, self._next_kill, self._next_look):
            if timer is not None:
                timer.cancel()
        self._patience = self._next_kill = self._next_look = None
        self._close_events()

    def _ask(self) -> bool:
        is_new = self._events_fd < 0
        if is_new:
            self._events_fd = self._leaf.open_events()
        is_left = self._leaf.is_populated(self._events_fd)
        if is_left and is_new:
            self._loop.watch(self._events_fd, self._leaf.EVENTS, self._on_events)
        return is_left

    def _on_events(self, _events: int) -> None:
        if self._events_fd >= 0:
            self._go_on()

    def _go_on(self) -> None:
        if not self.attend():
            self._when_gone()

    def _close_events(self) -> None:
        if self._events_fd >= 0:
            self._loop.unwatch(self._events_fd)
            os.close(self._events_fd)
            self._events_fd = -1
