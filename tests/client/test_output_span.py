"""Parts of a real job's output: where it begins, where it ends, over connections that are cut, and what a cap leaves of it."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

import jobctl
from jobctl import Client, Gap, Keep, OutputCap, Stream
from tests.client.conftest import PATIENCE, client_of
from tests.client.proxy import proxy_to
from tests.conftest import MakeWorker
from tests.harness import Worker, programs
from tests.harness.paced import Paced

MIB = 1 << 20


async def said(job: jobctl.Job, **options: Any) -> bytes:
    """The output, each chunk beginning where the one before ended."""
    data, at = b"", None
    async for chunk in job.output(timeout=PATIENCE, **options):
        assert at is None or chunk.offset == at or options.get("streams")
        at = chunk.offset + len(chunk.data)
        data += chunk.data
    return data


@pytest.fixture
async def ended(alice: Client, worker: Worker) -> jobctl.Job:
    """A job that wrote ten lines, odd ones to stdout and even ones to stderr, at times that can be told apart."""
    paced = Paced(worker.directory, [(2 - n % 2, f"line {n}\n") for n in range(1, 11)])
    job = await alice.start(paced.argv)
    await asyncio.to_thread(paced.let_go_on, worker.job_directory(job.id) / "output.log")
    await job.wait(timeout=PATIENCE)
    return job


LINES = [b"line %d\n" % n for n in range(1, 11)]


async def test_the_last_lines_and_bytes(ended: jobctl.Job) -> None:
    whole = b"".join(LINES)
    assert await said(ended, tail_lines=3) == b"".join(LINES[-3:])
    assert await said(ended, tail_lines=0) == b""
    assert await said(ended, tail_lines=1000) == whole
    assert await said(ended, tail_bytes=10) == whole[-10:]
    assert await said(ended, tail_lines=2, streams=[Stream.STDERR]) == LINES[7] + LINES[9]
    assert await said(ended, tail_lines=5, offset=len(whole) - 3) == whole[-3:]
    assert await said(ended, tail_lines=2, until_offset=14) == whole[:14]
    assert await said(ended, offset=7, until_offset=14) == LINES[1]
    assert await said(ended, until_offset=0) == b""


async def test_a_part_by_its_times(ended: jobctl.Job) -> None:
    chunks = [chunk async for chunk in ended.output(timeout=PATIENCE)]
    fourth = chunks[3].time
    assert await said(ended, since=fourth) == b"".join(LINES[3:])
    assert await said(ended, until=fourth) == b"".join(LINES[:3])
    assert await said(ended, since=fourth, until=chunks[6].time) == b"".join(LINES[3:6])
    assert await said(ended, until=fourth, tail_lines=1) == LINES[2]
    assert await said(ended, since=timedelta(hours=1)) == b"".join(LINES)
    assert await said(ended, until=timedelta(hours=1)) == b""
    assert await said(ended, since=datetime.now(UTC) + timedelta(hours=1)) == b""


async def test_following_begins_with_the_last_lines(alice: Client) -> None:
    """And goes on until the job has ended, or to the offset that was said."""
    job = await alice.start(programs.lines(40, pause=0.02))
    async for chunk in job.output(timeout=PATIENCE):
        if b"line 5\n" in chunk.data:
            break
    following = job.output(tail_lines=1, timeout=PATIENCE)
    first = await anext(following)
    assert first.offset >= 28
    rest = [first.data, *[chunk.data async for chunk in following]]
    whole = b"".join(b"line %d\n" % n for n in range(1, 41))
    assert b"".join(rest) == whole[first.offset :]
    assert following.result is not None
    assert await said(job, until_offset=100) == whole[:100]


async def test_following_ends_at_its_time_and_the_job_goes_on(alice: Client) -> None:
    job = await alice.start(programs.ready_then_sleep())
    output = job.output(until=datetime.now(UTC) + timedelta(seconds=0.5), timeout=PATIENCE)
    assert [chunk.data async for chunk in output] == [b"ready\n"]
    assert output.result is None
    assert output.offset == 6
    await job.stop(grace=0)


@pytest.mark.parametrize("cuts", [(3700, 3700, 4200), (20_000, 100_000, 70_000)])
@pytest.mark.parametrize("options", [{"tail_lines": 50_000}, {"since": timedelta(hours=1)}], ids=str)
async def test_a_part_over_connections_that_are_cut(
    worker: Worker, cuts: tuple[int, ...], options: dict[str, Any]
) -> None:
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        job = await client.start(programs.sh("i=0; while [ $i -lt 100 ]; do i=$((i+1)); seq 1000; done"))
        await job.wait(timeout=PATIENCE)
        lines = [b"%d\n" % n for n in range(1, 1001)] * 100
        proxy.cut_after(*cuts)
        expected = b"".join(lines[-options.get("tail_lines", len(lines)) :])
        assert await said(job, **options) == expected
        assert proxy.connections >= 2 + len(cuts)


async def test_a_live_tail_over_connections_that_are_cut(worker: Worker) -> None:
    """The tail is counted from the present of the first time, not of each time."""
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        job = await client.start(programs.lines(150, pause=0.01))
        output = job.output(tail_lines=0, timeout=PATIENCE)
        first = await anext(output)

        async def cut_often() -> None:
            for _ in range(5):
                await proxy.passed(200)
                proxy.cut()

        cutting = asyncio.create_task(cut_often())
        got = first.data + b"".join([chunk.data async for chunk in output])
        cutting.cancel()
        assert got == b"".join(b"line %d\n" % n for n in range(1, 151))[first.offset :]


async def test_who_takes_nothing_for_long_goes_on_all_the_same(make_worker: MakeWorker) -> None:
    """The worker ends the stream of a reader that sleeps; whoever reads on sees nothing of it."""
    worker = make_worker("--reader-patience", "1s")
    async with client_of(worker, "alice") as client:
        job = await client.start(programs.write_bytes(20 * MIB))
        await job.wait(timeout=PATIENCE)
        asked, ask = [], client.connection.stream

        def stream(method: str, request: bytes) -> AsyncGenerator[bytes, None]:
            asked.append(request)
            return ask(method, request)

        client.connection.stream = stream  # type: ignore[method-assign]
        data = b""
        async for chunk in job.output(tail_bytes=20 * MIB, timeout=PATIENCE):
            assert chunk.offset == len(data)
            if not data:
                await asyncio.sleep(2.5)  # the reader that is slow
            data += chunk.data
        assert data == (b"\x01\xffbinary\n" * 3_000_000)[: 20 * MIB]
        assert len(asked) == 2


async def test_the_end_of_stderr_comes_with_a_failure(alice: Client) -> None:
    """Its last bytes, however much was written to stdout after them."""
    job = await alice.start(programs.sh("echo begin >&2; seq 3000 >&2; seq 100000; exit 3"))
    result = await job.wait(timeout=PATIENCE)
    expected = b"begin\n" + b"".join(b"%d\n" % n for n in range(1, 3001))
    assert result.stderr_tail == expected[-4096:]


async def test_the_oldest_are_kept_and_the_rest_is_one_gap_at_least(alice: Client) -> None:
    cap = OutputCap(max_bytes=MIB, keep=Keep.OLDEST)
    gaps: list[Gap] = []
    done = await alice.run(programs.write_bytes(3 * MIB), output_cap=cap, on_gap=gaps.append)
    assert len(done.stdout) == MIB
    assert (gaps[0].start, gaps[-1].end) == (MIB, 3 * MIB)
    assert {gap.reason for gap in gaps} == {jobctl.GapReason.CAP}
    assert all(before.end == after.start for before, after in pairwise(gaps))
    record = await alice.job(done.job_id).refresh()
    assert record.output is not None
    assert (record.output.size, record.output.dropped, record.output.cap) == (3 * MIB, 2 * MIB, cap)
    with pytest.raises(jobctl.OutputGap):
        await said(alice.job(done.job_id))


async def test_a_connection_that_breaks_where_nothing_is_stored_any_more(worker: Worker) -> None:
    """What comes next is beyond all that is stored; it is asked for, and told, all the same."""
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        script = (
            f"yes | head -c {2 * MIB}; i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo more; sleep 0.01; done"
        )
        cap = OutputCap(max_bytes=MIB, keep=Keep.OLDEST)
        job = await client.start(programs.sh(script), output_cap=cap)
        gaps: list[Gap] = []

        def told(gap: Gap) -> None:
            gaps.append(gap)
            if len(gaps) == 1:
                proxy.cut()

        output = job.output(on_gap=told, timeout=PATIENCE)
        assert sum([len(chunk.data) async for chunk in output]) == MIB
        assert (gaps[0].start, gaps[-1].end) == (MIB, 2 * MIB + 250)
        assert all(before.end == after.start for before, after in pairwise(gaps))
        assert proxy.connections >= 3
        assert output.result is not None


async def test_the_newest_are_kept_and_what_is_gone_is_a_gap(alice: Client) -> None:
    job = await alice.start(
        programs.write_bytes(3 * MIB), output_cap=OutputCap(max_bytes=MIB, keep=Keep.NEWEST)
    )
    await job.wait(timeout=PATIENCE)
    gaps: list[Gap] = []
    kept = await said(job, on_gap=gaps.append)
    (gap,) = gaps
    assert (gap.start, gap.end) == (0, 3 * MIB - len(kept))
    assert 0 < len(kept) <= MIB
    assert kept == ((b"\x01\xffbinary\n" * 400_000)[: 3 * MIB])[gap.end :]
    assert await said(job, offset=gap.end) == kept


async def test_a_job_that_has_reached_its_cap_waits(alice: Client) -> None:
    cap = OutputCap(max_bytes=MIB, keep=Keep.ALL)
    job = await alice.start(programs.write_bytes(3 * MIB), output_cap=cap)
    assert len(await said(job, until_offset=MIB)) == MIB
    record = await job.refresh()
    assert record.output is not None
    assert (record.output.blocked, record.output.dropped) == (jobctl.OutputBlock.CAP, 0)
    await job.stop(grace=0)


@pytest.mark.parametrize("cap", [OutputCap(max_bytes=MIB, keep=9), OutputCap(max_bytes=-1)])
async def test_caps_that_there_are_not(alice: Client, cap: OutputCap) -> None:
    with pytest.raises(jobctl.InvalidArgument) as raised:
        await alice.start(["true"], output_cap=cap)
    assert raised.value.field.startswith("spec.output_cap")
