"""`python -m jobworker.supervisor --state DIR [--cgroup-root PATH] [--ready-fd N]`: the parent of every job.

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
import signal
import sys
import time

from jobworker import syscalls
from jobworker.supervisor import cgroup_setup
from jobworker.supervisor.control import Listener
from jobworker.supervisor.engine import Engine
from jobworker.supervisor.journal import note
from jobworker.supervisor.launch import Launcher
from jobworker.supervisor.loop import READ, Loop
from jobworker.supervisor.nursery import PROCESS_NAME, Nursery

try:  # hashlib would load OpenSSL, and with its memory raise the cost of every clone
    from _sha2 import sha256  # type: ignore[import-not-found]  # Python 3.12
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]  # Python 3.11
    except ImportError:
        from hashlib import sha256

LOCK_NAME = "supervisor.lock"
JOBS_NAME = "jobs"
_BLOCKED = [int(signal.SIGTERM), int(signal.SIGHUP), int(signal.SIGINT)]  # read from a signalfd
_IGNORED = [int(signal.SIGPIPE), int(signal.SIGXFSZ)]  # by the interpreter, from its start
_USAGE = "usage: python -m jobworker.supervisor --state DIR [--cgroup-root PATH] [--ready-fd N]"


class StartupError(Exception):
    """The supervisor cannot run here; the text is one line for people."""


class Options:
    """The command line; `ready_fd` is -1 when nobody waits."""

    __slots__ = ("cgroup_root", "ready_fd", "state")

    def __init__(self, arguments: list[str]) -> None:
        values = {"--state": "", "--cgroup-root": "", "--ready-fd": "-1"}
        names = arguments[0::2]
        if len(arguments) % 2 or any(name not in values for name in names):
            raise StartupError(_USAGE)
        values.update(zip(names, arguments[1::2], strict=True))
        if not values["--state"] or not values["--ready-fd"].lstrip("-").isdigit():
            raise StartupError(_USAGE)
        self.state = os.path.realpath(values["--state"])
        self.cgroup_root = values["--cgroup-root"] or None
        self.ready_fd = int(values["--ready-fd"])


def main(arguments: list[str]) -> int:
    """Runs until told to end; the exit status."""
    ready_fd = -1
    try:
        options = Options(arguments)
        ready_fd = options.ready_fd
        nofile = _set_up_process()
        state_fd = _open_state(options.state)
        lock_fd = _lock(state_fd, options.state)
        _serve(options, state_fd, nofile)
        os.close(lock_fd)
    except (StartupError, OSError) as error:
        note(f"cannot start: {error}")
        _tell(ready_fd, f"{error}\n")
        return 1
    return 0


def _serve(options: Options, state_fd: int, nofile: tuple[int, int] | None) -> None:
    started_ns = time.time_ns()
    tree = cgroup_setup.set_up(_tree_name(options.state), root=options.cgroup_root)
    loop = Loop()
    jobs_fd = os.open(JOBS_NAME, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=state_fd)
    boot_id = _read_boot_id()
    engine = Engine(loop, jobs_fd=jobs_fd, boot_id=boot_id, started_ns=started_ns)
    nursery = Nursery(tree, ignored=_IGNORED, nofile=nofile)
    engine.launcher = Launcher(engine, nursery, boot_id=boot_id)
    _watch_signals(loop, engine)
    listener = Listener(loop, state_fd=state_fd, admit=engine.admit)
    note(f"ready, state {options.state}, cgroups {tree.path if tree else 'none'}")
    gc.collect()
    gc.disable()
    gc.freeze()
    nursery.refill()
    _tell(options.ready_fd, "ready\n")
    loop.run()
    listener.close()
    nursery.empty()
    if tree is not None:
        tree.remove()
    note("ended")


def _set_up_process() -> tuple[int, int] | None:
    """Makes the process fit to be copied into jobs; the descriptor limit to restore there, if it was raised."""
    os.chdir("/")
    os.umask(0o022)
    syscalls.set_process_name(PROCESS_NAME)
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:  # the standard streams must not be anything else
        os.set_inheritable(fd, True)
    os.close(fd)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != fd:
            _close_on_exec(int(name))
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP, *_IGNORED) and not 32 <= number < 34:
            signal.signal(number, signal.SIG_DFL)
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


def _open_state(path: str) -> int:
    try:
        state_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(FileExistsError):
            os.mkdir(JOBS_NAME, 0o700, dir_fd=state_fd)
    except OSError as error:
        raise StartupError(f"state directory {path}: {error.strerror}") from error
    return state_fd


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


def _watch_signals(loop: Loop, engine: Engine) -> None:
    fd = syscalls.signalfd(_BLOCKED)

    def on_signal(_events: int) -> None:
        if os.read(fd, 128)[0] == signal.SIGTERM:  # others are ignored
            engine.shut_down()

    loop.watch(fd, READ, on_signal)


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


def _read_boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
