"""What followers are sent, as bytes: position, chunk, gap, end; and which bytes of a log make one chunk.

The messages StreamOutputResponse and RunJobResponse have chunk, gap and end in common, so the bytes serve
both. They are built by hand because a worker does little else as often; a test holds them against the
generated classes. Pure: no file, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from generated.jobworker.v1 import GapReason, JobRecord
from jobwire.codec import encode
from jobwire.wire import field_bytes, field_varint, varint
from jobworker.outputindex import Record

MAX_CHUNK = 256 * 1024  # bytes of data in one event
MAX_BATCH = 512 * 1024  # bytes of the log that one batch spans

Event = tuple[bytes | memoryview, ...]  # the parts of an encoded message: joined once, when it is sent

UNREADABLE = 0  # as a stream: bytes of which the index does not tell the stream any more
RETENTION = GapReason(GapReason.RETENTION)
CAP = GapReason(GapReason.CAP)
DAMAGED = GapReason(GapReason.DAMAGED)


@dataclass(slots=True)
class Piece:
    """Neighbouring bytes of one stream: what becomes one chunk, or a gap when the stream is UNREADABLE."""

    stream: int
    start: int
    end: int
    time_ns: int


def cut(records: Sequence[Record], *, cursor: int, wanted: frozenset[int]) -> tuple[list[Piece], int]:
    """The pieces from `cursor` on that one batch carries, and the cursor after them.

    Neighbours of one stream are one piece of up to MAX_CHUNK, with the time of the first. Streams that are not
    wanted are skipped; `wanted` empty wants all. A piece that is UNREADABLE is alone in its batch; so is what
    lies between the cursor and the first record, which does not happen in a sound index.
    """
    pieces: list[Piece] = []
    last = None
    limit = 0
    for record in records:
        lost = record.end if record.stream == UNREADABLE else record.start
        if cursor < lost:
            return (pieces, cursor) if pieces else ([Piece(UNREADABLE, cursor, lost, record.time_ns)], lost)
        if wanted and record.stream not in wanted:
            cursor = max(cursor, record.end)
            last = None
            continue
        while cursor < record.end:
            limit = limit or cursor + MAX_BATCH
            if cursor >= limit:
                return pieces, cursor
            if last is None or last.stream != record.stream or last.end - last.start == MAX_CHUNK:
                last = Piece(record.stream, cursor, cursor, record.time_ns)
                pieces.append(last)
            last.end = cursor = min(record.end, last.start + MAX_CHUNK, limit)
    return pieces, cursor


def position(offset: int) -> Event:
    """An event with a Position, which StreamOutputResponse alone has."""
    return (field_bytes(5, field_varint(1, offset) if offset else b""),)


def chunk(piece: Piece, data: bytes | memoryview) -> Event:
    """An event with a Chunk: fields in order, zeros left out, as betterproto writes it. The data is not copied."""
    head = field_varint(1, piece.stream)
    if piece.start:
        head += field_varint(2, piece.start)
    head += b"\x1a" + varint(len(data))
    tail = field_varint(4, piece.time_ns) if piece.time_ns else b""
    return b"\x0a" + varint(len(head) + len(data) + len(tail)) + head, data, tail


def gap(start: int, end: int, reason: GapReason) -> Event:
    """An event with a Gap."""
    first = field_varint(1, start) if start else b""
    return (field_bytes(2, first + field_varint(2, end) + field_varint(3, reason)),)


def end(record: JobRecord | None, *, final_offset: int) -> Event:
    """An event with an End; without a record the job has not ended."""
    body = b""
    if record is not None and record.termination is not None:
        body += field_bytes(1, encode(record.termination))
    if record is not None and record.usage is not None:
        body += field_bytes(2, encode(record.usage))
    if final_offset:
        body += field_varint(3, final_offset)
    return (field_bytes(3, body),)


def started(record: JobRecord) -> Event:
    """The event with which RunJobResponse alone begins."""
    return (field_bytes(4, encode(record)),)
