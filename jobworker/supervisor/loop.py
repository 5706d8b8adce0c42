"""The supervisor's event loop: descriptors, deadlines, and work that nobody waits for.

Decides in which order things run: ready descriptors first, then due deadlines, then deferred work, one piece per
descriptor of each turn. It wakes only for an event or a deadline, never to look around. It knows nothing
of jobs; an exception out of a callback is logged and ends that callback alone.
"""

from __future__ import annotations

import heapq
import select
import time
from collections import deque

from jobworker.supervisor.journal import note_exception

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
URGENT = select.EPOLLPRI
EDGE = select.EPOLLET  # with others: told once, and again when something has happened since
_BATCH = 256  # events taken in one turn
_LONGEST_WAIT = 2_000_000  # seconds; epoll counts milliseconds in 31 bits


class Timer:
    """A pending deadline; `cancel` may be called at any time, more than once."""

    __slots__ = ("callback", "when_ns")

    def __init__(self, when_ns: int, callback: Callable[[], None]) -> None:
        self.when_ns = when_ns
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forgets the callback; the loop drops the entry when its time comes or when too many are dead."""
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.when_ns < other.when_ns


class Loop:
    """Single-threaded; callbacks must not block, and are called only for events of what they watch."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._deferred: deque[Callable[[], None]] = deque()
        # watched since the events at hand were taken: those may be of a closed descriptor of the same number
        self._fresh: set[int] = set()
        self._running = False

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Calls `callback(events)` whenever `fd` is ready; a hang-up is always reported."""
        self._epoll.register(fd, events)
        self._handlers[fd] = callback
        self._fresh.add(fd)

    def change(self, fd: int, events: int) -> None:
        """Watches a watched descriptor for other events."""
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Stops watching; to be called before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_after(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        """Calls back once, `delay_ns` from now on the monotonic clock."""
        return self.call_at(time.monotonic_ns() + delay_ns, callback)

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Calls back once, at this time of the monotonic clock."""
        timer = Timer(when_ns, callback)
        heapq.heappush(self._timers, timer)
        self._drop_dead_timers()
        return timer

    def defer(self, callback: Callable[[], None]) -> None:
        """Calls back after the events at hand, before waiting for new ones."""
        self._deferred.append(callback)

    def run(self) -> None:
        """Runs until `stop`."""
        self._running = True
        while self._running:
            self._turn()

    def stop(self) -> None:
        """Lets `run` return after the present turn; events not handled yet are left to who comes after."""
        self._running = False

    def _turn(self) -> None:
        self._fresh.clear()
        for fd, events in self._epoll.poll(self._timeout(), _BATCH):
            if not self._running:
                break
            handler = self._handlers.get(fd)
            if handler is not None and fd not in self._fresh:
                _guard(handler, events)
        timers = self._timers
        while timers and timers[0].when_ns <= time.monotonic_ns():
            callback = heapq.heappop(timers).callback
            if callback is not None:
                _guard(callback)
        for _ in range(len(self._deferred)):
            _guard(self._deferred.popleft())

    def _timeout(self) -> float:
        if self._deferred:
            return 0
        timers = self._timers
        while timers and timers[0].callback is None:
            heapq.heappop(timers)
        if not timers:
            return -1
        return min(_LONGEST_WAIT, max(0, timers[0].when_ns - time.monotonic_ns()) / 1e9)

    def _drop_dead_timers(self) -> None:
        """Long timeouts of short jobs would pile up: rebuild the heap when it has grown and most are dead."""
        timers = self._timers
        if len(timers) >= 256 and len(timers) & (len(timers) - 1) == 0:
            alive = [timer for timer in timers if timer.callback is not None]
            if len(alive) < len(timers) // 2:
                heapq.heapify(alive)
                timers[:] = alive  # in place: a turn may be walking it


def _guard(callback: Callable[..., None], *arguments: int) -> None:
    try:
        callback(*arguments)
    except Exception:  # one job's trouble must not be every job's
        note_exception()
