"""Followers of any span against files that the supervisor's own code writes, beside an oracle that is a list of bytes.

The writer stores, drops, gives its head back, dies between any two steps, is mended and ends; followers begin anywhere,
are cut off and resume at the next byte. Whatever happens: no byte twice, none missing without a gap, all in order, one end.
Pages, batches and blocks are tiny here, so that a few bytes are many of them.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from generated.jobworker.v1 import Chunk, End, Gap, GapReason, JobRecord, Position
from jobworker import beginning, events, follow, outputs, reader, span
from jobworker.events import Event as Parts
from jobworker.jobs import OutputSource
from jobworker.outputindex import HEADER_SIZE, Header, IndexFile, count_records, pack_header, record_at
from jobworker.span import ALL, Span
from jobworker.supervisor import recording
from tests.harness.outputlog import ENDED, Event, parse

PATIENCE = 10.0
SECOND = 10**9
ENDLESS = 10**9  # an offset that is never reached
TURNS = 12  # of the loop, in which a follower does what it can without waiting

TEXT = st.lists(st.sampled_from([b"a", b"b", b"\n"]), min_size=1, max_size=12).map(b"".join)
STREAMS = st.sampled_from([1, 2])
SPANS = st.fixed_dictionaries(
    {"follow": st.booleans(), "streams": st.sampled_from([ALL, frozenset({1}), frozenset({2})])},
    optional={
        "offset": st.floats(0, 1),  # of what there is; times likewise
        "since_ns": st.floats(0, 1),
        "tail_lines": st.integers(0, 5),
        "tail_bytes": st.integers(0, 20),
        "until_offset": st.floats(0, 1.5),
        "until_ns": st.floats(0, 1.2),
    },
)


class Killed(Exception):
    """What the writer dies of."""


class Dying(recording.Recording):
    """A writer that is killed between two steps."""

    def _make_holes(self, head: int, first: int) -> None:
        raise Killed


class Clock:
    """The time that the writer, its files and the followers see."""

    def __init__(self) -> None:
        self.now = 10**15

    def time_ns(self) -> int:
        return self.now


async def preadv(fd: int, buffers: tuple[memoryview], offset: int) -> int:
    return os.preadv(fd, buffers, offset)


@dataclass
class Output:
    """The oracle: stream, byte and time of all that was stored, in order, and what became of it."""

    stored: list[tuple[int, int]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    indexed: int = 0
    head: int = 0
    dropped: int = 0
    ended: bool = False

    @property
    def size(self) -> int:
        return len(self.stored) + self.dropped

    @property
    def present(self) -> int:
        """Up to where it can be delivered."""
        return len(self.stored) if self.ended else self.indexed

    def before(self, time_ns: int) -> int:
        """How many bytes were stored before this time, as far as that is to be known now."""
        return sum(at < time_ns for at in self.times[: self.present])


@dataclass
class Follower:
    """What one reader asked for and received, over all its connections."""

    span: Span
    begins: set[int]
    cursor: int
    stop_at_begin: int | None  # where one that does not follow ends
    events: list[Event] = field(default_factory=list)
    generator: AsyncGenerator[list[Parts], None] | None = None
    pending: "asyncio.Future[list[Parts]] | None" = None
    end: End | None = None
    was_told_of_cap: bool = False  # on this connection


class FollowMachine(RuleBasedStateMachine):
    loop: (
        asyncio.AbstractEventLoop
    )  # these two for all runs: the kernel has few inotify descriptors for one user
    outputs: outputs.Outputs

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="jw-follow-"))
        self.clock = Clock()
        self.patches = [
            mock.patch.object(recording, "time", self.clock),
            mock.patch.object(follow, "time", self.clock),
            mock.patch.multiple(events, MAX_CHUNK=8, MAX_BATCH=16),
            mock.patch.object(beginning, "BLOCK", 4),
            mock.patch.object(outputs, "_preadv_aside", preadv),  # a thread takes its time, which differs
            mock.patch.object(span, "PAGE", 3),
            mock.patch.object(reader, "PAGE", 3),
        ]
        for patch in self.patches:
            patch.start()
        (self.directory / "output.log").touch()
        (self.directory / "output.idx").write_bytes(pack_header(Header()))
        self.pipe, self.input = os.pipe()
        os.set_blocking(self.pipe, False)
        self.output = Output()
        self.followers: list[Follower] = []
        self.writer: recording.Recording | None = None
        self.open_writer(recording.Recording)
        self.ended: asyncio.Future[JobRecord] = self.loop.create_future()

    def teardown(self) -> None:
        try:
            if not self.output.ended:
                self.finish()
            for follower in self.followers:
                self.read_to_the_end(follower)
            assert len(self.outputs) == self.outputs.watches == 0
        finally:
            for follower in self.followers:
                self.run(self.disconnect(follower))
            for patch in self.patches:
                patch.stop()
            for fd in (self.pipe, self.input):
                os.close(fd)
            shutil.rmtree(self.directory)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Does it soon, or fails."""
        self.loop.run_until_complete(asyncio.wait_for(work, PATIENCE))

    # the writer

    def open_writer(self, cls: type[recording.Recording]) -> recording.Recording:
        self.close_writer()
        log, index = (os.open(self.directory / f"output.{name}", os.O_RDWR) for name in ("log", "idx"))
        self.writer = cls(log=log, index=index, null=os.open("/dev/null", os.O_WRONLY))
        return self.writer

    def close_writer(self) -> None:
        if self.writer is not None:
            os.close(self.writer._null_fd)
            self.writer.close()
            self.writer = None

    def is_writing(self) -> bool:
        return self.writer is not None

    def stores(self) -> bool:
        return self.is_writing() and not self.output.dropped

    @precondition(stores)
    @rule(stream=STREAMS, data=TEXT)
    def write(self, stream: int, data: bytes) -> None:
        assert self.writer is not None
        os.write(self.input, data)
        assert self.writer.store(self.pipe, stream, limit=len(data)) == len(data)
        self.writer.record()
        self.note_stored(stream, data)

    def note_stored(self, stream: int, data: bytes) -> None:
        self.output.stored += [(stream, byte) for byte in data]
        self.note_index()

    def note_index(self) -> None:
        """The times that the index tells; after a crash it is mended with times of the file system."""
        fd = os.open(self.directory / "output.idx", os.O_RDONLY)
        view = IndexFile(fd)
        last = record_at(view, count_records(view) - 1) if len(view) > HEADER_SIZE else None
        os.close(fd)
        self.output.indexed = len(self.output.stored)
        missing = len(self.output.stored) - len(self.output.times)
        self.output.times += [last.time_ns if last is not None else 0] * missing

    @rule(seconds=st.integers(1, 3))
    def time_goes_by(self, seconds: int) -> None:
        self.clock.now += seconds * SECOND

    @precondition(lambda self: self.stores() and self.output.head < len(self.output.stored))
    @rule(part=st.floats(0, 1))
    def give_head_back(self, part: float) -> None:
        assert self.writer is not None
        head = self.output.head
        head += max(1, round(part * (len(self.output.stored) - head)))
        self.writer.release(head)
        self.output.head = head

    def has_much(self) -> bool:
        """Else most runs would be over before they have begun."""
        return len(self.output.stored) > 30

    @precondition(lambda self: self.is_writing() and self.has_much())
    @rule(count=st.integers(1, 9))
    def drop(self, count: int) -> None:
        assert self.writer is not None
        os.write(self.input, bytes(count))
        assert self.writer.drop(self.pipe, limit=count) == count
        self.output.dropped += count

    @precondition(stores)
    @rule(stream=STREAMS, data=TEXT, torn=st.integers(0, 23))
    def die_while_storing(self, stream: int, data: bytes, torn: int) -> None:
        """With the data and without its record, or with a part of it."""
        assert self.writer is not None
        os.write(self.input, data)
        self.writer.store(self.pipe, stream, limit=len(data))
        index = self.writer._index_fd
        os.pwrite(index, b"\xa5" * torn, os.fstat(index).st_size)
        self.close_writer()
        self.output.stored += [(stream, byte) for byte in data]
        os.utime(self.directory / "output.log", ns=(self.clock.now, self.clock.now))

    @precondition(lambda self: self.stores() and self.output.head < len(self.output.stored))
    @rule()
    def die_while_giving_back(self) -> None:
        """With the new head and without the hole."""
        writer = self.open_writer(Dying)
        with contextlib.suppress(Killed):
            writer.release(self.output.head + 1)
        self.close_writer()
        self.output.head += 1

    @precondition(lambda self: not self.output.ended and not self.is_writing())
    @rule()
    def go_on_after_a_crash(self) -> None:
        self.open_writer(recording.Recording)
        self.note_index()

    @precondition(lambda self: not self.output.ended and self.has_much())
    @rule()
    def end(self) -> None:
        self.finish()

    def finish(self) -> None:
        self.close_writer()
        self.output.ended = True
        missing = len(self.output.stored) - len(self.output.times)
        self.output.times += [(self.directory / "output.log").stat().st_mtime_ns] * missing
        self.ended.set_result(ENDED)

    # followers

    @precondition(lambda self: len(self.followers) < 6)
    @rule(wanted=SPANS)
    def begin(self, wanted: dict[str, float]) -> None:
        asked = self.span_of(wanted)
        now = None if asked.follow else self.present()
        follower = Follower(asked, self.beginnings(asked), asked.offset, now)
        self.followers.append(follower)
        self.connect(follower, asked)

    def span_of(self, wanted: dict[str, float]) -> Span:
        size, times = self.output.size, [*self.output.times, self.clock.now]
        values: dict[str, object] = dict(wanted)
        for name in ("offset", "until_offset"):
            if name in wanted:
                values[name] = round(wanted[name] * size)
        for name in ("since_ns", "until_ns"):
            if name in wanted:
                place = wanted[name] * (len(times) - 1)
                values[name] = times[min(round(place), len(times) - 1)] + (
                    5 * SECOND if place > len(times) - 1 else 0
                )
        return Span(**values)  # type: ignore[arg-type]

    def beginnings(self, asked: Span) -> set[int]:
        """Where it may begin: two offsets when some of the dropped output may be of a time that is asked for."""
        return {begin for stop in self.stops(asked) for begin in self.beginnings_before(asked, stop)}

    def beginnings_before(self, asked: Span, stop: int) -> set[int]:
        output = self.output
        begin = asked.offset
        if not asked.follow:
            stop = min(stop, self.present())
        wanted = [
            offset
            for offset in range(output.head, min(output.present, stop))
            if not asked.streams or output.stored[offset][0] in asked.streams
        ]
        for asked_for, count in (
            (asked.tail_bytes, asked.tail_bytes),
            (asked.tail_lines, self.bytes_of_lines(wanted, asked.tail_lines)),
        ):
            if asked_for == 0:
                begin = max(begin, min(stop, output.size))
            elif count is not None:
                last = wanted[-min(count, len(wanted))] if wanted else min(stop, output.present)
                begin = max(begin, last)
        if asked.since_ns is None:
            return {begin}
        since = output.before(asked.since_ns)
        return {max(begin, since), max(begin, 0 if since <= output.head else since)}

    def present(self) -> int:
        """Up to where everything can be told of now, delivered or not."""
        output = self.output
        return output.size if output.ended or output.dropped else output.present

    def bytes_of_lines(self, wanted: list[int], lines: int | None) -> int | None:
        """How many of the wanted bytes the last so many lines are."""
        text = bytes(self.output.stored[offset][1] for offset in wanted)
        return None if lines is None else sum(map(len, text.splitlines(keepends=True)[-lines:]))

    def stops(self, asked: Span) -> set[int]:
        """Where it may end, as far as that is known now; beyond everything when it is not."""
        last = ENDLESS if asked.until_offset is None else asked.until_offset
        if asked.until_ns is None:
            return {last}
        before, head = self.output.before(asked.until_ns), self.output.head
        if before == self.output.present:
            return {last}
        return {min(last, before), min(last, head if before <= head else before)}

    def connect(self, follower: Follower, asked: Span) -> None:
        follower.was_told_of_cap = False
        source = OutputSource(self.directory.name, self.directory, self.ended)
        follower.generator = follow.follow(source, outputs=self.outputs, span=asked)
        self.run(self.turn(follower))

    async def disconnect(self, follower: Follower) -> None:
        if follower.pending is not None:
            follower.pending.cancel()
            await asyncio.wait({follower.pending})
            follower.pending = None
        if follower.generator is not None:
            await follower.generator.aclose()
            follower.generator = None

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        self.run(self.turn(data.draw(st.sampled_from(self.followers))))

    async def turn(self, follower: Follower) -> None:
        """Receives what comes without waiting, one batch at the most."""
        if follower.generator is None:
            return
        if follower.pending is None:
            follower.pending = asyncio.ensure_future(anext(follower.generator))
        for _ in range(TURNS):
            if follower.pending.done():
                break
            await asyncio.sleep(0)
        if follower.pending.done():
            await self.take(follower)

    async def take(self, follower: Follower) -> None:
        assert follower.pending is not None
        batch, follower.pending = parse(follower.pending.result()), None
        for event in batch:
            self.check(follower, event)
            follower.events.append(event)
            if isinstance(event, End):
                follower.end = event
                await self.disconnect(follower)

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def cut_off_and_resume(self, data: st.DataObject) -> None:
        """With what a client knows then: the offset after all it has received."""
        follower = data.draw(st.sampled_from(self.followers))
        if follower.generator is None:
            return
        self.run(self.disconnect(follower))
        if follower.events:
            again = replace(
                follower.span, offset=follower.cursor, since_ns=None, tail_bytes=None, tail_lines=None
            )
            if follower.stop_at_begin is not None:  # the present is another one now
                follower.stop_at_begin = self.present()
            self.connect(follower, again)
        else:
            self.followers.remove(follower)

    @precondition(lambda self: any(f.generator and f.span.follow and f.span.is_open for f in self.followers))
    @rule()
    def everybody_catches_up(self) -> None:
        """Whoever waits is woken by what was written."""
        for follower in self.followers:
            if follower.generator is not None and follower.span.follow and follower.span.is_open:
                self.run(self.catch_up(follower))

    async def catch_up(self, follower: Follower) -> None:
        output = self.output
        while follower.generator is not None and self.next_wanted(follower) is not None:
            if follower.pending is None:
                follower.pending = asyncio.ensure_future(anext(follower.generator))
            await asyncio.wait({follower.pending})
            await self.take(follower)
        note(f"caught up at {follower.cursor} of {output}")

    def next_wanted(self, follower: Follower) -> int | None:
        """The offset of a byte that it has not received, and could."""
        output = self.output
        wanted, since_ns = follower.span.streams, follower.span.since_ns or 0
        for offset in range(max(follower.cursor, output.head), output.present):
            if (not wanted or output.stored[offset][0] in wanted) and output.times[offset] >= since_ns:
                return offset
        return None

    def read_to_the_end(self, follower: Follower) -> None:
        async def read() -> None:
            while follower.generator is not None:
                for changed in [event for o in self.outputs._open.values() for event in o.waiting]:
                    changed.set()
                if follower.pending is None:
                    follower.pending = asyncio.ensure_future(anext(follower.generator))
                await asyncio.wait({follower.pending})
                await self.take(follower)

        self.run(read())
        assert follower.end is not None
        self.check_end(follower)

    # what must be true

    def check(self, follower: Follower, event: Event) -> None:
        note(f"{follower.span} at {follower.cursor}: {event}")
        assert follower.end is None, "something after the end"
        if isinstance(event, Position):
            assert not follower.events
            wanted = {self.first_wanted(follower.span, begin) for begin in follower.begins}
            assert self.first_wanted(follower.span, event.offset) in wanted
            follower.cursor = event.offset
        elif isinstance(event, Chunk):
            self.check_skipped(follower, event.offset)
            self.check_chunk(follower, event)
            follower.cursor = event.offset + len(event.data)
        elif isinstance(event, Gap):
            self.check_skipped(follower, event.from_)
            self.check_gap(event)
            if event.reason == GapReason.CAP and not self.output.ended:
                assert not follower.was_told_of_cap, "what is dropped is told once, then at the end"
                follower.was_told_of_cap = True
            follower.cursor = event.to
        else:
            self.check_skipped(follower, event.final_offset)
            ends = {max(follower.cursor, stop) for stop in self.ends(follower)}
            assert event.final_offset in ends or self.ended_before(follower, event)
            assert (event.termination is not None) <= self.output.ended
            follower.cursor = event.final_offset

    def first_wanted(self, asked: Span, offset: int) -> int:
        """Where bytes begin that are asked for: it makes no difference in which of those before it begins."""
        stored = self.output.stored
        while asked.streams and offset < len(stored) and stored[offset][0] not in asked.streams:
            offset += 1
        return offset

    def check_skipped(self, follower: Follower, offset: int) -> None:
        """What lies between two events are bytes of streams, or of a time, that were not asked for."""
        assert offset >= follower.cursor, "a byte twice"
        for place in range(follower.cursor, offset):
            assert place < len(self.output.stored), f"byte {place}, which was dropped, is missing"
            stream = self.output.stored[place][0]
            unwanted = follower.span.streams and stream not in follower.span.streams
            since_ns = follower.span.since_ns
            early = since_ns is not None and self.output.times[place] < since_ns
            assert unwanted or early, f"byte {place} is missing"

    def check_chunk(self, follower: Follower, chunk: Chunk) -> None:
        assert chunk.data
        stop = chunk.offset + len(chunk.data)
        part = self.output.stored[chunk.offset : stop]
        assert part == [(int(chunk.stream), byte) for byte in chunk.data]
        assert not follower.span.streams or int(chunk.stream) in follower.span.streams
        assert chunk.time_unix_nano == self.output.times[chunk.offset]
        if follower.span.until_offset is not None:
            assert stop <= follower.span.until_offset
        if follower.span.until_ns is not None:
            assert self.output.times[stop - 1] < follower.span.until_ns

    def check_gap(self, gap: Gap) -> None:
        assert gap.from_ < gap.to
        if gap.reason == GapReason.RETENTION:
            assert gap.to <= self.output.head
        else:
            assert gap.reason == GapReason.CAP
            assert len(self.output.stored) <= gap.from_ < gap.to <= self.output.size

    def ends(self, follower: Follower) -> set[int]:
        """Where it may end now."""
        output, asked = self.output, follower.span
        ends = self.stops(asked)
        if output.ended or (asked.until_ns is not None and self.clock.now >= asked.until_ns):
            ends = {min(end, self.present()) for end in ends}
        if follower.stop_at_begin is not None:
            ends = {min(end, follower.stop_at_begin) for end in ends}
        return ends

    def ended_before(self, follower: Follower, end: End) -> bool:
        """Whether its time came, by a real timer, before the job ended: then it got all that there was."""
        is_over = follower.span.until_ns is not None and self.clock.now >= follower.span.until_ns
        return is_over and end.termination is None and end.final_offset == follower.cursor

    def check_end(self, follower: Follower) -> None:
        asked, end = follower.span, follower.end
        assert end is not None
        if asked.is_open and asked.follow:
            assert end.termination is not None
            assert end.final_offset == self.output.size
        if asked.is_open and follower.stop_at_begin is not None:
            assert end.final_offset <= max(follower.stop_at_begin, *follower.begins)
            assert not asked.follow
        if asked.until_offset is not None:
            assert end.final_offset <= max(asked.until_offset, *follower.begins)

    @invariant()
    def files_are_open_only_for_followers(self) -> None:
        assert len(self.outputs) <= 1
        assert self.outputs.watches <= 1


class TestFollow(FollowMachine.TestCase):  # type: ignore[valid-type,misc]  # it is made at run time
    settings = settings(max_examples=200, stateful_step_count=40, deadline=None)

    @classmethod
    def setUpClass(cls) -> None:
        async def made() -> outputs.Outputs:
            return outputs.Outputs()

        FollowMachine.loop = asyncio.new_event_loop()
        FollowMachine.outputs = FollowMachine.loop.run_until_complete(made())

    @classmethod
    def tearDownClass(cls) -> None:
        async def close() -> None:
            FollowMachine.outputs.close()
            await FollowMachine.loop.shutdown_default_executor()

        FollowMachine.loop.run_until_complete(close())
        FollowMachine.loop.close()


@pytest.mark.slow
class TestFollowLong(TestFollow):
    """What takes many steps to come about."""

    settings = settings(max_examples=1500, stateful_step_count=60, deadline=None)
