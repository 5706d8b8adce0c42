"""The part of the border that limits pass: from JSON of any shape to limits that can be tried.

Decides types and ranges, and says which field is wrong. Pure; what this host can enforce is not known here.
"""

from __future__ import annotations

import re

from jobworker.supervisor.limits import CONTROLLERS, RATES
from jobworker.supervisor.processlimits import RLIMITS
from jobworker.supervisor.protocol import BadRequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobworker.supervisor.jobfacts import Limits, Unenforced

_DEVICE = re.compile(r"\d{1,7}:\d{1,7}")
_MOST = 2**63 - 1


def limits(message: Mapping[str, object]) -> Limits:
    """The field `limits`: an object of known names; one that is null counts as absent."""
    value = _object(message.get("limits"), "limits")
    for name, item in value.items():
        if name not in _CHECKS:
            raise BadRequestError(f"field 'limits' has no '{name}'")
        if item is not None:
            _CHECKS[name](item, f"limits.{name}")
    return {name: item for name, item in value.items() if item is not None}  # type: ignore[return-value]  # just checked


def lift(message: Mapping[str, object]) -> list[str]:
    """The field `lift`: names of limits that cgroups hold."""
    value = message.get("lift")
    if not isinstance(value, list) or not all(name in CONTROLLERS for name in value):
        raise BadRequestError(f"field 'lift' must be a list of {', '.join(CONTROLLERS)}")
    return value


def unenforced(message: Mapping[str, object]) -> list[Unenforced]:
    """The field `unenforced`, none when absent."""
    value = message.get("unenforced", [])
    keys = {"limit", "reason"}
    if not isinstance(value, list) or not all(
        isinstance(item, dict) and item.keys() == keys for item in value
    ):
        raise BadRequestError("field 'unenforced' must be a list of limits with their reasons")
    return value


def _object(value: object, field: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BadRequestError(f"field '{field}' must be an object")
    return value


def _cores(value: object, field: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _MOST:
        raise BadRequestError(f"field '{field}' must be a positive number")


def _whole(low: int, high: int = _MOST) -> Callable[[object, str], None]:
    def check(value: object, field: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadRequestError(f"field '{field}' must be an integer from {low} to {high}")

    return check


def _io(value: object, field: str) -> None:
    if not isinstance(value, list):
        raise BadRequestError(f"field '{field}' must be a list")
    devices = [_io_entry(_object(item, field), field) for item in value]
    if len(set(devices)) < len(devices):
        raise BadRequestError(f"field '{field}' has more than one entry for a device")


def _io_entry(entry: dict[str, object], field: str) -> str:
    device = entry.get("device")
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise BadRequestError(f"field '{field}.device' must be a device number, 8:0")
    for name in ("path", "filesystem"):
        if not isinstance(entry.get(name, "" if name == "filesystem" else None), str):
            raise BadRequestError(f"field '{field}.{name}' must be text")
    for name in entry.keys() - {"path", "device", "filesystem"}:
        if name not in RATES:
            raise BadRequestError(f"field '{field}' has no '{name}'")
        _whole(1)(entry[name], f"{field}.{name}")
    return device


def _rlimits(value: object, field: str) -> None:
    for name, pair in _object(value, field).items():
        if name not in RLIMITS:
            raise BadRequestError(f"field '{field}' has no '{name}'")
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRequestError(f"field '{field}.{name}' must be a list of a soft and a hard limit")
        for number in pair:
            if number is not None:
                _whole(0)(number, f"{field}.{name}")


_CHECKS: dict[str, Callable[[object, str], None]] = {
    "cpus": _cores,
    "memory_bytes": _whole(1),
    "pids": _whole(1),
    "swap_bytes": _whole(0),
    "cpu_weight": _whole(1, 10_000),
    "io_weight": _whole(1, 10_000),
    "io": _io,
    "rlimits": _rlimits,
    "nice": _whole(-20, 19),
    "oom_score_adj": _whole(-1000, 1000),
}
