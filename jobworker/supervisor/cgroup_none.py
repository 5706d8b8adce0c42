"""The stand-in for a cgroup leaf where the host gives the worker none: the job's process group.

It has the methods of `cgroup.Leaf`, and honestly less behind them: processes that left the job's process group
are out of reach, no limit can be set, and use is counted for the main process and the children it waited for.
"""

from __future__ import annotations

import contextlib
import errno
import os

from jobworker import syscalls
from jobworker.supervisor.cgroup import no_usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resource import struct_rusage

    from jobworker.supervisor.custody import Exit
    from jobworker.supervisor.jobfacts import Usage


class Group:
    """One job's process group, known by its leader's pid once that is born."""

    __slots__ = ("_pid", "clone_fd", "join_fds")
    counts_by_reaping = True

    name = ""

    def __init__(self) -> None:
        self._pid: int | None = None
        self.clone_fd: int | None = None
        self.join_fds: list[int] = []

    def create(self) -> None:
        """Nothing to make."""

    def close_entry(self) -> None:
        """Nothing to close."""

    def adopt(self, pid: int) -> None:
        """Remembers the leader, which has made or is about to make its own session."""
        self._pid = pid

    def controller(self, name: str) -> None:
        """There is none."""

    def why_not(self, controller: str) -> str:
        """Why no limit of this controller can be set."""
        return "this host gives the worker no cgroups"

    def processes(self) -> list[int]:
        """Unknown, so none."""
        return []

    def signal(self, number: int) -> None:
        """Sends a signal to the group, or to its leader alone while that is about to make it."""
        if self._pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:
                os.kill(self._pid, number)

    def kill(self) -> None:
        """Kills the group."""
        self.signal(syscalls.SIGKILL)

    def freeze(self, *, frozen: bool) -> None:
        """There is nothing that stops processes and keeps them stopped; OSError."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def open_events(self) -> None:
        """There is nothing that tells when a process group is empty."""

    def usage(self, rusage: struct_rusage | Exit | None, *, ended: bool) -> Usage:
        """What wait4(2) told of a job that has ended."""
        usage = no_usage()
        if ended and rusage is not None:
            usage["cpu_user_usec"] = round(rusage.ru_utime * 1e6)
            usage["cpu_system_usec"] = round(rusage.ru_stime * 1e6)
            usage["memory_peak_bytes"] = rusage.ru_maxrss * 1024
        return usage

    def remove(self) -> None:
        """Nothing to remove."""
        self._pid = None
