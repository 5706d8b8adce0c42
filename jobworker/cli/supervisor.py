"""`jobworker supervisor`: becomes the supervisor, in this very process; `upgrade` speaks to the one that runs."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from jobwire import __version__
from jobworker import statedir, supervisorprocess
from jobworker.cli.place import Config, State, pick
from jobworker.errors import FailedPrecondition
from jobworker.supervisorlink import SupervisorLink

Action = Annotated[
    Literal["run", "upgrade"],
    Parameter(help="upgrade: have the one that runs become the version installed now; its jobs run on."),
]


def supervisor(
    action: Action = "run",
    /,
    *,
    state: State = None,
    cgroup_root: Annotated[str | None, Parameter(help="The cgroup it makes its tree in.")] = None,
    config: Config = None,
) -> None:
    """Does not return when it is to run. A service manager that waits for it (Type=notify) is told when it is ready."""
    if action == "upgrade":
        upgrade(pick("state", state, config=config))
        return
    root = pick("cgroup_root", cgroup_root, config=config)
    directory = statedir.make(pick("state", state, config=config))
    line = supervisorprocess.command(directory, cgroup_root=root, notify_fd=_manager())
    os.chdir(supervisorprocess.PACKAGE_PARENT)
    os.execv(line[0], line)  # noqa: S606 - there is no shell to be had


def _manager() -> int | None:
    """A descriptor that the service manager hears (sd_notify(3)); None when there is no manager."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
    except OSError as error:
        sock.close()
        raise FailedPrecondition(
            f"the service manager does not listen on '{path}': {error.strerror}"
        ) from error
    sock.set_inheritable(True)
    return sock.detach()


def upgrade(state: Path) -> None:
    """Says who goes on with how many jobs."""
    pid, jobs = asyncio.run(_upgrade(state))
    word = "1 job goes" if jobs == 1 else f"{jobs} jobs go"
    print(f"supervisor {pid} is jobworker {__version__} now, {word} on")  # noqa: T201 - it is what was asked for


async def _upgrade(state: Path) -> tuple[int, int]:
    link = SupervisorLink(state)
    try:
        return await link.upgrade()
    finally:
        await link.close()
