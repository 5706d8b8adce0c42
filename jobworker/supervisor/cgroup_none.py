"""The stand-in for a cgroup leaf where the host gives the worker none: all that descends from the job's first process.

It has the methods of `cgroup.Leaf`, and honestly less behind them: no limit can be set, nothing can be paused, and use
is counted for the main process and the children it waited for. The first process is a subreaper, so that whatever
its descendants do, they stay below it until it ends; then they fall to the keeper, which has no other children
but first processes. So those are told apart from all that is left of jobs which have ended, and that is killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select

from jobworker import syscalls
from jobworker.supervisor import family
from jobworker.supervisor.cgroup import no_usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resource import struct_rusage
    from typing import ClassVar

    from jobworker.supervisor.custody import Exit
    from jobworker.supervisor.jobfacts import Usage
    from jobworker.supervisor.messages import Cgroups

_PASSES = 64  # over the processes, until no new one has appeared


class Group:
    """One job's processes, known by the first once that is born."""

    __slots__ = ("_awaited", "_epoll", "_pid", "_pidfd", "clone_fd", "join_fds")
    counts_by_reaping = True
    holds_its_processes = False
    EVENTS = select.EPOLLIN

    keeper: ClassVar[int] = 0  # to whom orphans fall, as long as it is our parent
    _leaders: ClassVar[set[int]] = set()  # the first processes of all jobs

    name = ""

    def __init__(self) -> None:
        self._pid = 0
        self._pidfd = -1  # the job's, not ours to close
        self._epoll: select.epoll | None = None
        # pidfd of one that is left: those of all would be more than are set aside for an end
        self._awaited = -1
        self.clone_fd: int | None = None
        self.join_fds: list[int] = []

    def create(self) -> None:
        """Nothing to make."""

    def close_entry(self) -> None:
        """Nothing to close."""

    def adopt(self, pid: int, pidfd: int) -> None:
        """Remembers the first process; by its number alone it could be taken for another, once it is reaped."""
        self._pid, self._pidfd = pid, pidfd
        self._leaders.add(pid)

    def controller(self, name: str) -> None:
        """There is none."""

    def why_not(self, controller: str) -> str:
        """Why no limit of this controller can be set."""
        return "this host gives the worker no cgroups"

    def processes(self) -> list[int]:
        """The first process and all that descends from it; once it has ended, what is left of ended jobs."""
        if self._has_leader():
            return [self._pid, *filter(family.is_alive, family.descendants(self._pid))]
        return list(filter(family.is_alive, self._orphans()))

    def signal(self, number: int) -> None:
        """Sends a signal to every process, those forked meanwhile included."""
        if number == syscalls.SIGKILL:
            self.kill()
        elif self._has_leader():
            self._signal_all(number)

    def kill(self) -> None:
        """Kills every process, and what is left of jobs that have ended."""
        for pid in self._signal_all(syscalls.SIGSTOP):  # what is stopped makes no new ones
            _send(pid, syscalls.SIGKILL)

    def freeze(self, *, frozen: bool) -> None:
        """There is nothing that stops processes and keeps them stopped; OSError."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def open_events(self) -> int:
        """A descriptor that is readable when the process has ended that `is_populated` found last."""
        self._close_events()
        self._epoll = select.epoll()
        return os.dup(self._epoll.fileno())

    def is_populated(self, _events_fd: int) -> bool:
        """Whether processes are left, zombies not counted; OSError when that cannot be told, for want of descriptors."""
        if self._awaited >= 0 and not syscalls.is_readable(self._awaited):
            return True
        self._close_awaited()
        return any(self._await(pid) for pid in self.processes())

    def usage(self, rusage: struct_rusage | Exit | None, *, ended: bool) -> Usage:
        """What wait4(2) told of a job that has ended."""
        usage = no_usage()
        if ended and rusage is not None:
            usage["cpu_user_usec"] = round(rusage.ru_utime * 1e6)
            usage["cpu_system_usec"] = round(rusage.ru_stime * 1e6)
            usage["memory_peak_bytes"] = rusage.ru_maxrss * 1024
        return usage

    def remove(self) -> None:
        """Lets go of its processes."""
        self._close_events()
        self._leaders.discard(self._pid)
        self._pidfd = -1

    def _has_leader(self) -> bool:
        return self._pidfd >= 0 and not syscalls.is_readable(self._pidfd)

    def _signal_all(self, number: int) -> list[int]:
        done: dict[int, None] = {}
        for _ in range(_PASSES):
            fresh = [pid for pid in self.processes() if pid not in done]
            if not fresh:
                break
            for pid in fresh:
                _send(pid, number)
            done.update(dict.fromkeys(fresh))
        return list(done)

    def _orphans(self) -> list[int]:
        if os.getppid() != self.keeper:  # it has ended, and whose children ours are now we do not know
            return []
        ours = {os.getpid(), *self._leaders}
        found = [pid for pid in family.children(self.keeper) if pid not in ours]
        return found + [each for pid in found for each in family.descendants(pid)]

    def _await(self, pid: int) -> bool:
        """Whether this process is left; then its end will be told."""
        try:
            self._awaited = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        if syscalls.is_readable(self._awaited):
            self._close_awaited()
            return False
        if self._epoll is not None:
            self._epoll.register(self._awaited, select.EPOLLIN)
        return True

    def _close_awaited(self) -> None:
        if self._awaited >= 0:
            os.close(self._awaited)
            self._awaited = -1

    def _close_events(self) -> None:
        self._close_awaited()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None


def describe() -> Cgroups:
    """What the welcome message tells where there is no tree of cgroups."""
    return {"mode": "none", "root": "", "controllers": {}, "into_cgroup": False, "unenforced": []}


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
