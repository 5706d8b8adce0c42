"""The border for control messages: from a JSON object of any shape to values that can be trusted.

Decides which fields a request has, their types and ranges, and says which one is wrong. Pure; whether a job
exists, or may be started, is not known here.
"""

from __future__ import annotations

import re

from jobworker.supervisor.cap import KEEPS, NO_CAP, Cap
from jobworker.supervisor.limitrequests import limits, unenforced
from jobworker.supervisor.protocol import BadRequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Message = Mapping[str, object]

_JOB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")  # a file name, and the name of a cgroup
_MAX_ID = 2**32 - 2  # of a uid or gid; the last one means "no change" to the kernel
_MAX_INTEGER = 2**53  # what a JSON number holds exactly everywhere
_MAX_SIGNAL = 64


class LaunchSpec:
    """A launch request, checked; text is bytes here, as the kernel takes it."""

    __slots__ = (
        "argv",
        "best_effort",
        "env",
        "gid",
        "job",
        "limits",
        "output",
        "scratch",
        "timeout_ms",
        "uid",
        "unenforced",
        "wait_for_tree",
        "workdir",
    )

    def __init__(self, message: Message) -> None:
        self.job = job_id(message)
        self.argv = _arguments(message)
        self.env = _environment(message)
        self.scratch = _optional_path(message, "scratch")
        self.workdir = _optional_path(message, "workdir") or self.scratch or b"/"
        self.uid = optional_integer(message, "uid", high=_MAX_ID)
        self.gid = optional_integer(message, "gid", high=_MAX_ID)
        if (self.uid is None) != (self.gid is None):
            raise BadRequestError("field 'gid' must be given together with 'uid'")
        self.limits = limits(message)
        self.best_effort = optional_flag(message, "best_effort")
        self.unenforced = unenforced(message)
        self.timeout_ms = optional_integer(message, "timeout_ms", low=1)
        self.wait_for_tree = flag(message, "wait_for_tree")
        self.output = _cap(message)


def job_id(message: Message) -> str:
    """The field `job`: letters, digits, "_", "-" and ".", at most 128, not beginning with "." or "-"."""
    value = message.get("job")
    if not isinstance(value, str) or not _JOB_ID.fullmatch(value):
        raise BadRequestError("field 'job' must be a job id")
    return value


def integer(message: Message, name: str, *, low: int = 0, high: int = _MAX_INTEGER) -> int:
    """An integer field in a range; `true` is not an integer."""
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadRequestError(f"field '{name}' must be an integer from {low} to {high}")
    return value


def optional_integer(message: Message, name: str, *, low: int = 0, high: int = _MAX_INTEGER) -> int | None:
    """An integer field in a range, or null."""
    return None if message.get(name) is None else integer(message, name, low=low, high=high)


def signal_number(message: Message) -> int:
    """The field `signal`."""
    return integer(message, "signal", low=1, high=_MAX_SIGNAL)


def flag(message: Message, name: str) -> bool:
    """A boolean field."""
    value = message.get(name)
    if not isinstance(value, bool):
        raise BadRequestError(f"field '{name}' must be true or false")
    return value


def optional_flag(message: Message, name: str) -> bool:
    """A boolean field that is false when absent."""
    return name in message and flag(message, name)


def _bytes(value: object, name: str) -> bytes:
    if not isinstance(value, str) or "\0" in value:
        raise BadRequestError(f"field '{name}' must be text without NUL bytes")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise BadRequestError(f"field '{name}' holds a surrogate that stands for no byte") from None


def _arguments(message: Message) -> list[bytes]:
    value = message.get("argv")
    if not isinstance(value, list) or not value or value[0] == "":
        raise BadRequestError("field 'argv' must be a list that begins with the program's name")
    return [_bytes(item, "argv") for item in value]


def _environment(message: Message) -> dict[bytes, bytes]:
    value = message.get("env")
    if not isinstance(value, dict):
        raise BadRequestError("field 'env' must be an object")
    if any(not key or "=" in key for key in value):
        raise BadRequestError("field 'env' holds a name that is empty or contains '='")
    return {_bytes(key, "env"): _bytes(item, "env") for key, item in value.items()}


def _optional_path(message: Message, name: str) -> bytes | None:
    value = message.get(name)
    if value is None:
        return None
    path = _bytes(value, name)
    if not path.startswith(b"/"):
        raise BadRequestError(f"field '{name}' must be an absolute path or null")
    return path


def _cap(message: Message) -> Cap:
    value = message.get("output")
    if value is None:
        return NO_CAP
    if not isinstance(value, dict):
        raise BadRequestError("field 'output' must be an object or null")
    limit, keep = value.get("max_bytes"), value.get("keep")
    if limit is not None and (
        not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit <= _MAX_INTEGER
    ):
        raise BadRequestError(
            f"field 'output.max_bytes' must be an integer from 0 to {_MAX_INTEGER}, or null"
        )
    if not isinstance(keep, str) or keep not in KEEPS:
        raise BadRequestError(f"field 'output.keep' must be one of {', '.join(KEEPS)}")
    return Cap(limit, keep)
