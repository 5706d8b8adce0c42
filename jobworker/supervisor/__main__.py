"""`python -m jobworker.supervisor --state DIR [--cgroup-root PATH] [--ready-fd N] [--notify-fd N]`: the parent of every job.

Decides how the process itself is set up before the first job: one supervisor per state directory, no descriptor
that a job could inherit, signals read from a descriptor, no automatic garbage collection. Says "ready" on the
descriptor given, or in one line there why it cannot start, and exits 1.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
import sys

from jobworker import syscalls
from jobworker.supervisor import cgroup_setup, jobfiles
from jobworker.supervisor.journal import note
from jobworker.supervisor.nurse import Origin
from jobworker.supervisor.nursery import Nursery

try:  # hashlib would load OpenSSL, and with its memory raise the cost of every clone
    from _sha2 import sha256  # type: ignore[import-not-found]  # Python 3.12
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]  # Python 3.11
    except ImportError:
        from hashlib import sha256

LOCK_NAME = "supervisor.lock"
_JOBS_NAME = "jobs"
_PROCESS_NAME = b"jobworker-super"
_BLOCKED = [syscalls.SIGTERM, syscalls.SIGHUP, syscalls.SIGINT]  # read from a signalfd
_IGNORED = [syscalls.SIGPIPE, syscalls.SIGXFSZ]  # by the interpreter, from its start
_USAGE = (
    "usage: python -m jobworker.supervisor --state DIR [--cgroup-root PATH] [--ready-fd N] [--notify-fd N]"
)


class StartupError(Exception):
    """The supervisor cannot run here; the text is one line for people."""


class Options:
    """The command line; `ready_fd` is -1 when nobody waits, `notify_fd` when no service manager does."""

    __slots__ = ("cgroup_root", "notify_fd", "ready_fd", "state")

    def __init__(self, arguments: list[str]) -> None:
        values = {"--state": "", "--cgroup-root": "", "--ready-fd": "-1", "--notify-fd": "-1"}
        names = arguments[0::2]
        if len(arguments) % 2 or any(name not in values for name in names):
            raise StartupError(_USAGE)
        values.update(zip(names, arguments[1::2], strict=True))
        numbers = [values[name].lstrip("-") for name in ("--ready-fd", "--notify-fd")]
        if not values["--state"] or not all(number.isdigit() for number in numbers):
            raise StartupError(_USAGE)
        self.state = os.path.realpath(values["--state"])
        self.cgroup_root = values["--cgroup-root"] or None
        self.ready_fd = int(values["--ready-fd"])
        self.notify_fd = int(values["--notify-fd"])


def main(arguments: list[str]) -> int:
    """Runs until told to end; the exit status."""
    ready_fd = -1
    try:
        options = Options(arguments)
        ready_fd = options.ready_fd
        nofile = _set_up_process()
        state_fd, jobs_fd = _open_state(options.state)
        lock_fd = _lock(state_fd, options.state)
        _run(options, state_fd=state_fd, jobs_fd=jobs_fd, nofile=nofile)
        os.close(lock_fd)
    except (StartupError, OSError) as error:
        note(f"cannot start: {error}")
        _tell(ready_fd, f"{error}\n")
        return 1
    return 0


def _run(options: Options, *, state_fd: int, jobs_fd: int, nofile: tuple[int, int] | None) -> None:
    tree = cgroup_setup.set_up(_tree_name(options.state), root=options.cgroup_root)
    gc.collect()
    gc.disable()
    gc.freeze()
    jobfiles.clear_leftovers(jobs_fd=jobs_fd)
    origin = Origin(ignored=_IGNORED, blocked=_BLOCKED, nofile=nofile)
    nursery = Nursery(tree, origin, jobs_fd=jobs_fd)
    # imported last: what was loaded before the nurse was cloned is copied for every job
    from jobworker.supervisor import serve  # noqa: PLC0415

    try:
        serve.run(
            nursery,
            state_fd=state_fd,
            jobs_fd=jobs_fd,
            is_managed=options.notify_fd >= 0,
            when_ready=lambda: _tell_ready(options),
        )
    finally:
        nursery.close()
        if tree is not None:
            tree.remove()
    note("ended")


def _set_up_process() -> tuple[int, int] | None:
    """Makes the process fit to be copied into jobs; the descriptor limit to restore there, if it was raised."""
    os.chdir("/")
    os.umask(0o022)
    syscalls.set_process_name(_PROCESS_NAME)
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:  # the standard streams must not be anything else
        os.set_inheritable(fd, True)
    os.close(fd)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != fd:
            _close_on_exec(int(name))
    for number in range(1, syscalls.SIGNALS + 1):
        if number not in _IGNORED:  # those of whoever started us, and the interpreter's handler of SIGINT
            syscalls.reset_signal(number)
    syscalls.set_signal_mask(_BLOCKED)
    return _raise_descriptor_limit()


def _close_on_exec(fd: int) -> None:
    try:
        os.set_inheritable(fd, False)
    except OSError:
        return  # the descriptor that listed the others


def _raise_descriptor_limit() -> tuple[int, int] | None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return None
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, hard


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


def _lock(state_fd: int, path: str) -> int:
    """Takes the lock that makes this the only supervisor of the state directory; it lasts as long as the process."""
    lock_fd = os.open(LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=state_fd)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock_fd, 32).decode("ascii", "replace").strip()
        raise StartupError(f"supervisor {holder} already runs on state directory {path}") from None
    os.ftruncate(lock_fd, 0)
    os.write(lock_fd, f"{os.getpid()}\n".encode())
    return lock_fd


def _tell_ready(options: Options) -> None:
    _tell(options.ready_fd, "ready\n")
    _tell(options.notify_fd, "READY=1\n")  # sd_notify(3)


def _tell(ready_fd: int, text: str) -> None:
    if ready_fd < 0:
        return
    try:
        os.write(ready_fd, text.encode("utf-8", "replace"))
        os.close(ready_fd)
    except OSError as error:
        note(f"nobody waits at descriptor {ready_fd}: {error.strerror}")


def _tree_name(state: str) -> str:
    """One tree per state directory, found again by the next supervisor of it."""
    digest: str = sha256(os.fsencode(state)).hexdigest()
    return "jobworker-" + digest[:12]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
