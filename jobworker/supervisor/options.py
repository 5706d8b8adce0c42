"""How the supervisor is called, by the API server and by itself, and what whoever waits for it is told.

Decides the command line only. It is written here as well as read, so that a supervisor can start its successor with
what it was itself started with.
"""

from __future__ import annotations

import os
import sys

from jobworker.supervisor.journal import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
USAGE = (
    "usage: python -m jobworker.supervisor --state DIR [--cgroup-root PATH] [--nofile SOFT:HARD]"
    " [--ready-fd N] [--notify-fd N]"
)
LOCK_NAME = "supervisor.lock"  # locked by the keeper; holds the supervisor's pid
ALREADY_RUNS = "already runs on state directory"  # what a second one says; the first may be on its way up
_DEFAULTS = {
    "--state": "",
    "--cgroup-root": "",
    "--nofile": "",
    "--ready-fd": "-1",
    "--notify-fd": "-1",
    "--managed": "",
    "--keeper-fd": "-1",
    "--lock-fd": "-1",
    "--kept-fd": "-1",
    "--can-take-over": "",
}


class StartupError(Exception):
    """The supervisor cannot run here; the text is one line for people."""


class Options:
    """The command line. Descriptors are -1 when not given.

    `ready_fd` is for whoever waits, `notify_fd` for a service manager (sd_notify(3)), who `is_managed` says is there.
    `nofile` is the descriptor limit that jobs get (getrlimit(2)), None: that of this process. `can_take_over` is a
    version of the running jobs' state. `keeper_fd` leads to the keeper, `lock_fd` is the lock that both hold: the keeper
    gives them to the supervisors that it starts. `kept_fd` is what a supervisor that becomes a keeper has to keep.
    """

    __slots__ = (
        "can_take_over",
        "cgroup_root",
        "is_managed",
        "keeper_fd",
        "kept_fd",
        "lock_fd",
        "nofile",
        "notify_fd",
        "ready_fd",
        "state",
    )

    def __init__(self, arguments: list[str]) -> None:
        values = dict(_DEFAULTS)
        names = arguments[0::2]
        if len(arguments) % 2 or any(name not in values for name in names):
            raise StartupError(USAGE)
        values.update(zip(names, arguments[1::2], strict=True))
        self.can_take_over = values["--can-take-over"]
        try:
            self.ready_fd = int(values["--ready-fd"])
            self.notify_fd = int(values["--notify-fd"])
            self.keeper_fd = int(values["--keeper-fd"])
            self.lock_fd = int(values["--lock-fd"])
            self.kept_fd = int(values["--kept-fd"])
            self.nofile = _pair(values["--nofile"])
        except ValueError:
            raise StartupError(USAGE) from None
        if not values["--state"] and not self.can_take_over:
            raise StartupError(USAGE)
        self.state = os.path.realpath(values["--state"])
        self.cgroup_root = values["--cgroup-root"] or None
        self.is_managed = bool(values["--managed"]) or self.notify_fd >= 0

    def command(self, *, keeper_fd: int = -1, kept_fd: int = -1, ready_fd: int = -1) -> list[str]:
        """The command line of a supervisor or, without `keeper_fd`, a keeper with these options; for PACKAGE_PARENT."""
        line = [*interpreter(), "--state", self.state]
        given = {"keeper": keeper_fd, "kept": kept_fd, "ready": ready_fd, "lock": self.lock_fd}
        for name, fd in given.items():
            if fd >= 0:
                line += [f"--{name}-fd", str(fd)]
        if self.cgroup_root is not None:
            line += ["--cgroup-root", self.cgroup_root]
        if self.nofile is not None:
            line += ["--nofile", "{}:{}".format(*self.nofile)]
        if self.is_managed:
            line += ["--managed", "yes"]
        return line


def interpreter() -> list[str]:
    """Python without site and environment: for its size, and for whom it runs programs for."""
    return [sys.executable, "-S", "-E", "-s", "-m", "jobworker.supervisor"]


def spawn(command: list[str], *, fds: tuple[int, ...] = ()) -> int:
    """Starts one of our own command lines with these descriptors (-1: none), signals blocked as here; its pid."""
    os.chdir(PACKAGE_PARENT)
    try:
        _hand_on(fds, inheritable=True)
        return os.posix_spawn(command[0], command, os.environ)
    finally:
        _hand_on(fds, inheritable=False)
        os.chdir("/")


def become(command: list[str], *, fds: tuple[int, ...]) -> NoReturn:
    """Executes one of our own command lines in place of this program; pid, children and these descriptors stay."""
    _hand_on(fds, inheritable=True)
    os.chdir(PACKAGE_PARENT)
    os.execv(command[0], command)  # noqa: S606  # ourselves


def _hand_on(fds: tuple[int, ...], *, inheritable: bool) -> None:
    for fd in fds:
        if fd >= 0:
            os.set_inheritable(fd, inheritable)


def tell(ready_fd: int, text: str) -> None:
    """Says once to whoever started us how that went."""
    if ready_fd < 0:
        return
    try:
        os.write(ready_fd, text.encode("utf-8", "replace"))
        os.close(ready_fd)
    except OSError as error:
        note(f"nobody waits at descriptor {ready_fd}: {error.strerror}")


def _pair(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    soft, hard = text.split(":")
    return int(soft), int(hard)
