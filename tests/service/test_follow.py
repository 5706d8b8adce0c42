"""Following the files of a job that this test writes itself, byte for byte as a supervisor does."""

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from generated.jobworker.v1 import Chunk, End, Gap, GapReason, Stream
from jobworker import outputindex, syscalls
from jobworker.errors import FailedPrecondition, InvalidArgument, Unavailable
from jobworker.events import MAX_CHUNK
from jobworker.follow import follow
from jobworker.jobs import OutputSource
from jobworker.outputs import Outputs
from jobworker.reader import Reader
from jobworker.span import Span
from tests.harness.outputlog import ENDED, PATIENCE, Log, data_of, parse, read


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    made = Log(tmp_path)
    yield made
    made.close()


@pytest.fixture
async def outputs() -> AsyncIterator[Outputs]:
    made = Outputs()
    yield made
    assert len(made) == 0, "a follower has not let go of its files"
    made.close()


async def test_where_no_inotify_is_left_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(syscalls, "inotify_init", refuse)
    with pytest.raises(FailedPrecondition, match="too many open files") as refused:
        Outputs()
    assert "max_user_instances" in refused.value.hint


async def test_an_ended_job_is_one_batch_without_a_watch(log: Log, outputs: Outputs) -> None:
    log.write(b"out\n")
    log.write(b"err\n", stream=2)
    log.end()
    batches = [parse(b) async for b in follow(log.source, outputs=outputs, span=Span(follow=True))]
    assert batches == [
        [
            Chunk(stream=Stream(1), offset=0, data=b"out\n", time_unix_nano=1),
            Chunk(stream=Stream(2), offset=4, data=b"err\n", time_unix_nano=2),
            End(termination=ENDED.termination, final_offset=8),
        ]
    ]


async def test_neighbours_of_one_stream_are_one_chunk_with_the_time_of_the_first(
    log: Log, outputs: Outputs
) -> None:
    for _ in range(1000):
        log.write(b"line\n")
    log.end()
    events = await read(log, outputs)
    chunks = [e for e in events if isinstance(e, Chunk)]
    assert len(chunks) <= 3
    assert chunks[0].time_unix_nano == 1
    assert data_of(events) == b"line\n" * 1000


@pytest.mark.parametrize("left", [0, 2, 4, 6])
@pytest.mark.parametrize("indexed", [0, 1, 2])
async def test_what_a_power_failure_took_is_a_gap(
    log: Log, outputs: Outputs, left: int, indexed: int
) -> None:
    log.write(b"out\n")
    log.write(b"err\n")
    os.ftruncate(log.log, left)
    os.ftruncate(log.index, (outputindex.HEADER_SIZE + indexed * outputindex.RECORD_SIZE) if indexed else 0)
    log.end(written=8)
    for offset in (0, 3, 7, 8):
        events = await read(log, outputs, offset=offset, to_end=True)
        stored, missing = b"out\nerr\n"[offset:left], max(left, offset)
        assert data_of(events) == stored
        lost = [(gap.from_, gap.to, gap.reason) for gap in events if isinstance(gap, Gap)]
        assert [to for _, to, _ in lost] == [start for start, _, _ in lost[1:]] + [8] * bool(lost)
        assert [start for start, _, _ in lost[:1]] == [missing] * (missing < 8)
        assert {reason for _, _, reason in lost} <= {GapReason(GapReason.DAMAGED)}
        assert isinstance(events[-1], End)
        assert events[-1].final_offset == 8
    with pytest.raises(InvalidArgument, match="beyond the output, which has 8 bytes"):
        await read(log, outputs, offset=9, to_end=True)


async def test_the_files_themselves_can_be_what_a_power_failure_took(log: Log, outputs: Outputs) -> None:
    log.write(b"out\n")
    os.unlink(log.directory / "output.idx")
    log.end(written=4)
    for span, gap, end in (
        ({"to_end": True}, [Gap(to=4, reason=GapReason(GapReason.DAMAGED))], 4),
        ({"offset": 2, "until_offset": 3}, [Gap(from_=2, to=3, reason=GapReason(GapReason.DAMAGED))], 3),
        ({"offset": 4}, [], 4),
    ):
        assert await read(log, outputs, **span) == [
            *gap,
            End(termination=ENDED.termination, final_offset=end),
        ]


async def test_without_follow_the_stream_ends_at_the_present(log: Log, outputs: Outputs) -> None:
    log.write(b"abc")
    end = (await read(log, outputs))[-1]
    assert isinstance(end, End)
    assert (end.termination, end.final_offset) == (None, 3)


async def test_following_goes_on_until_the_job_has_ended(log: Log, outputs: Outputs) -> None:
    reading = asyncio.create_task(read(log, outputs, to_end=True))
    for number in range(20):
        log.write(b"%d\n" % number, stream=1 + number % 2)
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)  # lets the follower wait for the watch
    log.write(b"last")
    log.end()
    events = await reading
    assert data_of(events, 1) == log.written[1]
    assert data_of(events, 2) == log.written[2]


async def test_a_follower_that_waits_is_woken_by_each_record(log: Log, outputs: Outputs) -> None:
    following = follow(log.source, outputs=outputs, span=Span(follow=True))
    async with aclosing(following) as batches:
        for word in (b"one", b"two", b"three"):
            waiting = asyncio.ensure_future(anext(batches))
            done, _ = await asyncio.wait({waiting}, timeout=0.02)
            assert not done
            log.write(word)
            assert data_of(parse(await asyncio.wait_for(waiting, PATIENCE))) == word


async def test_an_idle_follower_is_not_woken(log: Log, outputs: Outputs) -> None:
    following = follow(log.source, outputs=outputs, span=Span(follow=True))
    async with aclosing(following) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.05)
        assert all(handle.cancelled() for handle in asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]
        waiting.cancel()
        await asyncio.wait({waiting})


@pytest.mark.parametrize("offset", [0, 1, 3, 4, 7, 8])
async def test_any_offset_is_a_place_to_begin(log: Log, outputs: Outputs, offset: int) -> None:
    log.write(b"abcd")
    log.write(b"efgh", stream=2)
    log.end()
    events = await read(log, outputs, offset=offset)
    assert data_of(events) == b"abcdefgh"[offset:]
    assert [e.offset for e in events if isinstance(e, Chunk)][:1] == ([offset] if offset < 8 else [])


async def test_an_offset_beyond_the_output_is_refused(log: Log, outputs: Outputs) -> None:
    log.write(b"abcd")
    with pytest.raises(InvalidArgument, match="has 4 bytes") as refused:
        await read(log, outputs, offset=5)
    assert refused.value.field == "offset"


@pytest.mark.parametrize("stream", [1, 2])
async def test_one_stream_only(log: Log, outputs: Outputs, stream: int) -> None:
    rng = random.Random(1)
    for _ in range(2000):
        log.write(rng.randbytes(rng.randint(1, 40)), stream=rng.choice((1, 2)))
    log.end()
    events = await read(log, outputs, streams=frozenset({stream}))
    assert data_of(events) == log.written[stream]
    assert isinstance(events[-1], End)
    assert events[-1].final_offset == log.size


async def test_large_output_comes_in_chunks_of_bounded_size(log: Log, outputs: Outputs) -> None:
    data = random.Random(2).randbytes(5 * MAX_CHUNK + 17)
    log.write(data)
    log.write(data)
    log.end()
    events = await read(log, outputs)
    chunks = [e for e in events if isinstance(e, Chunk)]
    assert max(len(chunk.data) for chunk in chunks) == MAX_CHUNK
    assert [chunk.offset for chunk in chunks] == [
        sum(len(c.data) for c in chunks[:n]) for n in range(len(chunks))
    ]
    assert data_of(events) == data + data


async def test_what_retention_dropped_is_a_gap(log: Log, outputs: Outputs) -> None:
    log.write(b"a" * 100)
    log.write(b"b" * 100)
    log.set_header(head=150)
    log.end()
    events = await read(log, outputs, offset=20)
    assert events[0] == Gap(from_=20, to=150, reason=GapReason(GapReason.RETENTION))
    assert data_of(events) == b"b" * 50
    assert isinstance(events[-1], End)
    assert events[-1].final_offset == 200


async def test_a_tail_that_was_never_indexed_is_served_at_the_end(log: Log, outputs: Outputs) -> None:
    log.write(b"indexed")
    log.set_header(pending=2)
    log.append(b"crash")
    assert data_of(await read(log, outputs)) == b"indexed", "not before the end: its stream is not known yet"
    log.end()
    events = await read(log, outputs)
    assert data_of(events, 2) == b"crash"
    assert isinstance(events[-1], End)
    assert events[-1].final_offset == 12
    assert data_of(await read(log, outputs, offset=9)) == b"ash"
    assert data_of(await read(log, outputs, streams=frozenset({1}))) == b"indexed"


async def test_a_damaged_record_is_a_gap_and_the_rest_is_served(log: Log, outputs: Outputs) -> None:
    for word in (b"aa", b"bb", b"cc", b"dd"):
        log.write(word)
    os.pwrite(log.index, b"\xff", outputindex.HEADER_SIZE + outputindex.RECORD_SIZE)  # the record of bb
    log.end()
    events = await read(log, outputs)
    assert data_of(events) == b"aadd", "where cc begins only the damaged record tells"
    assert Gap(from_=2, to=6, reason=GapReason(GapReason.DAMAGED)) in events


async def test_a_log_shorter_than_its_index_is_a_gap(log: Log, outputs: Outputs) -> None:
    log.write(b"abcd")
    log.write(b"efgh", stream=2)
    os.ftruncate(log.log, 6)
    log.end()
    events = await read(log, outputs)
    assert data_of(events) == b"abcdef"
    assert events[-2] == Gap(from_=6, to=8, reason=GapReason(GapReason.DAMAGED))


async def test_a_job_without_files_has_an_end_only(log: Log, outputs: Outputs, tmp_path: Path) -> None:
    log.source = OutputSource("gone", tmp_path / "no-such", log.ended)
    with pytest.raises(Unavailable):
        await read(log, outputs)
    log.end()
    assert await read(log, outputs) == [End(termination=ENDED.termination)]


async def test_who_takes_the_batch_of_another_still_looks_for_what_came_since(
    log: Log, outputs: Outputs
) -> None:
    log.write(b"one\n")
    source = log.source
    place = (source.job_id, source.directory)
    with outputs.open(*place) as output, outputs.open(*place):  # they share only where there are two
        first, second = (Reader(output, Span(follow=True), begin=0, stop=None) for _ in range(2))
        assert data_of(parse(await first.read(written=None))) == b"one\n"
        assert first.exhausted
        log.write(b"two\n")
        assert data_of(parse(await second.read(written=None))) == b"one\n"
        assert not second.exhausted
        assert data_of(parse(await second.read(written=None))) == b"two\n"
        assert second.exhausted


async def test_many_followers_share_one_pair_of_files_and_one_watch(log: Log, outputs: Outputs) -> None:
    with open_files() as before:
        readers = [asyncio.create_task(read(log, outputs, to_end=True)) for _ in range(50)]
        rng = random.Random(3)
        for _ in range(30):
            log.write(rng.randbytes(500), stream=rng.choice((1, 2)))
            await asyncio.sleep(0.001)
        assert open_now() == before + 2
        log.end()
        for reader in readers:
            events = await reader
            assert data_of(events, 1) == log.written[1]
            assert data_of(events, 2) == log.written[2]
        assert open_now() == before


async def test_a_follower_is_ended_at_any_moment_and_leaves_nothing(log: Log, outputs: Outputs) -> None:
    log.write(b"x" * 3 * MAX_CHUNK)
    with open_files() as before:
        for turns in range(12):
            task = asyncio.create_task(read(log, outputs, to_end=True))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
        assert open_now() == before


def open_now() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def open_files() -> Iterator[int]:
    yield open_now()
