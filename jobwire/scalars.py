"""What one value looks like on the wire: integers, floats, text, times; and the other way round.

Knows nothing of messages and fields. Everything here raises WireError for a value that does not fit.

Source: https://protobuf.dev/programming-guides/encoding/, google/protobuf/timestamp.proto and duration.proto
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from jobwire.wire import BYTES, FIXED32, FIXED64, VARINT, WireError, read_value, read_varint, varint

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

FIXED = {
    "double": (FIXED64, struct.Struct("<d")),
    "fixed64": (FIXED64, struct.Struct("<Q")),
    "sfixed64": (FIXED64, struct.Struct("<q")),
    "float": (FIXED32, struct.Struct("<f")),
    "fixed32": (FIXED32, struct.Struct("<I")),
    "sfixed32": (FIXED32, struct.Struct("<i")),
}
INTEGER_BITS = {"int32": 32, "int64": 64, "uint32": 32, "uint64": 64, "sint32": 32, "sint64": 64, "enum": 32}


def scalar_reader(kind: str) -> tuple[int, Callable[[Any], Any]]:
    """The wire type of a scalar, and what makes the Python value of the wire's (int or bytes)."""
    if kind in FIXED:
        wire_type, form = FIXED[kind]
        return wire_type, lambda data: form.unpack(data)[0]
    if kind in INTEGER_BITS:
        return VARINT, _integer_reader(kind)
    if kind == "bool":
        return VARINT, bool
    return BYTES, to_text if kind == "string" else bytes


def to_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise WireError("not valid UTF-8") from None


def to_int32(number: int) -> int:
    return _signed(number, 32)


def _signed(number: int, bits: int) -> int:
    if number >= 1 << 63:
        number -= 1 << 64
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise WireError(f"{number} does not fit {bits} bits")
    return number


def _unsigned(number: int, bits: int) -> int:
    if number >> bits:
        raise WireError(f"{number} does not fit {bits} bits")
    return number


def _integer_reader(kind: str) -> Callable[[int], int]:
    bits = INTEGER_BITS[kind]
    if kind.startswith("int"):
        return lambda number: _signed(number, bits)
    if kind.startswith("uint"):
        return lambda number: _unsigned(number, bits)
    return lambda number: (_unsigned(number, bits) >> 1) ^ -(number & 1)


def _seconds_nanos(data: bytes) -> tuple[int, int]:
    """The two fields of google.protobuf.Timestamp and Duration."""
    values, at = {1: 0, 2: 0}, 0
    while at < len(data):
        head, at = read_varint(data, at)
        value, at = read_value(data, at, head & 7)
        if head >> 3 in values:
            if not isinstance(value, int) or head & 7 != VARINT:
                raise WireError("seconds and nanos are varints")
            values[head >> 3] = value - (1 << 64) if value >> 63 else value
    return values[1], values[2]


def to_timedelta(data: bytes) -> timedelta:
    seconds, nanos = _seconds_nanos(data)
    try:
        return timedelta(seconds=seconds, microseconds=int(nanos / 1000))
    except OverflowError:
        raise WireError("out of range") from None


def to_datetime(data: bytes) -> datetime:
    try:
        return EPOCH + to_timedelta(data)
    except OverflowError:
        raise WireError("out of range") from None


def packer(kind: str) -> Callable[[Any], bytes]:
    """The value alone, without its tag, as packed fields and scalars need it."""
    if kind in FIXED:
        return FIXED[kind][1].pack
    if kind == "bool":
        return lambda value: b"\1" if value else b"\0"
    bits = INTEGER_BITS[kind]
    low, high = (0, 1 << bits) if kind.startswith("uint") else (-(1 << bits - 1), 1 << bits - 1)
    zigzag = kind.startswith("sint")

    def write(number: int) -> bytes:
        if not low <= number < high:
            raise WireError(f"{number} does not fit {bits} bits")
        return varint(number << 1 ^ number >> bits - 1) if zigzag else varint(number)

    return write


def from_datetime(moment: datetime) -> bytes:
    return from_timedelta(moment - EPOCH, floor=True)


def from_timedelta(span: timedelta, *, floor: bool = False) -> bytes:
    """Timestamp counts nanos forward from the second (floor); a Duration's parts have one sign."""
    total = span // MICROSECOND
    seconds, micros = divmod(total, 1_000_000)
    if seconds < 0 and micros and not floor:
        seconds, micros = seconds + 1, micros - 1_000_000
    out = bytearray()
    if seconds:
        out += b"\x08" + varint(seconds)
    if micros:
        out += b"\x10" + varint(micros * 1000)
    return bytes(out)


FROM_MESSAGE = {datetime: to_datetime, timedelta: to_timedelta}
TO_MESSAGE: dict[type, Callable[[Any], bytes]] = {datetime: from_datetime, timedelta: from_timedelta}
