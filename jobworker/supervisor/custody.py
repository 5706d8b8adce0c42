"""The supervisor's end of the keeper: what is given into custody, and what comes back to a successor.

Decides when the keeper is told that something is not needed any more: in batches, since it need not be woken for each
job. What is kept, and for whom jobs' exits are waited, is `keeper`'s business; what to make of it `takeover`'s, and
what to do without a keeper `succession`'s.
"""

from __future__ import annotations

from jobworker import syscalls
from jobworker.supervisor.journal import note
from jobworker.supervisor.keeper import (
    DESCRIPTORS,
    DROP,
    DROPPED_AT_ONCE,
    END,
    EXITED,
    FETCH,
    HEAD,
    KEEP,
    LISTENER,
    MESSAGE_SIZE,
    NUMBER,
    READY,
    STATUS,
    Kept,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.supervisor.loop import Loop

    WhenExited = Callable[["Exit | None"], None]

_READ = 1  # EPOLLIN, what `loop` calls READ; not imported before the nurse is hired
_ENOUGH = 64  # numbers to drop that are worth waking the keeper


class Exit:
    """How a process ended of which the keeper is the parent: its wait status, and of its rusage what we look at."""

    __slots__ = ("ru_maxrss", "ru_stime", "ru_utime", "status")

    def __init__(self, data: bytes) -> None:
        self.status, user, system, self.ru_maxrss = STATUS.unpack(data)
        self.ru_utime, self.ru_stime = user / 1e6, system / 1e6


class Custody:
    """What the keeper has for us. `kept` is by number of the child, until it is claimed."""

    def __init__(self, socket: int, carried: dict[int, Kept]) -> None:
        """Fetches everything; `socket` is the one that the keeper gave us.

        `carried` is the same, brought along through an upgrade: the keeper may have died meanwhile.
        """
        self.socket = socket
        self.kept: dict[int, Kept] = {}
        self._orphans: set[int] = set()  # pids of what was kept when we came: the keeper has adopted them
        self._exits: dict[int, Exit] = {}
        self._expected: dict[int, WhenExited] = {}
        self._unneeded: list[int] = []
        self._loop: Loop | None = None
        self._when_lost: Callable[[], None] | None = None
        self.is_there = self._send(FETCH)
        while self.is_there and not self._receive():
            pass
        for number, kept in carried.items():
            if self.kept.setdefault(number, Kept(0, kept.fds)).fds is not kept.fds:
                syscalls.close_each(kept.fds)

    def attend(self, loop: Loop, *, when_lost: Callable[[], None]) -> None:
        """From now on hears of exits, and calls back at the keeper's own end."""
        self._loop = loop
        self._when_lost = when_lost
        if self.is_there:
            loop.watch(self.socket, _READ, self._on_ready)
        else:
            loop.defer(when_lost)

    def ready(self, listener: int) -> None:
        """Says that we serve, on this listening socket; a successor is to have it."""
        self._send(KEEP, number=LISTENER, fds=[listener])
        self._send(READY)

    def claim(self, number: int) -> Kept | None:
        """What is kept of a child, whose copies are the caller's from now on."""
        return self.kept.pop(number, None)

    def expect(self, pid: int, when_exited: WhenExited) -> bool:
        """Calls back with the exit of a child of the keeper's, None should the keeper end first; False when it is none."""
        known = self._exits.pop(pid, None)
        if known is not None:
            when_exited(known)
            return True
        if not self.is_there or pid not in self._orphans:
            return False
        self._expected[pid] = when_exited
        return True

    def drop(self, number: int) -> None:
        """Nothing of this child need be kept any more; told when there is more to tell."""
        self._unneeded.append(number)
        if len(self._unneeded) >= _ENOUGH:
            self.flush()

    def drop_rest(self) -> None:
        """Lets go of what nobody has claimed: children that never became a job, jobs that have ended."""
        for number, kept in self.kept.items():
            syscalls.close_each(kept.fds)
            if number != LISTENER:
                self.drop(number)
        self.kept = {}
        self.flush()

    def flush(self) -> None:
        """Tells what is not needed now."""
        while self._unneeded:
            part = self._unneeded[:DROPPED_AT_ONCE]
            del self._unneeded[:DROPPED_AT_ONCE]
            self._send(DROP, data=b"".join(map(NUMBER.pack, part)))

    def _on_ready(self, _events: int) -> None:
        self._receive()

    def _send(self, kind: bytes, *, number: int = 0, data: bytes = b"", fds: list[int] | None = None) -> bool:
        try:
            syscalls.send_descriptors(self.socket, HEAD.pack(kind, number, 0) + data, fds or [])
        except OSError:
            return False  # its end is told by the hang-up
        return True

    def _receive(self) -> bool:
        """Takes in one message; whether it was the last of what was fetched."""
        try:
            data, fds = syscalls.receive_descriptors(self.socket, size=MESSAGE_SIZE, count=DESCRIPTORS)
        except OSError:
            data, fds = b"", []
        if not data:
            self._on_loss()
            return True
        kind, number, pid = HEAD.unpack_from(data)
        if kind == KEEP:
            self.kept[number] = Kept(pid, fds)
            self._orphans.add(pid)
        elif kind == EXITED:
            when_exited = self._expected.pop(pid, None)
            ended = Exit(data[HEAD.size :])
            if when_exited is None:
                self._exits[pid] = ended
            else:
                when_exited(ended)
        return bool(kind == END)

    def _on_loss(self) -> None:
        """The keeper is gone; who waits for an exit has to look for it elsewhere."""
        self.is_there = False
        note("the keeper has ended")
        if self._loop is not None:
            self._loop.unwatch(self.socket)
        expected, self._expected = self._expected, {}
        for when_exited in expected.values():
            when_exited(None)
        if self._when_lost is not None:
            self._when_lost()
