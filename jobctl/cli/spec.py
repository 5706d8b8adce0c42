"""What can be said of a job on the command line of `start` and `run`, and as the library's options."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from jobctl import types
from jobctl.cli import parse
from jobctl.cli.limits import LimitFlags
from jobctl.cli.session import read, read_all
from jobctl.errors import InvalidArgument
from jobctl.requests import JobOptions


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class JobFlags(LimitFlags):
    """Options of a job that is to be."""

    name: str = ""
    """A name for people; it need not be unique."""
    label: tuple[str, ...] = ()
    """KEY=VALUE to select jobs by; may be repeated."""
    env: Annotated[tuple[str, ...], Parameter(name=["--env", "-e"])] = ()
    """NAME=VALUE for its environment, or NAME to pass ours on; may be repeated."""
    workdir: Annotated[str | None, Parameter(name=["--workdir", "-w"])] = None
    """Absolute working directory on the worker; a scratch directory of the job's own when absent."""
    user: str | None = None
    """The Unix user to run as, where the worker allows it."""
    timeout: str | None = None
    """Time after which it is killed: 90, 10m, 1h30m."""
    stop_signal: str | None = None
    """The signal that stopping it begins with, instead of TERM."""
    stop_grace: str | None = None
    """How long stopping it waits before it is killed, instead of 10s."""
    output_max: str | None = None
    """Output that is kept of it, instead of the worker's own cap: 512M."""
    output_keep: str | None = None
    """What to keep of more than that: newest (the default), oldest, or all: it then waits in its write."""
    wait_for_tree: bool = False
    """It ends with its last process, not with its first."""
    request_id: str | None = None
    """A key of your own: the same key again answers with the same job and starts nothing."""
    id: str | None = None
    """The job's id, a UUID of your own choice."""

    def options(self) -> JobOptions:
        """For the library; raises InvalidArgument naming the option."""
        found: JobOptions = {
            "name": self.name,
            "labels": read_all("--label", parse.pairs, self.label),
            "env": read_all("--env", lambda texts: parse.variables(texts, os.environ), self.env),
            "wait_for_tree": self.wait_for_tree,
        }
        if self.workdir is not None:
            found["workdir"] = self.workdir
        if self.user is not None:
            found["user"] = self.user
        if self.timeout is not None:
            found["timeout"] = read("--timeout", parse.seconds, self.timeout)
        if self.stop_signal is not None:
            found["stop_signal"] = read("--stop-signal", parse.signal, self.stop_signal)
        if self.stop_grace is not None:
            found["stop_grace"] = read("--stop-grace", parse.seconds, self.stop_grace)
        if (limits := self.limits()) is not None:
            found["limits"] = limits
            found["best_effort_limits"] = self.best_effort
        if self.output_max is not None or self.output_keep is not None:
            found["output_cap"] = self._output_cap()
        return found

    def _output_cap(self) -> types.OutputCap:
        keep = types.Keep(types.Keep.NEWEST)
        if self.output_keep is not None:
            keep = read("--output-keep", _keep, self.output_keep)
        if self.output_max is not None:
            return types.OutputCap(max_bytes=read("--output-max", parse.size, self.output_max), keep=keep)
        if keep is not types.Keep.ALL:
            raise InvalidArgument(
                f"--output-keep {self.output_keep} of how much",
                field="--output-keep",
                hint="add --output-max 512M, say",
            )
        return types.OutputCap(keep=keep)


NO_FLAGS = JobFlags()


def _keep(text: str) -> types.Keep:
    known = {(keep.name or "").lower(): keep for keep in types.Keep if keep}
    if text.lower() not in known:
        raise ValueError(f"'{text}' is none of {', '.join(known)}")
    return types.Keep(known[text.lower()])


def program(argv: tuple[str, ...], *, verb: str) -> tuple[str, ...]:
    """The argv, which must not be empty; raises InvalidArgument."""
    if not argv:
        raise InvalidArgument(
            "no program given", field="argv", hint=f"jobctl {verb} [OPTIONS] -- PROGRAM [ARGUMENTS]"
        )
    return argv
