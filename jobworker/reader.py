"""One follower's place in one output: cursor → the next batch of events, from the files as they are.

Decides what is read when, and when a gap is told. The index is written after the data, so what it says is
there: it is trusted, and its head is read again after the data, since a hole may have been punched meanwhile.
Records below the head may read as zeros; they are damaged only where the head does not explain them. Nothing
is kept in memory but the batch at hand; waiting is `follow`'s.
"""

from __future__ import annotations

from generated.jobworker.v1 import GapReason
from jobworker import events
from jobworker.beginning import unindexed
from jobworker.events import UNREADABLE, Event, Piece
from jobworker.outputindex import (
    IndexFormatError,
    Record,
    count_records,
    find_offset,
    read_records,
    record_at,
)
from jobworker.outputs import OpenOutput, Place
from jobworker.span import PAGE, Span, clip


class Reader:
    """Delivers a span of an output from `begin` on; `stop` is where it ends, None while that is not known."""

    def __init__(self, output: OpenOutput, span: Span, *, begin: int, stop: int | None) -> None:
        self.cursor = begin
        self.exhausted = False  # whether nothing was left to read when `read` returned
        self.is_full = False  # whether nothing more is stored, for the job's cap, until the job has ended
        self._stop = stop
        self._output = output
        self._span = span
        self._shares = stop is None and span.is_open and span.since_ns is None
        self._number = find_offset(output.index, begin)  # of the next record that is not in the page
        self._page: list[Record] = []

    @property
    def has_stopped(self) -> bool:
        """Whether all that was asked for is delivered, whatever the job still writes."""
        return self._stop is not None and self.cursor >= self._stop

    async def read(self, *, written: int | None) -> list[Event]:
        """The next batch of events; empty only when exhausted.

        `written`: how many bytes the job has written in all, None while it may write more.
        """
        ended = written is not None
        batch: list[Event] = []
        while not batch and not self.has_stopped:
            place = self._place()
            batch = self._shared(place)
            if not batch:
                self._load(ended=ended)
                if not self._page:
                    batch = [] if self.has_stopped else self._pass_missing(written)
                    break
                batch = await self._next()
                self._share(place, batch)
        self._load(ended=ended)
        self.exhausted = self.has_stopped or not (self._page or self._missing(written))
        return batch

    async def _next(self) -> list[Event]:
        pieces, after = events.cut(self._page, cursor=self.cursor, wanted=self._span.streams)
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
        data = await self._output.read(end - start, start)
        head = self._output.header().head
        if head > start:  # a hole was punched, maybe before the data was read
            return self._pass(head, events.RETENTION), self.cursor
        batch = []
        for piece in pieces:
            part = data[piece.start - start : piece.end - start]
            if part:
                batch.append(events.chunk(piece, part))
            if len(part) < piece.end - piece.start:  # the log is shorter than its index says
                batch.append(events.gap(piece.start + len(part), piece.end, events.DAMAGED))
        return batch, after

    def _pass(self, offset: int, reason: GapReason) -> list[Event]:
        """Goes on at this offset, or where the span ends, and tells of the gap."""
        if self._stop is not None:
            offset = min(offset, self._stop)
        gap = events.gap(self.cursor, offset, reason)
        self.cursor = offset
        self._number = find_offset(self._output.index, offset)
        self._page.clear()
        return [gap]

    def _pass_missing(self, written: int | None) -> list[Event]:
        missing = self._missing(written)
        if missing is None:
            return []
        self.is_full = missing[1] == events.CAP
        return self._pass(*missing)

    def _missing(self, written: int | None) -> tuple[int, GapReason] | None:
        """How far, and why, nothing is stored at the cursor; what the cap drops is told once, then at the end.

        What was written and is not there at all was taken by a power failure.
        """
        ended = written is not None
        header = self._output.header()
        if header.head > self.cursor:
            return header.head, events.RETENTION
        if header.dropped and (ended or not self.is_full):
            stored = self._output.status().st_size
            if stored <= self.cursor < stored + header.dropped:
                return stored + header.dropped, events.CAP
        if written is not None and written > self.cursor:
            return written, events.DAMAGED
        return None

    def _place(self) -> Place:
        return self.cursor, self._number, self._span.streams

    def _shared(self, place: Place) -> list[Event]:
        """The batch that another follower has just made at this very place, and moves on; else nothing."""
        shared = self._output.shared
        if self._page or not self._shares or shared is None or shared[0] != place:
            return []
        self.cursor, self._number, _ = shared[1]
        return shared[2]

    def _share(self, place: Place, batch: list[Event]) -> None:
        """Keeps a batch that took all there was for the next follower that comes to the same place."""
        if self._shares and self._output.followers > 1 and not self._page:
            self._output.shared = (place, self._place(), batch)

    def _load(self, *, ended: bool) -> None:
        """Fills an empty page with the records that come next, if there are any."""
        if self._page or self.has_stopped:
            return
        page: list[Record] = []
        count = count_records(self._output.index)
        if self._number < count:
            try:
                page = read_records(self._output.index, self._number, limit=PAGE)
                is_behind = page[0].start == 0 < self._number  # the record before reads as zeros
            except IndexFormatError:
                is_behind = True
            if is_behind and self._output.header().head > self.cursor:
                return
            if page:
                self._number += len(page)
            else:
                page = self._salvage(min(count, self._number + PAGE), ended=ended)
        if not page and ended:
            rest = unindexed(self._output, self._output.header(), cursor=self.cursor)
            page = [] if rest is None else [rest]
        self._page = page if self._shares else self._within(page)

    def _within(self, page: list[Record]) -> list[Record]:
        """The part of these records that the span wants; finds its end where that is a time."""
        since_ns, until_ns = self._span.since_ns, self._span.until_ns
        late = None if until_ns is None else next((r for r in page if r.time_ns >= until_ns), None)
        if late is not None:
            until = max(self.cursor, late.start)
            self._stop = until if self._stop is None else min(self._stop, until)
        if self._stop is not None:
            page = clip(page, 0, self._stop)
        while since_ns is not None and page and page[0].time_ns < since_ns:
            self.cursor = max(self.cursor, page.pop(0).end)
        return page

    def _salvage(self, stop: int, *, ended: bool) -> list[Record]:
        """The records up to the first damaged one; when that comes first, with what it makes unreadable.

        While the job runs a damaged record is one that is not there yet.
        """
        index = self._output.index
        page: list[Record] = []
        for number in range(self._number, stop):
            try:
                record = record_at(index, number)
            except IndexFormatError:
                if page or not ended:
                    break
                continue
            if number > self._number:  # where the sound record begins is told by the damaged one before it
                record = Record(self.cursor, record.end, stream=UNREADABLE, time_ns=record.time_ns)
            page.append(record)
            self._number = number + 1
        return page
