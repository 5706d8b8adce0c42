"""`jobworker supervisor`: becomes the supervisor, in this very process."""

from __future__ import annotations

import os
import socket
from typing import Annotated, NoReturn

from cyclopts import Parameter

from jobworker import statedir, supervisorprocess
from jobworker.cli.place import Config, State, pick
from jobworker.errors import FailedPrecondition


def supervisor(
    *,
    state: State = None,
    cgroup_root: Annotated[str | None, Parameter(help="The cgroup it makes its tree in.")] = None,
    config: Config = None,
) -> NoReturn:
    """Never returns. A service manager that waits for it (Type=notify) is told when it is ready."""
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
