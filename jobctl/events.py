"""What a followed job sends: started or a position, chunks, gaps, one end; cut from the bytes of a message by hand.

Bulk data comes this way, and the shortest-lived command does too: nothing here imports the generated classes
(tests/client/test_events.py holds both to the same result), and a chunk's bytes are copied once. Pure.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from jobctl import types
from jobwire.wire import WireError, fields, read_value, read_varint

if TYPE_CHECKING:
    from datetime import datetime


class Stream(enum.IntEnum):
    """Which of a job's outputs; the numbers are those of the API and of the file descriptors."""

    STDOUT = 1
    STDERR = 2


class Chunk(NamedTuple):
    """Bytes as the job wrote them; `offset` counts in the job's whole output, both streams in order of arrival."""

    stream: Stream
    offset: int
    data: bytes
    time_unix_nano: int

    @property
    def time(self) -> datetime:
        """When the worker took the bytes from the job, UTC, in whole microseconds."""
        from datetime import UTC, datetime, timedelta  # noqa: PLC0415 - few look at it; 2 ms for all others

        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self.time_unix_nano // 1000)


class Gap(NamedTuple):
    """Bytes from offset `start` up to, not including, `end`, which cannot be delivered."""

    start: int
    end: int
    reason_number: int

    @property
    def reason(self) -> types.GapReason:
        """Why they are missing."""
        return types.GapReason(self.reason_number)

    @property
    def why(self) -> str:
        """The reason in words."""
        words = (
            "unknown reason",
            "no longer kept",
            "not stored, over the job's cap",
            "damaged on disk",
        )
        return words[self.reason_number] if self.reason_number < len(words) else words[0]


class Position(NamedTuple):
    """Where delivery begins: the first event when the request named a time or a tail instead of an offset."""

    offset: int


class Started(NamedTuple):
    """The first event of a run; `record` is an encoded JobRecord."""

    record: bytes


class End(NamedTuple):
    """The last event; `termination` (encoded) is None when the job goes on and was not to be followed."""

    termination: bytes | None
    usage: bytes | None
    final_offset: int


Event = Started | Position | Chunk | Gap | End

_STREAMS = {int(stream): stream for stream in Stream}


def parse(message: bytes) -> Event | None:
    """The event in a RunJobResponse or StreamOutputResponse; None for a kind that is newer than this client.

    Raises WireError.
    """
    if not message:
        raise WireError("an event without content")
    head, at = read_varint(message, 0)
    if head & 7 != 2:
        raise WireError("an event that is no message")
    size, at = read_varint(message, at)
    if at + size != len(message):
        raise WireError("an event that is cut off")
    if head >> 3 == 1:
        return _chunk(message, at)
    if head >> 3 == 2:
        numbers = _numbers(message[at:])
        return Gap(numbers.get(1, 0), numbers.get(2, 0), numbers.get(3, 0))
    if head >> 3 == 3:
        return _end(message[at:])
    if head >> 3 == 5:
        return Position(_numbers(message[at:]).get(1, 0))
    return Started(message[at:]) if head >> 3 == 4 else None


def _chunk(message: bytes, at: int) -> Chunk:
    """The chunk from `at` to the message's end; only `data` is copied."""
    numbers, data = {}, b""
    while at < len(message):
        head, at = read_varint(message, at)
        value, at = read_value(message, at, head & 7)
        if isinstance(value, int):
            numbers[head >> 3] = value
        elif head >> 3 == 3:
            data = value
    stream = _STREAMS.get(numbers.get(1, 0))
    if stream is None:
        raise WireError("a chunk of an unknown stream")
    return Chunk(stream, numbers.get(2, 0), data, numbers.get(4, 0))


def _end(data: bytes) -> End:
    parts = {number: value for number, _, value in fields(data)}
    termination, usage, final_offset = parts.get(1), parts.get(2), parts.get(3, 0)
    if not isinstance(final_offset, int) or isinstance(termination, int) or isinstance(usage, int):
        raise WireError("an end that is none")
    return End(termination, usage, final_offset)


def _numbers(data: bytes) -> dict[int, int]:
    return {number: value for number, _, value in fields(data) if isinstance(value, int)}
