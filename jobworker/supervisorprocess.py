"""Starts the supervisor: a process of its own that outlives this one.

Decides how it is called and how long it may take to say that it is ready; what it says when it cannot run
is passed on. It has its own session and no inherited descriptor, so nothing that ends us ends it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

from jobworker.errors import Unavailable
from jobworker.supervisor.options import ALREADY_RUNS

PACKAGE_PARENT = Path(__file__).resolve().parent.parent
LOG_NAME = "supervisor.log"
READY = b"ready\n"
READY_SECONDS = 30.0
_NOFILE = resource.getrlimit(resource.RLIMIT_NOFILE)  # what jobs get; the server raises its own later


class AnotherRunsError(Unavailable):
    """Somebody was faster; what was started then may not listen yet."""


class Child:
    """The supervisor as our child: reaped should it end while we live. `forget` when we go first."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def forget(self) -> None:
        """Watches it no longer."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _reap(self) -> None:
        self.forget()
        os.waitpid(self.pid, 0)


async def start_supervisor(state: Path, *, cgroup_root: str | None) -> Child:
    """Returns once the supervisor accepts connections; Unavailable carries its own words when it cannot."""
    log = state / LOG_NAME
    ready, ready_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            line = command(state, cgroup_root=cgroup_root, ready_fd=ready_end)
            child = Child(_spawn(line, ready_fd=ready_end, log_fd=log_fd))
        finally:
            os.close(log_fd)
            os.close(ready_end)
        try:
            said = await asyncio.wait_for(_read_line(ready), READY_SECONDS)
        except asyncio.CancelledError:  # we go first
            child.forget()
            raise
    except OSError as error:
        raise Unavailable(f"cannot start the supervisor: {error}", hint=f"see '{log}'") from error
    finally:
        os.close(ready)
    if said != READY:
        # it ends by itself, and is reaped then
        words = said.decode("utf-8", "replace").strip() or "it ended without a word"
        kind = AnotherRunsError if ALREADY_RUNS in words else Unavailable
        raise kind(f"the supervisor cannot start: {words}", hint=f"see '{log}'")
    return child


def command(
    state: Path, *, cgroup_root: str | None, ready_fd: int | None = None, notify_fd: int | None = None
) -> list[str]:
    """The supervisor's command line; without site and environment, for its size and for whom it runs programs for."""
    line = [sys.executable, "-S", "-E", "-s", "-m", "jobworker.supervisor", "--state", str(state)]
    line += ["--nofile", "{}:{}".format(*_NOFILE)]
    if cgroup_root is not None:
        line += ["--cgroup-root", cgroup_root]
    for option, fd in (("--ready-fd", ready_fd), ("--notify-fd", notify_fd)):
        if fd is not None:
            line += [option, str(fd)]
    return line


def _spawn(line: list[str], *, ready_fd: int, log_fd: int) -> int:
    process = subprocess.Popen(
        line,
        cwd=PACKAGE_PARENT,  # makes the package importable without site
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd,
        pass_fds=(ready_fd,),
        start_new_session=True,
    )
    # it is not this object that will wait for it, and it is no mistake that it runs on
    process.returncode = 0
    return process.pid


async def _read_line(fd: int) -> bytes:
    """What is written to the pipe until a newline or its end."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()
    said = bytearray()

    def on_readable() -> None:
        data = os.read(fd, 4096)
        said.extend(data)
        if not line.done() and (not data or b"\n" in data):
            line.set_result(bytes(said))

    loop.add_reader(fd, on_readable)
    try:
        return await line
    finally:
        loop.remove_reader(fd)
