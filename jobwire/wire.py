"""The protobuf wire format, without messages: tags, varints, length-delimited fields.

Both ends build and slice their hottest messages (output chunks, the start of a run) with these few
functions; everything else goes through `jobwire.codec`. Standard library only: a client that only runs
a program must not pay for importing generated classes.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """Bytes that are not the message they should be; `field` names where, outermost first ("spec.argv")."""

    def __init__(self, reason: str, *, field: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


def varint(number: int) -> bytes:
    """Base-128 form of 0 <= number < 2**64, or of a negative number as its 64-bit two's complement."""
    if 0 <= number < 0x80:
        return bytes((number,))
    if number < 0:
        number += 1 << 64
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def tag(field: int, wire_type: int) -> bytes:
    """What precedes every value: field number and wire type."""
    return varint(field << 3 | wire_type)


def field_bytes(field: int, data: bytes) -> bytes:
    """A whole length-delimited field: bytes, a UTF-8 string or an encoded message."""
    return tag(field, BYTES) + varint(len(data)) + data


def field_varint(field: int, number: int) -> bytes:
    """A whole varint field: integer, bool or enum."""
    return tag(field, VARINT) + varint(number)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint at `at` and where the next byte is; raises WireError when it is cut off or over 64 bits."""
    result = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise WireError("a varint is longer than 10 bytes")
    except IndexError:
        raise WireError("the message is cut off") from None
    if result >> 64:
        raise WireError("a varint is larger than 64 bits")
    return result, at


def read_value(data: bytes, at: int, wire_type: int) -> tuple[int | bytes, int]:
    """One value of the given wire type at `at`, fixed-size ones as bytes, and where the next byte is."""
    if wire_type == VARINT:
        return read_varint(data, at)
    if wire_type == BYTES:
        size, at = read_varint(data, at)
    elif wire_type == FIXED64:
        size = 8
    elif wire_type == FIXED32:
        size = 4
    else:
        raise WireError(f"wire type {wire_type} is not in use")
    end = at + size
    if end > len(data):
        raise WireError("the message is cut off")
    return data[at:end], end


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Every (field number, wire type, value) in order: varints as int, all others as bytes."""
    at, size = 0, len(data)
    while at < size:
        head, at = read_varint(data, at)
        if head < 8:
            raise WireError("field number 0 is not allowed")
        value, at = read_value(data, at, head & 7)
        yield head >> 3, head & 7, value
