"""Bytes from the worker as the messages they are.

Everything that is not needed at once stays as it came and is read here when somebody looks at it. Bytes that are
no such message are the worker's defect: `Internal`, never a traceback out of a parser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from jobctl import types
from jobctl.errors import Internal
from jobwire.wire import WireError, fields

if TYPE_CHECKING:
    import betterproto

    M = TypeVar("M", bound=betterproto.Message)


def message(cls: type[M], data: bytes) -> M:
    """The message that `data` is; raises Internal."""
    try:
        return types.decode(cls, data)
    except WireError as error:
        raise Internal(f"the worker's answer cannot be read: {error}") from error


def part(data: bytes, number: int) -> bytes:
    """The bytes of one length-delimited field, b"" when it is absent: a record out of its answer, an id out of it."""
    return next(iter(parts(data, number)), b"")


def parts(data: bytes, number: int) -> list[bytes]:
    """The same, of a repeated field."""
    try:
        return [value for field, _, value in fields(data) if field == number and isinstance(value, bytes)]
    except WireError as error:
        raise Internal(f"the worker's answer cannot be read: {error}") from error


def record_id(record: bytes) -> str:
    """The id in an encoded JobRecord."""
    return part(record, 1).decode()
