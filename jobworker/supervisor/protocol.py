"""Framing of the control socket between the supervisor and its clients.

Decides how one JSON object becomes bytes and how a stream of bytes becomes objects again: a little
endian u32 length, then that many bytes of UTF-8 JSON. Both ends import it, so it is pure, standard
library only, and knows neither sockets nor what the messages mean; their shapes are in `messages`.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL = 1
MAX_FRAME = 16 * 1024 * 1024  # bytes of JSON in one frame
LENGTH_SIZE = 4

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class BadRequestError(ValueError):
    """A field is missing or of the wrong type or range; the text names it."""


class FrameError(ValueError):
    """The peer sent, or was about to be sent, bytes that are not a frame; the connection is of no more use."""


def pack(message: Mapping[str, object]) -> bytes:
    """One frame; FrameError when its JSON is longer than MAX_FRAME bytes."""
    return frame(_encode(message).encode("ascii"))


def frame(body: bytes) -> bytes:
    """One frame around JSON that is packed already."""
    if len(body) > MAX_FRAME:
        raise FrameError(f"frame of {len(body)} bytes, at most {MAX_FRAME} are allowed")
    return len(body).to_bytes(LENGTH_SIZE, "little") + body


class FrameReader:
    """Collects received bytes and gives back whole messages; holds at most one unfinished frame."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, object]]:
        """The messages completed by `data`, in order; FrameError when the stream is broken."""
        buffer = self._buffer
        buffer += data
        messages = []
        position = 0
        while len(buffer) - position >= LENGTH_SIZE:
            start = position + LENGTH_SIZE
            length = int.from_bytes(buffer[position:start], "little")
            if length > MAX_FRAME:
                raise FrameError(f"frame of {length} bytes, at most {MAX_FRAME} are allowed")
            if len(buffer) - start < length:
                break
            position = start + length
            messages.append(_decode(bytes(buffer[start:position])))
        del buffer[:position]
        return messages


def _decode(body: bytes) -> dict[str, object]:
    try:
        message = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"frame is not UTF-8 JSON: {error}") from error
    if not isinstance(message, dict):
        raise FrameError("frame is not a JSON object")
    return message
