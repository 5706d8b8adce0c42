"""`python -m jobworker.supervisor --state DIR [--cgroup-root PATH] …`: the parent of every job.

Decides which of two processes this one is: the keeper, which whoever starts the supervisor gets, or the supervisor, which
the keeper starts. Both are set up alike: one pair per state directory, no descriptor that a job could inherit, signals
read from a descriptor. Says "ready" on the descriptor given, or in one line there why it cannot start, and exits 1.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import sys

from jobworker import syscalls
from jobworker.supervisor import keeper
from jobworker.supervisor.journal import note
from jobworker.supervisor.options import ALREADY_RUNS, LOCK_NAME, Options, StartupError, tell

IGNORED = [syscalls.SIGPIPE, syscalls.SIGXFSZ]  # by the interpreter, from its start


def main(arguments: list[str]) -> int:
    """Runs until told to end; the exit status."""
    ready_fd = -1
    try:
        options = Options(arguments)
        ready_fd = options.ready_fd
        if options.can_take_over:
            return _can_take_over(int(options.can_take_over))
        if options.keeper_fd < 0:
            return _keep(options)
        return _supervise(options)
    except (StartupError, OSError) as error:
        note(f"cannot start: {error}")
        tell(ready_fd, f"{error}\n")
        return 1


def _keep(options: Options) -> int:
    _set_up_process(keeper.PROCESS_NAME, keeper.SIGNALS)
    if options.nofile is None:
        options.nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
    _raise_descriptor_limit()
    if options.lock_fd < 0:
        options.lock_fd = _lock(options.state)
    return keeper.Keeper(options).run()


def _supervise(options: Options) -> int:
    from jobworker.supervisor import startup  # noqa: PLC0415 - the keeper does without

    _set_up_process(startup.PROCESS_NAME, startup.SIGNALS)
    _raise_descriptor_limit()
    return startup.run(options, ignored=IGNORED)


def _can_take_over(version: int) -> int:
    """Whether this version knows the state that one of that version has written, as an exit status."""
    from jobworker.supervisor import (  # noqa: PLC0415 - whether it can be loaded at all is asked, too
        runstate,
        serve,  # noqa: F401
        startup,  # noqa: F401
    )

    return 0 if version <= runstate.VERSION else 1


def _set_up_process(name: bytes, signals: list[int]) -> None:
    """Makes the process fit to be copied into jobs; `signals` will be read from a descriptor."""
    os.chdir("/")
    os.umask(0o022)
    syscalls.set_process_name(name)
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:  # the standard streams must not be anything else
        os.set_inheritable(fd, True)
    os.close(fd)
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) > 2 and int(entry) != fd:
            with contextlib.suppress(OSError):  # the descriptor that listed the others
                os.set_inheritable(int(entry), False)
    for number in range(1, syscalls.SIGNALS + 1):
        if number not in IGNORED:  # those of whoever started us, and the interpreter's handler of SIGINT
            syscalls.reset_signal(number)
    syscalls.set_signal_mask(signals)


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _lock(state: str) -> int:
    """Takes the lock that makes this the only pair on the state directory; it lasts as long as either process."""
    try:
        lock_fd = os.open(os.path.join(state, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(f"state directory {state}: {error.strerror}") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock_fd, 32).decode("ascii", "replace").strip()
        raise StartupError(f"supervisor {holder} {ALREADY_RUNS} {state}") from None
    return lock_fd


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
