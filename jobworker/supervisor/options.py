"""How the supervisor is called, by the API server and by itself, and what whoever waits for it is told.

Decides the command line only. It is written here as well as read, so that a supervisor can start its successor with
what it was itself started with.
"""

from __future__ import annotations

import os
import sys

from jobworker.supervisor.journal import note

PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
USAGE = (
    "usage: python -m jobworker.supervisor --state DIR [--cgroup-root PATH] [--nofile SOFT:HARD]"
    " [--ready-fd N] [--notify-fd N]"
)
LOCK_NAME = "supervisor.lock"  # locked by the keeper; holds the supervisor's pid
_DEFAULTS = {
    "--state": "",
    "--cgroup-root": "",
    "--nofile": "",
    "--ready-fd": "-1",
    "--notify-fd": "-1",
    "--managed": "",
    "--keeper-fd": "-1",
    "--can-take-over": "",
}


class StartupError(Exception):
    """The supervisor cannot run here; the text is one line for people."""


class Options:
    """The command line. Descriptors are -1 when not given.

    `ready_fd` is for whoever waits, `notify_fd` for a service manager (sd_notify(3)), who `is_managed` says is there.
    `nofile` is the descriptor limit that jobs get (getrlimit(2)), None: that of this process; `keeper_fd` leads to the
    keeper, which gives it to the supervisors that it starts; `can_take_over` is a version of the running jobs' state.
    """

    __slots__ = (
        "can_take_over",
        "cgroup_root",
        "is_managed",
        "keeper_fd",
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
            self.nofile = _pair(values["--nofile"])
        except ValueError:
            raise StartupError(USAGE) from None
        if not values["--state"] and not self.can_take_over:
            raise StartupError(USAGE)
        self.state = os.path.realpath(values["--state"])
        self.cgroup_root = values["--cgroup-root"] or None
        self.is_managed = bool(values["--managed"]) or self.notify_fd >= 0

    def command(self, *, keeper_fd: int, ready_fd: int = -1) -> list[str]:
        """The command line of a supervisor with these options, to be run in PACKAGE_PARENT."""
        line = [
            *interpreter(),
            "--state",
            self.state,
            "--keeper-fd",
            str(keeper_fd),
            "--ready-fd",
            str(ready_fd),
        ]
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


def spawn(command: list[str]) -> int:
    """Starts one of our own command lines with what is inheritable, signals blocked as here; its pid."""
    os.chdir(PACKAGE_PARENT)
    try:
        return os.posix_spawn(command[0], command, os.environ)
    finally:
        os.chdir("/")


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
