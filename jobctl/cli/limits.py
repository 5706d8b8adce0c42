"""Limits as they are typed: on `start` and `run`, and on `update`, where "none" lifts one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from cyclopts import Parameter

from jobctl import types
from jobctl.cli import parse
from jobctl.cli.session import read, read_all

NONE = "none"
_SCALARS = {  # flag's field → the limit's, and how its text is read
    "cpus": ("cpus", parse.cores),
    "memory": ("memory_bytes", parse.size),
    "swap": ("swap_bytes", parse.size),
    "pids": ("pids", parse.count),
    "cpu_weight": ("cpu_weight", parse.count),
    "io_weight": ("io_weight", parse.count),
    "nice": ("nice", parse.integer),
    "oom_score_adj": ("oom_score_adj", parse.integer),
}
_RATES = {  # flag's field → the rate's, and how its text is read
    "io_read": ("read_bytes_per_second", parse.size),
    "io_write": ("write_bytes_per_second", parse.size),
    "io_read_ops": ("read_operations_per_second", parse.count),
    "io_write_ops": ("write_operations_per_second", parse.count),
}


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class LimitFlags:
    """Options for what a job may take."""

    cpus: str | None = None
    """Processor cores it may use: 1.5."""
    memory: str | None = None
    """Memory it may use: 512M."""
    swap: str | None = None
    """Swap it may use beside its memory: 64M; none by itself when memory is limited."""
    pids: str | None = None
    """Processes and threads it may have."""
    cpu_weight: str | None = None
    """Its share when processors are short, 1 to 10000; 100 is usual."""
    io_weight: str | None = None
    """Its share when disk time is short, 1 to 10000; 100 is usual."""
    io_read: tuple[str, ...] = ()
    """PATH=BYTES a second it may read from the path's disk: /data=10M; may be repeated."""
    io_write: tuple[str, ...] = ()
    """PATH=BYTES a second it may write to the path's disk; may be repeated."""
    io_read_ops: tuple[str, ...] = ()
    """PATH=NUMBER of reads a second; may be repeated."""
    io_write_ops: tuple[str, ...] = ()
    """PATH=NUMBER of writes a second; may be repeated."""
    rlimit: tuple[str, ...] = ()
    """NAME=SOFT[:HARD], a resource limit of each process: nofile=1024, core=0, fsize=1G; may be repeated."""
    nice: str | None = None
    """Niceness of each process, -20 to 19: --nice=5."""
    oom_score_adj: Annotated[str | None, Parameter(name="--oom-score-adj")] = None
    """How much sooner it is killed when memory runs out, -1000 to 1000."""
    best_effort: bool = False
    """Go on where the worker cannot enforce a limit; status tells which."""

    def limits(self) -> types.Limits | None:
        """The limits given; None when there are none. Raises InvalidArgument naming the option."""
        given = {
            limit: read(_flag(flag), parser, text)
            for flag, (limit, parser) in _SCALARS.items()
            if (text := getattr(self, flag)) not in (None, NONE)
        }
        io = self._io()
        rlimits = read_all("--rlimit", parse.rlimits, self.rlimit)
        if not (given or io or rlimits):
            return None
        pairs = {name: types.RLimit(soft=soft, hard=hard) for name, (soft, hard) in rlimits.items()}
        return types.Limits(**given, io=io, rlimits=pairs)  # type: ignore[arg-type]  # each parser gives its limit's type

    def lifted(self) -> list[str]:
        """The limits that are to be no more."""
        names = [limit for flag, (limit, _) in _SCALARS.items() if getattr(self, flag) == NONE]
        return [*names, *(["io"] if any(NONE in getattr(self, flag) for flag in _RATES) else [])]

    def _io(self) -> list[types.IoLimit]:
        found: dict[str, types.IoLimit] = {}
        for flag, (rate, parser) in _RATES.items():
            texts = [text for text in getattr(self, flag) if text != NONE]
            for path, value in read_all(_flag(flag), partial(parse.rates, read=parser), texts).items():
                setattr(found.setdefault(path, types.IoLimit(path=path)), rate, value)
        return list(found.values())


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
