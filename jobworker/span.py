"""Which part of a job's output a follower asks for, and where in the index that begins and ends.

Decides what `since` and `until` mean as offsets, and hands out the records before an offset, newest first,
for those who count back. Records below the head may have been given back to the file system and read as
zeros: they are never looked at, but for the last one before the head, which stays. Pure: an index is
anything that can be sliced; what the log holds is not known here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobworker.outputindex import (
    IndexFormatError,
    Record,
    count_records,
    end_at,
    find_offset,
    read_records,
    record_at,
    time_at,
)

if TYPE_CHECKING:
    from jobworker.outputindex import Bytes

PAGE = 512  # index records read at a time
ALL: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What a follower asks for: from the latest of the beginnings that are given to the earliest of the ends.

    Offsets in bytes, times in nanoseconds since 1970 UTC. The tails count back from the end that is asked for, or
    from the present. `streams` empty: all of them. With `follow` it goes on until the job has ended.
    """

    offset: int = 0
    since_ns: int | None = None
    tail_lines: int | None = None
    tail_bytes: int | None = None
    until_offset: int | None = None
    until_ns: int | None = None
    streams: frozenset[int] = ALL
    follow: bool = False

    @property
    def begins_elsewhere(self) -> bool:
        """Whether it does not begin at `offset` itself."""
        return not (self.since_ns is None and self.tail_lines is None and self.tail_bytes is None)

    @property
    def is_open(self) -> bool:
        """Whether it has no end of its own."""
        return self.until_offset is None and self.until_ns is None


def since(view: Bytes, time_ns: int, *, head: int) -> int:
    """The offset of the first byte stored at this time or later; 0 when some of what was dropped may be."""
    lowest = _lowest(view, head)
    number = _find_time(view, time_ns, lowest=lowest)
    return 0 if number == lowest else end_at(view, number - 1)


def until(view: Bytes, time_ns: int, *, head: int) -> int | None:
    """The offset after the last byte stored before this time; None while all that is recorded is."""
    lowest = _lowest(view, head)
    number = _find_time(view, time_ns, lowest=lowest)
    if number == count_records(view):
        return None
    if number > lowest:
        return end_at(view, number - 1)
    return head if lowest else 0


def records_before(view: Bytes, stop: int, *, head: int) -> Iterator[list[Record]]:
    """Pages of records of the bytes from `head` to `stop`, each in order, the last page first.

    Ends early at a damaged record: where the bytes of the one after it begin is not known then.
    """
    number = min(count_records(view), find_offset(view, stop - 1) + 1) if stop else 0
    first = find_offset(view, head)
    while number > first:
        low = max(first, number - PAGE)
        try:
            page = read_records(view, low, limit=number - low)
        except IndexFormatError:
            yield _sound(view, low, number)
            return
        yield page
        number = low


def clip(records: list[Record], start: int, stop: int) -> list[Record]:
    """The parts of records that lie in between; most are given back as they are."""
    clipped = []
    for record in records:
        if record.end > start and record.start < stop:
            clipped.append(record)
            if record.start < start or record.end > stop:
                low, high = max(start, record.start), min(stop, record.end)
                clipped[-1] = Record(low, high, stream=record.stream, time_ns=record.time_ns)
    return clipped


def _lowest(view: Bytes, head: int) -> int:
    """The first record whose end and time can be trusted: the one before that which holds the head."""
    return max(0, find_offset(view, head) - 1) if head else 0


def _find_time(view: Bytes, time_ns: int, *, lowest: int) -> int:
    numbers = range(lowest, count_records(view))
    return lowest + bisect_left(numbers, time_ns, key=lambda number: time_at(view, number))


def _sound(view: Bytes, low: int, number: int) -> list[Record]:
    """The records before `number` that follow the last damaged one, without the first of them."""
    page: list[Record] = []
    while number > low:
        number -= 1
        try:
            page.append(record_at(view, number))
        except IndexFormatError:
            break
    return page[-2::-1]
