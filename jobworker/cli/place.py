"""Where commands that take only some settings find them: the same flags, variables and file as `serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from jobworker import settings

if TYPE_CHECKING:
    from collections.abc import Mapping

Config = Annotated[str | None, Parameter(help="Settings file, TOML; JOBWORKER_CONFIG is the same.")]
State = Annotated[str | None, Parameter(help="Directory of all state; JOBWORKER_STATE is the same.")]


def from_file(config: str | None) -> Mapping[str, str]:
    """The settings of the file that the flag or the environment names; nothing when neither does."""
    path = config if config is not None else os.environ.get(settings.variable("config"))
    return settings.read_file(Path(path)) if path else {}


def pick(name: str, given: str | None, *, config: str | None) -> Any:
    """One setting."""
    return settings.resolve_one(name, {name: given}, environment=os.environ, file=from_file(config))
