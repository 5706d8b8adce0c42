"""A reader of a job's output by somebody who knows docs/on-disk.md and nothing else of this project."""

import struct
import zlib
from pathlib import Path

Found = tuple[str | int, int, bytes | int]  # stream, offset, bytes; or "gap", from, to


def header(directory: Path) -> tuple[int, int, int]:
    """Pending stream, head, dropped."""
    magic, version, size, pending, head, dropped = struct.unpack(
        "<8sHHB3xQQ32x", (directory / "output.idx").read_bytes()[:64]
    )
    assert (magic, version, size) == (b"JWOUTIDX", 1, 24)
    return pending, head, dropped


def read(directory: Path, offset: int = 0, *, has_ended: bool = True) -> list[Found]:
    """All that can be read from an offset on, gaps included."""
    found: list[Found] = []
    pending, head, dropped = header(directory)
    data = (directory / "output.idx").read_bytes()[64:]
    records = [data[at : at + 24] for at in range(0, len(data) // 24 * 24, 24)]
    ends = [int.from_bytes(record[:8], "little") for record in records]
    log = (directory / "output.log").read_bytes()
    low, high = 0, len(records)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if ends[middle] <= max(offset, head) else (low, middle)
    if head > offset:
        found.append(("gap", offset, head))
        offset = head
    for number in range(low, len(records)):
        end, _time, stream, flags, zero, checksum = struct.unpack("<QqBBHI", records[number])
        assert (flags, zero) == (0, 0)
        if zlib.crc32(records[number][:20]) != checksum:
            break
        part = log[offset:end]
        if header(directory)[1] > offset:  # a hole was made meanwhile
            return found + read(directory, offset, has_ended=has_ended)
        found.append((stream, offset, part))
        offset = end
    if has_ended and offset < len(log):
        found.append((pending, offset, log[offset:]))
        offset = len(log)
    if has_ended and dropped:
        found.append(("gap", offset, offset + dropped))
    return found


def streams(found: list[Found]) -> dict[int, bytes]:
    """What was found of each stream, put together."""
    parts: dict[int, bytes] = {1: b"", 2: b""}
    for stream, _, part in found:
        if isinstance(stream, int) and isinstance(part, bytes):
            parts[stream] += part
    return parts
