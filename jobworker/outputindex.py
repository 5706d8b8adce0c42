"""The index beside a job's output: which bytes of output.log came from which stream, and when.

Decides the layout of output.idx (a 64-byte header, then 24-byte records; docs/on-disk.md is the reference),
how records are found by offset, and what a crash may have left to repair. The supervisor writes one record
after each chunk of data is in output.log, the API server reads; neither asks the other.
Everything above the line "files" is pure; searching reads O(log n) records of a file however long it is.
"""

from __future__ import annotations

import os
import struct
import sys
from bisect import bisect_right
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Bytes(Protocol):
        """A whole output.idx: bytes, an mmap or an IndexFile; slicing gives its bytes."""

        def __len__(self) -> int: ...
        def __getitem__(self, part: slice, /) -> bytes: ...


LOG_NAME = "output.log"
INDEX_NAME = "output.idx"
MAGIC = b"JWOUTIDX"
VERSION = 1
HEADER_SIZE = 64
RECORD_SIZE = 24
STDOUT = 1
STDERR = 2
PENDING_OFFSET = 12  # of what is rewritten in the header while a job runs: a byte, and twice eight
HEAD_OFFSET = 16
DROPPED_OFFSET = 24

_HEADER = struct.Struct("<8sHHB3xQQq24x")
_RECORD = struct.Struct("<QqBBHI")
_CHECKED = struct.Struct("<QqBBH")  # the part of a record that its checksum covers


class IndexFormatError(ValueError):
    """Not an output index, or one of a version this code does not know."""


class Header:
    """`pending`: stream of bytes not indexed yet; `head`: first offset still stored; `dropped`: bytes not stored."""

    __slots__ = ("created_ns", "dropped", "head", "pending")

    def __init__(
        self, *, pending: int = STDOUT, head: int = 0, dropped: int = 0, created_ns: int = 0
    ) -> None:
        self.pending = pending
        self.head = head
        self.dropped = dropped
        self.created_ns = created_ns


class Record:
    """Bytes `start` to `end` of output.log came from `stream` and were stored at `time_ns` (UTC)."""

    __slots__ = ("end", "start", "stream", "time_ns")

    def __init__(self, start: int, end: int, *, stream: int, time_ns: int) -> None:
        self.start = start
        self.end = end
        self.stream = stream
        self.time_ns = time_ns

    def __repr__(self) -> str:
        return f"Record({self.start}, {self.end}, stream={self.stream}, time_ns={self.time_ns})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[int, int, int, int]:
        return (self.start, self.end, self.stream, self.time_ns)


class Repair:
    """What makes an index true again: its new `size` in bytes, then `append`; `header` only when it was unusable."""

    __slots__ = ("append", "header", "size")

    def __init__(self, *, size: int, append: bytes, header: bytes | None) -> None:
        self.size = size
        self.append = append
        self.header = header


def pack_header(header: Header) -> bytes:
    """The 64 bytes at the start of output.idx."""
    return _HEADER.pack(
        MAGIC, VERSION, RECORD_SIZE, header.pending, header.head, header.dropped, header.created_ns
    )


def unpack_header(data: bytes) -> Header:
    """Reads the first 64 bytes; IndexFormatError when they are not a header of this version."""
    if len(data) < HEADER_SIZE:
        raise IndexFormatError(f"header of {len(data)} bytes, {HEADER_SIZE} are needed")
    magic, version, size, pending, head, dropped, created_ns = _HEADER.unpack(data[:HEADER_SIZE])
    if magic != MAGIC:
        raise IndexFormatError("not an output index")
    if (version, size) != (VERSION, RECORD_SIZE):
        raise IndexFormatError(f"version {version} with records of {size} bytes is not known here")
    return Header(pending=pending, head=head, dropped=dropped, created_ns=created_ns)


def pack_record(end: int, *, stream: int, time_ns: int) -> bytes:
    """The 24 bytes that say output.log up to `end` is stored, the last part of it from `stream`."""
    checked = _CHECKED.pack(end, time_ns, stream, 0, 0)
    return checked + crc32(checked).to_bytes(4, "little")


def count_records(view: Bytes) -> int:
    """How many whole records there are; a torn one at the end is not counted."""
    return max(0, len(view) - HEADER_SIZE) // RECORD_SIZE


def record_at(view: Bytes, number: int) -> Record:
    """Record `number` (from 0); IndexFormatError when its checksum is wrong, IndexError when there is none."""
    if not 0 <= number < count_records(view):
        raise IndexError(number)
    position = HEADER_SIZE + number * RECORD_SIZE
    start = end_at(view, number - 1) if number else 0
    return next(_decode(view[position : position + RECORD_SIZE], start))


def read_records(view: Bytes, number: int, *, limit: int) -> list[Record]:
    """Up to `limit` records from `number` on, in one read; IndexFormatError at a wrong checksum."""
    position = HEADER_SIZE + number * RECORD_SIZE
    count = max(0, min(limit, count_records(view) - number))
    start = end_at(view, number - 1) if number else 0
    return list(_decode(view[position : position + count * RECORD_SIZE], start))


def find_offset(view: Bytes, offset: int) -> int:
    """Number of the record that holds byte `offset`; the count of records when it is not indexed yet."""
    return bisect_right(range(count_records(view)), offset, key=lambda number: end_at(view, number))


def end_at(view: Bytes, number: int) -> int:
    """The offset after the bytes of record `number`; its checksum is not looked at."""
    position = HEADER_SIZE + number * RECORD_SIZE
    return int.from_bytes(view[position : position + 8], "little")


def time_at(view: Bytes, number: int) -> int:
    """When the bytes of record `number` were stored; its checksum is not looked at."""
    position = HEADER_SIZE + number * RECORD_SIZE + 8
    return int.from_bytes(view[position : position + 8], "little", signed=True)


def plan_repair(view: Bytes, *, log_size: int, log_mtime_ns: int) -> Repair | None:
    """What a crash left to mend, None when nothing; no byte of the log is ever given up.

    Records at the tail go when torn, of wrong checksum, not beyond their predecessor, or beyond the log;
    bytes of the log without a record get one, with the header's pending stream and the log's time.
    IndexFormatError for a whole header that is not ours: such a file is left alone.
    """
    header, replacement = _usable_header(view, log_mtime_ns)
    count = _count_sound(view, log_size)
    size = HEADER_SIZE + count * RECORD_SIZE
    end = end_at(view, count - 1) if count else 0
    append = b""
    if end < log_size:
        time_ns = max(log_mtime_ns, time_at(view, count - 1) if count else 0)
        stream = header.pending if header.pending in (STDOUT, STDERR) else STDOUT
        append = pack_record(log_size, stream=stream, time_ns=time_ns)
    if replacement is None and not append and size == len(view):
        return None
    return Repair(size=size, append=append, header=replacement)


def _usable_header(view: Bytes, log_mtime_ns: int) -> tuple[Header, bytes | None]:
    data = view[0:HEADER_SIZE]
    if len(data) < HEADER_SIZE or not any(data):  # created, and cut short by a crash
        header = Header(created_ns=log_mtime_ns)
        return header, pack_header(header)
    return unpack_header(data), None


def _count_sound(view: Bytes, log_size: int) -> int:
    count = count_records(view)
    while count and not _is_sound(view, count - 1, log_size):
        count -= 1
    return count


def _is_sound(view: Bytes, number: int, log_size: int) -> bool:
    try:
        record = record_at(view, number)
    except IndexFormatError:
        return False
    return record.start < record.end <= log_size


def _decode(data: bytes, start: int) -> Iterator[Record]:
    for position, (end, time_ns, stream, _, _, checksum) in enumerate(_RECORD.iter_unpack(data)):
        at = position * RECORD_SIZE
        if crc32(data[at : at + _CHECKED.size]) != checksum:
            raise IndexFormatError(f"record that ends at {end} has a wrong checksum")
        yield Record(start, end, stream=stream, time_ns=time_ns)
        start = end


# files


class IndexFile:
    """An open output.idx as a view that grows with the file; reads what is asked for and keeps nothing."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __len__(self) -> int:
        return os.fstat(self.fd).st_size

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop = part.start or 0, part.stop
        return os.pread(self.fd, max(0, stop - start), start)


def read_header(fd: int) -> Header:
    """The header of an open output.idx; IndexFormatError when it has none."""
    return unpack_header(os.pread(fd, HEADER_SIZE, 0))


def repair(fd: int, log_fd: int) -> Repair | None:
    """Mends an index open for writing after a crash of its writer; gives back what was done."""
    log = os.fstat(log_fd)
    plan = plan_repair(IndexFile(fd), log_size=log.st_size, log_mtime_ns=log.st_mtime_ns)
    if plan is not None:
        os.ftruncate(fd, plan.size)
        if plan.header is not None:
            os.pwrite(fd, plan.header, 0)
        os.pwrite(fd, plan.append, plan.size)
    return plan


def mend(directory: str) -> Repair | None:
    """Repairs the index of a job that nobody records any more; OSError, or IndexFormatError when it is not ours."""
    fd = os.open(os.path.join(directory, INDEX_NAME), os.O_RDWR | os.O_CLOEXEC)
    try:
        log_fd = os.open(os.path.join(directory, LOG_NAME), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return repair(fd, log_fd)
        finally:
            os.close(log_fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    from jobworker.indexcheck import main  # nobody else has a use for it, the supervisor least

    sys.exit(main(sys.argv[1:]))
