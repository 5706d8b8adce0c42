"""Follows a job's output: cursor → events, ready to be sent, from its files and whenever they grow.

Decides what is read when, when a gap is told, and when the end has come; how events look is `events`'. The
index is written after the data, so what it says is there: it is trusted, and its head is read again after
the data, since retention may have punched a hole meanwhile. Nothing is kept in memory but the batch at
hand, nothing polls, and a follower that waits costs nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, contextmanager

from aiofiles.base import wrap

from generated.jobworker.v1 import JobRecord
from jobworker import events
from jobworker.errors import InvalidArgument, Unavailable
from jobworker.events import UNREADABLE, Event, Piece
from jobworker.jobs import OutputSource
from jobworker.outputindex import (
    STDERR,
    STDOUT,
    Header,
    IndexFormatError,
    Record,
    count_records,
    find_offset,
    read_header,
    read_records,
    record_at,
)
from jobworker.outputs import OpenOutput, Outputs, Place

PAGE = 512  # index records read at a time

_preadv_aside = wrap(os.preadv)


async def follow(
    source: OutputSource, *, outputs: Outputs, offset: int, follow: bool, streams: frozenset[int]
) -> AsyncGenerator[list[Event], None]:
    """Yields what is ready as lists of events, the last of which is `end`.

    With `follow` it goes on until the job has ended, else up to the present. `streams` empty: all of them.
    Raises InvalidArgument for an offset beyond the output, Unavailable when the job is not launched yet.
    """
    with ExitStack() as resources:
        try:
            output = resources.enter_context(outputs.open(source.job_id, source.directory))
        except FileNotFoundError:
            if not source.ended.done():
                raise Unavailable(
                    "the job is only just starting", hint="try again", job_id=source.job_id
                ) from None
            yield [events.end(source.ended.result(), final_offset=offset)]
            return
        reader = _Reader(output, offset=offset, wanted=streams)
        changed: asyncio.Event | None = None
        while True:
            ended = source.ended.done()  # asked before reading: by then all output was there
            batch = await reader.read(ended=ended)
            if reader.exhausted and (ended or not follow):
                record = source.ended.result() if ended else None
                yield [*batch, events.end(record, final_offset=reader.cursor)]
                return
            if batch:
                yield batch
            if not reader.exhausted:
                continue
            if changed is None:  # first watch, then read once more, then wait
                changed = resources.enter_context(outputs.changes(output))
                resources.enter_context(_set_when_done(source.ended, changed))
            else:
                await changed.wait()
                changed.clear()


@contextmanager
def _set_when_done(future: asyncio.Future[JobRecord], event: asyncio.Event) -> Iterator[None]:
    def done(_: asyncio.Future[JobRecord]) -> None:
        event.set()

    future.add_done_callback(done)
    try:
        yield
    finally:
        future.remove_done_callback(done)


async def read(fd: int, size: int, offset: int) -> memoryview:
    """Up to `size` bytes of a file, fewer only at its end: at once what is in the page cache, the rest by a thread.

    A hop to a thread and back costs more than to copy a whole batch; the disk must not stop the loop.
    """
    buffer = bytearray(size)
    try:
        got = os.preadv(fd, (buffer,), offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
            raise
        got = 0
    view = memoryview(buffer)
    while got < size:
        more = await _preadv_aside(fd, (view[got:],), offset + got)
        if not more:
            break
        got += more
    return view[:got]


class _Reader:
    """One follower's place in one output."""

    def __init__(self, output: OpenOutput, *, offset: int, wanted: frozenset[int]) -> None:
        size = os.fstat(output.log).st_size
        if offset > size:
            raise InvalidArgument(
                f"offset {offset} is beyond the output, which has {size} bytes",
                field="offset",
                hint="begin at 0 or at the end of what you have",
            )
        self.cursor = offset
        self.exhausted = False  # whether nothing was left to read when `read` returned
        self._output = output
        self._wanted = wanted
        self._number = find_offset(output.index, offset)  # of the next record that is not in the page
        self._page: list[Record] = []

    async def read(self, *, ended: bool) -> list[Event]:
        """The next batch of events; empty only when exhausted. `ended`: nothing will be written any more."""
        batch: list[Event] = []
        while not batch:
            place = self._place()
            batch = self._shared(place)
            if not batch:
                self._load(ended=ended)
                if not self._page:
                    break
                batch = await self._next()
                self._share(place, batch)
        self._load(ended=ended)
        self.exhausted = not self._page
        return batch

    async def _next(self) -> list[Event]:
        pieces, after = events.cut(self._page, cursor=self.cursor, wanted=self._wanted)
        batch: list[Event] = []
        if pieces:
            batch, after = await self._deliver(pieces, after)
        self.cursor = max(self.cursor, after)
        while self._page and self._page[0].end <= self.cursor:
            del self._page[0]
        return batch

    async def _deliver(self, pieces: list[Piece], after: int) -> tuple[list[Event], int]:
        """The events of one batch and the cursor after it; a gap alone when its first byte cannot be had."""
        start, end = pieces[0].start, pieces[-1].end
        if pieces[0].stream == UNREADABLE:
            return [events.gap(start, end, events.DAMAGED)], after
        data = await self._bytes(start, end)
        head = self._header().head
        if head > start:  # a hole was punched, maybe before the data was read
            self._number = find_offset(self._output.index, head)
            self._page.clear()
            return [events.gap(self.cursor, head, events.RETENTION)], head
        batch = []
        for piece in pieces:
            part = data[piece.start - start : piece.end - start]
            if part:
                batch.append(events.chunk(piece, part))
            if len(part) < piece.end - piece.start:  # the log is shorter than its index says
                batch.append(events.gap(piece.start + len(part), piece.end, events.DAMAGED))
        return batch, after

    async def _bytes(self, start: int, end: int) -> memoryview:
        """What the log has of these bytes; less, or nothing, when it is damaged."""
        try:
            return await read(self._output.log, end - start, start)
        except OSError:
            return memoryview(b"")

    def _header(self) -> Header:
        try:
            return read_header(self._output.index.fd)
        except IndexFormatError:  # not written yet, or damaged: then nothing is known to be dropped
            return Header()

    def _place(self) -> Place:
        return self.cursor, self._number, self._wanted

    def _shared(self, place: Place) -> list[Event]:
        """The batch that another follower has just made at this very place, and moves on; else nothing."""
        shared = self._output.shared
        if self._page or shared is None or shared[0] != place:
            return []
        self.cursor, self._number, _ = shared[1]
        return shared[2]

    def _share(self, place: Place, batch: list[Event]) -> None:
        """Keeps a batch that took all there was for the next follower that comes to the same place."""
        if self._output.followers > 1 and not self._page:
            self._output.shared = (place, self._place(), batch)

    def _load(self, *, ended: bool) -> None:
        """Fills an empty page with the records that come next, if there are any."""
        if self._page:
            return
        count = count_records(self._output.index)
        if self._number < count:
            try:
                self._page = read_records(self._output.index, self._number, limit=PAGE)
                self._number += len(self._page)
            except IndexFormatError:
                self._salvage(min(count, self._number + PAGE), ended=ended)
        if not self._page and ended:
            self._load_tail()

    def _salvage(self, stop: int, *, ended: bool) -> None:
        """Fills the page up to the first damaged record; when that comes first, with what it makes unreadable.

        While the job runs a damaged record is one that is not there yet.
        """
        index = self._output.index
        for number in range(self._number, stop):
            try:
                record = record_at(index, number)
            except IndexFormatError:
                if self._page or not ended:
                    return
                continue
            if number > self._number:  # where the sound record begins is told by the damaged one before it
                record = Record(self.cursor, record.end, stream=UNREADABLE, time_ns=record.time_ns)
            self._page.append(record)
            self._number = number + 1

    def _load_tail(self) -> None:
        """Bytes that were not indexed before a crash are of the stream that the header says was next."""
        log = os.fstat(self._output.log)
        if self.cursor < log.st_size:
            pending = self._header().pending
            stream = pending if pending in (STDOUT, STDERR) else STDOUT
            self._page = [Record(self.cursor, log.st_size, stream=stream, time_ns=log.st_mtime_ns)]
