"""Limits between the API's words and the supervisor's, and which of them only an admin may ask for.

Decides how each is told in the other's terms; whether a limit can be had is the supervisor's to find out. The disk
that a path is on is looked up before, since that may take a while.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from generated.jobworker.v1 import IoLimit, JobRecord, Limits, RLimit, UnenforcedLimit
from jobworker import blockdevice, records
from jobworker.blockdevice import NoDiskError, Place
from jobworker.errors import InvalidArgument, PermissionDenied
from jobworker.policy import Caller, may_favour
from jobworker.records import given, make
from jobworker.supervisor import jobfacts
from jobworker.supervisor.processlimits import RLIMITS

# one of its own: a path on a dead network file system holds up those who ask for paths, and nobody else
_LOOKUPS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="paths")


@dataclass(frozen=True, slots=True)
class Asked:
    """Limits as the supervisor is told of them, and those of which is known already that they cannot be had."""

    limits: jobfacts.Limits = field(default_factory=jobfacts.Limits)
    unenforced: list[jobfacts.Unenforced] = field(default_factory=list)


NOTHING = Asked()


async def ask(limits: Limits | None, *, field: str) -> Asked:
    """What to tell the supervisor; InvalidArgument (`field` is where they are) for two paths on one disk."""
    if limits is None:
        return NOTHING
    values = _values(limits)
    io: Sequence[IoLimit] = values.pop("io", ())
    rlimits: Mapping[str, RLimit] = values.pop("rlimits", {})
    asked = Asked(values)  # type: ignore[arg-type]  # the scalars are called alike
    if rlimits:
        asked.limits["rlimits"] = {name: (limit.soft, limit.hard) for name, limit in rlimits.items()}
    for entry in io:
        await _ask_io(entry, asked, field)
    return asked


async def _ask_io(entry: IoLimit, asked: Asked, field: str) -> None:
    try:
        place = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, blockdevice.find, entry.path)
    except NoDiskError as error:
        asked.unenforced.append({"limit": "io", "reason": f"'{entry.path}': {error}"})
        return
    told = asked.limits.setdefault("io", [])
    for other in told:
        if other["device"] == place.device:
            raise InvalidArgument(
                f"{field}.io has '{other['path']}' and '{entry.path}', which are on the same disk {place.device}",
                field=f"{field}.io",
                hint="give one limit for the disk",
            )
    told.append(_io(entry, place))


def _io(entry: IoLimit, place: Place) -> jobfacts.IoLimit:
    return {
        **_values(entry),  # type: ignore[typeddict-item]  # the rates are called alike
        "path": entry.path,
        "device": place.device,
        "filesystem": place.filesystem,
    }


def _values(message: Limits | IoLimit) -> dict[str, Any]:
    """The fields that were sent."""
    return {
        name: value
        for name, value in given(message).items()
        if value is not None and not name.startswith("_")
    }


def in_force(limits: jobfacts.Limits) -> Limits | None:
    """The limits that the supervisor read back; None when there are none."""
    if not limits:
        return None
    values: dict[str, object] = {**limits}
    if "io" in limits:
        values["io"] = [make(IoLimit, **entry) for entry in limits["io"]]
    if "rlimits" in limits:
        values["rlimits"] = {
            name: make(RLimit, soft=soft, hard=hard) for name, (soft, hard) in limits["rlimits"].items()
        }
    return make(Limits, **values)


def unenforced(entries: Sequence[jobfacts.Unenforced]) -> list[UnenforcedLimit]:
    """Limits that are not in force, for a record."""
    return [make(UnenforcedLimit, **entry) for entry in entries]


def take(record: JobRecord, told: Mapping[str, Any]) -> None:
    """Writes into a record what the supervisor tells of a job's limits, and whether it is paused where that is told."""
    records.limited(record, in_force(told["limits"]), unenforced(told.get("unenforced", ())))
    if "paused" in told:
        records.paused(record, now=told["paused"])


def own_rlimit(name: str) -> int:
    """This process's hard resource limit; -1 is unlimited."""
    return resource.getrlimit(RLIMITS[name])[1]


def allow_limits(caller: Caller, limits: Limits | None, *, field: str) -> None:
    """PermissionDenied for limits that give a job more than the worker's own processes have, unless an admin asks."""
    name = "" if may_favour(caller) else beyond(limits, hard=own_rlimit)
    if name:
        raise PermissionDenied(
            f"client '{caller.client_id}' may not ask for this {field}.{name}: it gives more than the worker itself has",
            hint="ask for less, or have an admin start the job",
        )


def beyond(limits: Limits | None, *, hard: Callable[[str], int]) -> str:
    """The first limit that would put a job before the worker's own processes, or give it more than `hard`; "" for none.

    `hard` tells the worker's own hard limit by name, -1 for unlimited.
    """
    if limits is None:
        return ""
    for name in ("nice", "oom_score_adj"):
        if (getattr(limits, name) or 0) < 0:
            return name
    for name, limit in limits.rlimits.items():
        most = hard(name)
        if most != resource.RLIM_INFINITY and (limit.hard is None or limit.hard > most):
            return f"rlimits.{name}"
    return ""
