"""`jobworker supervisor`: becomes the supervisor, in this very process."""

from __future__ import annotations

import os
from typing import Annotated, NoReturn

from cyclopts import Parameter

from jobworker import statedir, supervisorprocess
from jobworker.cli.place import Config, State, pick


def supervisor(
    *,
    state: State = None,
    cgroup_root: Annotated[str | None, Parameter(help="The cgroup it makes its tree in.")] = None,
    config: Config = None,
) -> NoReturn:
    """Never returns."""
    root = pick("cgroup_root", cgroup_root, config=config)
    directory = statedir.make(pick("state", state, config=config))
    line = supervisorprocess.command(directory, cgroup_root=root, ready_fd=None)
    os.chdir(supervisorprocess.PACKAGE_PARENT)
    os.execv(line[0], line)  # noqa: S606 - there is no shell to be had
