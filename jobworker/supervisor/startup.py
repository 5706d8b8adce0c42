"""How the supervisor comes up, and what it becomes in the end: nothing, or its successor.

Decides what is loaded when: the nurse is cloned from a process that has loaded next to nothing, the rest comes after her.
No automatic garbage collection. An upgrade is an exec of the same command line: pid and children stay, everything
else is in files and with the keeper.
"""

from __future__ import annotations

import contextlib
import gc
import os

from jobworker import syscalls
from jobworker.supervisor import cgroup_setup, jobfiles
from jobworker.supervisor.cgroup_none import Group
from jobworker.supervisor.custody import Custody
from jobworker.supervisor.journal import note
from jobworker.supervisor.keeper import LISTENER, TABLE, read_table
from jobworker.supervisor.nurse import Origin
from jobworker.supervisor.nursery import Nursery
from jobworker.supervisor.options import LOCK_NAME, Options, StartupError, become, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from jobworker.supervisor.succession import Succession

try:  # hashlib would load OpenSSL, and with its memory raise the cost of every clone
    from _sha2 import sha256  # type: ignore[import-not-found]  # Python 3.12
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]  # Python 3.11
    except ImportError:
        from hashlib import sha256

PROCESS_NAME = b"jobworker-super"
SIGNALS = [syscalls.SIGTERM, syscalls.SIGHUP, syscalls.SIGINT]
_JOBS_NAME = "jobs"


def run(options: Options, *, ignored: list[int]) -> int:
    """Serves until told to end; the exit status. Does not return from an upgrade."""
    state_fd, jobs_fd = _open_state(options.state)
    _write_pid(state_fd)
    tree = cgroup_setup.set_up(_tree_name(options.state), root=options.cgroup_root)
    parent = os.getppid()
    custody = Custody(options.keeper_fd, read_table(options.kept_fd))
    if custody.is_there:  # then our parent was, and is, the keeper
        Group.keeper = parent
    gc.collect()
    gc.disable()
    gc.freeze()
    jobfiles.clear_leftovers(jobs_fd=jobs_fd)
    origin = Origin(ignored=ignored, blocked=SIGNALS, nofile=options.nofile)
    last = max([*custody.kept, *(tree.numbers() if tree else ())], default=0)
    nursery = Nursery(tree, origin, jobs_fd=jobs_fd, custody=custody, last=last)
    # imported last: what was loaded before the nurse was cloned is copied for every job
    from jobworker.supervisor import serve, succession  # noqa: PLC0415

    future = ""
    try:
        outcome = serve.run(
            nursery,
            state_fd=state_fd,
            jobs_fd=jobs_fd,
            is_managed=options.is_managed,
            when_ready=lambda: tell(options.ready_fd, "ready\n"),
        )
        future = outcome.future
    finally:
        nursery.close()
        if tree is not None and future not in (succession.UPGRADE, succession.KEEP):
            tree.remove()
    if future == succession.UPGRADE:
        note("upgrading in place")
        _become(options, outcome, keeper_fd=options.keeper_fd)
    if future == succession.KEEP:  # the children stay ours, and their exits are for us to tell
        note("becoming the keeper")
        _become(options, outcome, keeper_fd=-1)
    note("ended")
    return 0


def _become(options: Options, outcome: Succession, *, keeper_fd: int) -> NoReturn:
    """Hands everything on through the exec, so that nobody else has to be there meanwhile."""
    kept_fd = os.memfd_create("kept", os.MFD_CLOEXEC)
    nothing, writer = os.pipe()
    os.close(writer)  # a pipe at its end stands for one that is closed
    listener_fd = outcome.listener_fd
    fds = [kept_fd, keeper_fd, options.lock_fd, listener_fd]
    table = [TABLE.pack(LISTENER, 0, listener_fd, -1, -1, -1)]
    for number, pid, theirs in outcome.descriptors():
        mine = [fd if fd >= 0 else os.dup(nothing) for fd in theirs]
        table.append(TABLE.pack(number, pid, *mine))
        fds += mine
    os.write(kept_fd, b"".join(table))
    os.lseek(kept_fd, 0, os.SEEK_SET)
    become(options.command(keeper_fd=keeper_fd, kept_fd=kept_fd), fds=tuple(fds))


def _open_state(path: str) -> tuple[int, int]:
    """Descriptors of the state directory, which must be there, and of its jobs, which are made if need be."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        state_fd = os.open(path, flags)
        with contextlib.suppress(FileExistsError):
            os.mkdir(_JOBS_NAME, 0o700, dir_fd=state_fd)
        return state_fd, os.open(_JOBS_NAME, flags, dir_fd=state_fd)
    except OSError as error:
        raise StartupError(f"state directory {path}: {error.strerror}") from error


def _write_pid(state_fd: int) -> None:
    """Into the file that the keeper has locked, and into the space that it has: on a full disk that would not come back."""
    text = f"{os.getpid()}\n".encode()
    fd = os.open(LOCK_NAME, os.O_WRONLY | os.O_CLOEXEC, dir_fd=state_fd)
    try:
        os.pwrite(fd, text, 0)
        os.ftruncate(fd, len(text))
    finally:
        os.close(fd)


def _tree_name(state: str) -> str:
    """One tree per state directory, found again by the next supervisor of it."""
    digest: str = sha256(os.fsencode(state)).hexdigest()
    return "jobworker-" + digest[:12]
