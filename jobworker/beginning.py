"""Where a follower begins: the offset of the last so many lines or bytes, or of a time, when it asks.

Counts back from the end through the index, and for lines through the log, a block at a time: what it holds
is bounded, and the others get their turns however long the output is. What a span means is `span`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import chain

from jobworker import span as spans
from jobworker.outputindex import STDERR, STDOUT, Header, Record, count_records, end_at
from jobworker.outputs import OpenOutput
from jobworker.span import Span

BLOCK = 256 * 1024  # bytes of the log read at a time
NEWLINE = b"\n"


@dataclass(frozen=True, slots=True)
class Present:
    """How far an output has got: up to `stored` it can be delivered, up to `size` the job has written.

    `rest` are stored bytes that the index lacks, which is known once the job has ended.
    """

    header: Header
    stored: int
    size: int
    rest: Record | None


def look(output: OpenOutput, *, written: int | None) -> Present:
    """The present of an output; `written`: how many bytes in all, None while the job may write more."""
    header = output.header()
    count = count_records(output.index)
    indexed = end_at(output.index, count - 1) if count else 0
    rest = unindexed(output, header, cursor=indexed) if written is not None else None
    stored = indexed if rest is None else rest.end
    size = max(stored, output.status().st_size, header.head) + header.dropped
    size = max(size, written or 0)
    return Present(header, stored, size, rest)


def unindexed(output: OpenOutput, header: Header, *, cursor: int) -> Record | None:
    """Bytes that were not indexed before a crash: they are of the stream that the header says was next."""
    status = output.status()
    if cursor >= status.st_size:
        return None
    stream = header.pending if header.pending in {STDOUT, STDERR} else STDOUT
    return Record(cursor, status.st_size, stream=stream, time_ns=status.st_mtime_ns)


def find_stop(output: OpenOutput, span: Span, present: Present, *, ended: bool) -> int | None:
    """The offset at which the span ends, as far as that is known; for who does not follow, at the latest the present."""
    stops = [] if span.until_offset is None else [span.until_offset]
    if span.until_ns is not None:
        stop = spans.until(output.index, span.until_ns, head=present.header.head)
        if stop is not None:
            stops.append(stop)
        elif present.rest is not None and present.rest.time_ns >= span.until_ns:
            stops.append(present.rest.start)
    if not (span.follow or ended):
        stops.append(present.size if present.header.dropped else present.stored)
    return min(stops, default=None)


async def find(output: OpenOutput, span: Span, present: Present, *, stop: int | None) -> int:
    """The offset at which the span begins; `stop` is where it ends, as far as that is known."""
    head = present.header.head
    begin = span.offset
    if span.since_ns is not None:
        begin = max(begin, spans.since(output.index, span.since_ns, head=head))
        rest = present.rest
        if rest is not None and begin >= rest.start and rest.time_ns < span.since_ns:
            begin = max(begin, rest.end)
    for count, back in ((span.tail_bytes, _bytes_back), (span.tail_lines, _lines_back)):
        if count == 0:
            begin = max(begin, present.size if stop is None else min(stop, present.size))
        elif count is not None:
            end = present.stored if stop is None else min(stop, present.stored)
            begin = max(begin, await back(output, span, present, end, count))
    return begin


async def _bytes_back(output: OpenOutput, span: Span, present: Present, end: int, count: int) -> int:
    begin = end
    async for start, stop in _wanted_back(output, span, present, end):
        if stop - start >= count:
            return stop - count
        count -= stop - start
        begin = start
    return begin


async def _lines_back(output: OpenOutput, span: Span, present: Present, end: int, count: int) -> int:
    """A line ends with a newline, but for the last one, which may end with the output."""
    begin, last = end, True
    async for low, high in _wanted_back(output, span, present, end):
        for start in range(high - 1 - (high - 1 - low) % BLOCK, low - 1, -BLOCK):
            data = bytes(await output.read(min(BLOCK, high - start), start))
            if last and data:
                last = False
                count += data.endswith(NEWLINE)
            there = data.count(NEWLINE)
            if there >= count:
                return start + after_newline(data, count)
            count -= there
            begin = start
            await asyncio.sleep(0)
    return begin


async def _wanted_back(
    output: OpenOutput, span: Span, present: Present, end: int
) -> AsyncIterator[tuple[int, int]]:
    """The wanted bytes before `end` that are still stored, as offsets from and to, the last first."""
    head = present.header.head
    rest = [] if present.rest is None else [[present.rest]]
    for page in chain(rest, spans.records_before(output.index, end, head=head)):
        for piece in _joined_back(spans.clip(page, head, end), span.streams):
            yield piece
        await asyncio.sleep(0)


def _joined_back(records: list[Record], wanted: frozenset[int]) -> Iterator[tuple[int, int]]:
    start = stop = -1
    for record in reversed(records):
        if wanted and record.stream not in wanted:
            continue
        if record.end != start:
            if stop > start:
                yield start, stop
            stop = record.end
        start = record.start
    if stop > start:
        yield start, stop


def after_newline(data: bytes, count: int) -> int:
    """The position after the `count`th newline from the end; there are at least so many."""
    low, high = 0, len(data)
    while high - low > 1:
        middle = (low + high) // 2
        there = data.count(NEWLINE, middle, high)
        if there >= count:
            low = middle
        else:
            count -= there
            high = middle
    return high
