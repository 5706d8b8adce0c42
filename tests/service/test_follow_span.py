"""Where following begins and ends, and what is missing in between: on files that this test writes itself."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from generated.jobworker.v1 import End, Gap, GapReason, Position
from jobworker.beginning import BLOCK
from jobworker.errors import InvalidArgument
from jobworker.follow import follow
from jobworker.outputs import Outputs
from jobworker.span import PAGE, Span
from tests.harness.outputlog import ENDED, PATIENCE, Event, Log, data_of, parse, read

RETENTION, CAP = GapReason(GapReason.RETENTION), GapReason(GapReason.CAP)


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


def offsets(events: list[Event]) -> tuple[int, int]:
    """Where it began, as told, and ended."""
    assert isinstance(events[0], Position)
    assert isinstance(events[-1], End)
    return events[0].offset, events[-1].final_offset


def gaps(events: list[Event]) -> list[tuple[int, int, GapReason]]:
    return [(e.from_, e.to, e.reason) for e in events if isinstance(e, Gap)]


# -- the last so many


@pytest.mark.parametrize(
    ("text", "count", "tail"),
    [
        (b"a\nb\nc\n", 0, b""),
        (b"a\nb\nc\n", 1, b"c\n"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc\n", 3, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 2**63 - 1, b"a\nb\nc\n"),
        (b"a\nb\nc", 1, b"c"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"\n\n\n", 2, b"\n\n"),
        (b"no newline", 1, b"no newline"),
        (b"", 5, b""),
    ],
)
async def test_the_last_lines(log: Log, outputs: Outputs, text: bytes, count: int, tail: bytes) -> None:
    for byte in text:
        log.write(bytes((byte,)))
    log.end()
    events = await read(log, outputs, tail_lines=count)
    assert data_of(events) == tail
    assert offsets(events) == (len(text) - len(tail), len(text))


async def test_the_last_lines_of_a_long_output_are_those_that_tail_would_give(
    log: Log, outputs: Outputs
) -> None:
    """Lines over many blocks, blocks of many lines, records over several blocks, pages of tiny records."""
    rng = random.Random(4)
    for length in (10, 3 * BLOCK, 100, BLOCK, 2 * BLOCK + 5, *([3] * 3 * PAGE), 70_000):
        log.write(rng.randbytes(length), stream=rng.choice((1, 2)))
    log.end()
    whole = data_of(await read(log, outputs))
    lines = [line + b"\n" for line in whole.split(b"\n")[:-1]] + [whole.split(b"\n")[-1]]
    for count in (1, 2, 10, 500, 2000, 5000, len(lines)):
        assert data_of(await read(log, outputs, tail_lines=count)) == b"".join(lines[-count:])
    for count in (1, 100, BLOCK, 3 * BLOCK, len(whole)):
        assert data_of(await read(log, outputs, tail_bytes=count)) == whole[-count:]


async def test_the_last_of_one_stream_is_counted_in_that_stream(log: Log, outputs: Outputs) -> None:
    rng = random.Random(5)
    for _ in range(3 * PAGE):
        log.write(rng.choice((b"a\n", b"bc", b"\nd")), stream=rng.choice((1, 2)))
    log.end()
    for stream in (1, 2):
        text = log.written[stream]
        lines = [line + b"\n" for line in text.split(b"\n")[:-1]] + [text.split(b"\n")[-1]]
        lines = [line for line in lines if line]
        for count in (1, 7, 300):
            of_one = frozenset({stream})
            got = await read(log, outputs, tail_lines=count, streams=of_one)
            assert data_of(got) == b"".join(lines[-count:])
            assert data_of(await read(log, outputs, tail_bytes=count, streams=of_one)) == text[-count:]


async def test_the_end_is_a_place_to_begin_following(log: Log, outputs: Outputs) -> None:
    log.write(b"old\n")
    following = follow(log.source, outputs=outputs, span=Span(tail_lines=0, follow=True))
    async with aclosing(following) as batches:
        assert parse(await anext(batches)) == [Position(offset=4)]
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        log.write(b"new\n")
        assert data_of(parse(await asyncio.wait_for(waiting, PATIENCE))) == b"new\n"


async def test_an_unindexed_tail_counts_once_the_job_has_ended(log: Log, outputs: Outputs) -> None:
    log.write(b"one\ntwo\n")
    log.set_header(pending=2)
    log.append(b"three\nfour\n")
    assert data_of(await read(log, outputs, tail_lines=1)) == b"two\n"
    log.end()
    assert data_of(await read(log, outputs, tail_lines=3), 2) == b"three\nfour\n"
    assert data_of(await read(log, outputs, tail_lines=3), 1) == b"two\n"
    assert data_of(await read(log, outputs, tail_bytes=1, streams=frozenset({1}))) == b"\n"


async def test_counting_back_gives_others_their_turns(log: Log, outputs: Outputs) -> None:
    log.write(bytes(100 * BLOCK))
    log.end()
    looking = asyncio.create_task(anext(follow(log.source, outputs=outputs, span=Span(tail_lines=1))))
    turns = 0
    while not looking.done():
        await asyncio.sleep(0)
        turns += 1
    assert parse(looking.result()) == [Position()]
    assert turns > 100


# -- times


async def test_since_and_until_are_times_of_pieces(log: Log, outputs: Outputs) -> None:
    for at in (10, 20, 20, 30):
        log.time = at - 1
        log.write(b"%d " % at)
    log.end()
    assert data_of(await read(log, outputs, since_ns=20)) == b"20 20 30 "
    assert data_of(await read(log, outputs, since_ns=11, until_ns=30)) == b"20 20 "
    assert data_of(await read(log, outputs, until_ns=10)) == b""
    assert data_of(await read(log, outputs, since_ns=31)) == b""
    assert data_of(await read(log, outputs, until_ns=20, tail_bytes=2)) == b"0 "
    end = (await read(log, outputs, until_ns=20))[-1]
    assert end == End(termination=ENDED.termination, final_offset=3)


async def test_a_time_to_come_ends_following(log: Log, outputs: Outputs) -> None:
    log.time = time.time_ns() - 10**9
    log.write(b"before")
    until = time.time_ns() + 5 * 10**9  # a record of that time is as good
    reading = asyncio.create_task(read(log, outputs, to_end=True, until_ns=until))
    await asyncio.sleep(0.01)
    log.time = until - 2
    log.write(b", just before")
    log.write(b", and not this")
    events = await reading
    assert data_of(events) == b"before, just before"
    assert events[-1] == End(final_offset=19)


async def test_a_time_to_come_ends_following_a_silent_job(log: Log, outputs: Outputs) -> None:
    log.write(b"x")
    until = time.time_ns() + 50_000_000
    assert (await read(log, outputs, to_end=True, until_ns=until))[-1] == End(final_offset=1)
    assert time.time_ns() >= until
    passed = asyncio.get_running_loop().time()
    assert (await read(log, outputs, to_end=True, until_ns=until))[-1] == End(final_offset=1)
    assert asyncio.get_running_loop().time() - passed < 1


async def test_since_a_time_to_come_begins_then(log: Log, outputs: Outputs) -> None:
    log.write(b"old")
    reading = asyncio.create_task(read(log, outputs, to_end=True, since_ns=100))
    await asyncio.sleep(0.01)
    log.write(b"early")
    log.time = 99
    log.write(b"late")
    log.end()
    assert data_of(await reading) == b"late"


async def test_what_came_before_since_is_skipped_up_to_the_end_only(log: Log, outputs: Outputs) -> None:
    reading = asyncio.create_task(read(log, outputs, to_end=True, since_ns=100, until_offset=2))
    await asyncio.sleep(0.01)
    log.write(b"early")
    assert (await reading)[-1] == End(final_offset=2)


# -- offsets


async def test_until_an_offset(log: Log, outputs: Outputs) -> None:
    log.write(b"abcd")
    log.write(b"efgh", stream=2)
    assert data_of(await read(log, outputs, to_end=True, until_offset=6)) == b"abcdef", "the job runs on"
    assert data_of(await read(log, outputs, offset=2, until_offset=2)) == b""
    assert data_of(await read(log, outputs, until_offset=100)) == b"abcdefgh"
    reading = asyncio.create_task(read(log, outputs, to_end=True, until_offset=10))
    await asyncio.sleep(0.01)
    log.write(b"ijkl")
    events = await reading
    assert data_of(events) == b"abcdefghij"
    assert events[-1] == End(final_offset=10)


async def test_without_follow_a_busy_job_is_not_chased(log: Log, outputs: Outputs) -> None:
    log.write(b"now")
    following = follow(log.source, outputs=outputs, span=Span())
    async with aclosing(following) as batches:
        first = parse(await anext(batches))
        log.write(b"later")
        rest = [event async for batch in batches for event in parse(batch)]
    assert data_of(first + rest) == b"now"


@pytest.mark.parametrize("stream", [1, 2])
async def test_without_follow_pages_read_later_end_there_too(log: Log, outputs: Outputs, stream: int) -> None:
    for _ in range(PAGE + 5):
        log.write(b"x" * 1100)
    following = follow(log.source, outputs=outputs, span=Span())
    async with aclosing(following) as batches:
        events = parse(await anext(batches))
        log.write(b"later", stream=stream)
        events += [event async for batch in batches for event in parse(batch)]
    assert events[-1] == End(final_offset=(PAGE + 5) * 1100)
    assert len(data_of(events)) == (PAGE + 5) * 1100


async def test_the_latest_beginning_and_the_earliest_end_count(log: Log, outputs: Outputs) -> None:
    for number in range(10):
        log.write(b"%d\n" % number, stream=1 + number % 2)  # at time number + 1
    log.end()
    spans: list[tuple[dict[str, Any], bytes]] = [
        ({"offset": 4, "since_ns": 6}, b"5\n6\n7\n8\n9\n"),
        ({"offset": 12, "since_ns": 6}, b"6\n7\n8\n9\n"),
        ({"offset": 12, "tail_lines": 2}, b"8\n9\n"),
        ({"offset": 19, "tail_lines": 2}, b"\n"),
        ({"tail_lines": 3, "tail_bytes": 3}, b"\n9\n"),
        ({"tail_lines": 2, "until_offset": 7, "until_ns": 9}, b"2\n3"),
        ({"tail_lines": 2, "until_offset": 17, "until_ns": 7}, b"4\n5\n"),
        ({"tail_lines": 2, "streams": frozenset({2})}, b"7\n9\n"),
        ({"tail_lines": 2, "since_ns": 9, "streams": frozenset({2})}, b"9\n"),
        ({"offset": 6, "until_ns": 2}, b""),
    ]
    for span, wanted in spans:
        assert data_of(await read(log, outputs, **span)) == wanted, span
        assert data_of(await read(log, outputs, to_end=True, **span)) == wanted, span


# -- what is missing


async def test_a_punched_head_is_one_gap(log: Log, outputs: Outputs) -> None:
    for _ in range(2 * PAGE):
        log.write(b"0123456789")
    log.punch(9_995)
    log.end()
    for offset in (0, 10, 5_003, 9_994):
        events = await read(log, outputs, offset=offset)
        assert gaps(events) == [(offset, 9_995, RETENTION)]
        assert data_of(events) == b"56789" + b"0123456789" * 24
    for offset in (9_995, 10_000):
        assert gaps(await read(log, outputs, offset=offset)) == []
    assert gaps(await read(log, outputs, offset=7, until_offset=90)) == [(7, 90, RETENTION)]


@pytest.mark.parametrize("stream", [1, 2])
async def test_a_punched_head_is_told_to_who_wants_one_stream(
    log: Log, outputs: Outputs, stream: int
) -> None:
    """Where the first record that is left begins only the one before it tells, which reads as zeros."""
    for number in range(20):
        log.write(b"0123456789", stream=1 + number // 10)
    log.punch(155)
    log.end()
    events = await read(log, outputs, streams=frozenset({stream}))
    assert gaps(events) == [(0, 155, RETENTION)]
    assert data_of(events) == (b"" if stream == 1 else b"56789" + b"0123456789" * 4)


async def test_a_tail_stays_within_what_is_stored(log: Log, outputs: Outputs) -> None:
    for _ in range(100):
        log.write(b"line\n")
    log.punch(482)
    log.end()
    events = await read(log, outputs, tail_lines=50)
    assert (data_of(events), offsets(events), gaps(events)) == (b"ne\nline\nline\nline\n", (482, 500), [])
    assert data_of(await read(log, outputs, tail_bytes=1000)) == b"ne\nline\nline\nline\n"


async def test_since_a_time_whose_output_may_be_dropped_tells_so(log: Log, outputs: Outputs) -> None:
    for _ in range(100):
        log.write(b"0123456789")  # number n at time n + 1
    log.punch(905)
    log.end()
    assert gaps(await read(log, outputs, since_ns=50)) == [(0, 905, RETENTION)]
    assert gaps(await read(log, outputs, since_ns=91)) == [(900, 905, RETENTION)]
    assert gaps(await read(log, outputs, since_ns=92)) == []


async def test_a_head_punched_under_a_reader_is_a_gap_from_where_it_was(log: Log, outputs: Outputs) -> None:
    for _ in range(3 * PAGE):
        log.write(bytes(1000))
    following = follow(log.source, outputs=outputs, span=Span(follow=True))
    async with aclosing(following) as batches:
        got = len(data_of(parse(await anext(batches))))
        head = 3 * PAGE * 1000 - 500
        log.punch(head)
        log.write(b"more")
        log.end()
        rest = [event async for batch in batches for event in parse(batch)]
    assert gaps(rest) == [(got, head, RETENTION)]
    assert data_of(rest) == bytes(500) + b"more"


async def test_a_head_punched_while_a_reader_waits(log: Log, outputs: Outputs) -> None:
    log.write(b"a" * 100)
    following = follow(log.source, outputs=outputs, span=Span(follow=True))
    async with aclosing(following) as batches:
        await anext(batches)
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.01)
        for _ in range(10):
            log.write(b"b" * 100)
        log.punch(950)
        assert gaps(parse(await asyncio.wait_for(waiting, PATIENCE))) == [(100, 950, RETENTION)]


async def test_what_the_cap_dropped_is_a_gap_at_the_end(log: Log, outputs: Outputs) -> None:
    log.write(b"kept")
    log.drop(6)
    for ended in (False, True):
        events = await read(log, outputs)
        assert gaps(events) == [(4, 10, CAP)]
        assert isinstance(events[-1], End)
        assert events[-1].final_offset == 10
        assert gaps(await read(log, outputs, offset=7)) == [(7, 10, CAP)]
        assert gaps(await read(log, outputs, offset=7, until_offset=8)) == [(7, 8, CAP)]
        assert gaps(await read(log, outputs, tail_bytes=0)) == []
        assert gaps(await read(log, outputs, tail_bytes=2)) == [(4, 10, CAP)]
        with pytest.raises(InvalidArgument, match="has 10 bytes"):
            await read(log, outputs, offset=11)
        if not ended:
            log.end()


async def test_a_follower_is_told_of_the_cap_once_and_then_of_the_rest(log: Log, outputs: Outputs) -> None:
    following = follow(log.source, outputs=outputs, span=Span(follow=True))
    log.write(b"kept")
    async with aclosing(following) as batches:
        assert data_of(parse(await anext(batches))) == b"kept"
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.01)
        log.drop(5)
        assert gaps(parse(await asyncio.wait_for(waiting, PATIENCE))) == [(4, 9, CAP)]
        waiting = asyncio.ensure_future(anext(batches))
        for _ in range(5):
            log.drop(100)
            done, _ = await asyncio.wait({waiting}, timeout=0.01)
            assert not done
        assert outputs.watches == 0, "what is not stored wakes nobody"
        log.end()
        assert parse(await asyncio.wait_for(waiting, PATIENCE)) == [
            Gap(from_=9, to=509, reason=CAP),
            End(termination=ENDED.termination, final_offset=509),
        ]
