"""A job's output is capped as it asks, or as the worker is told; what is missing is told to whoever reads."""

import asyncio
from collections.abc import Callable

import pytest

from generated.jobworker.v1 import Gap, GapReason, JobRecord, JobState, Keep, OutputBlock, OutputCap
from tests.harness import Worker, programs
from tests.service.client import PATIENCE, Client, Run, collect, connected

MakeWorker = Callable[..., Worker]
WRITTEN = 600_000
WHOLE = (b"\x01\xffbinary\n" * 100_000)[:WRITTEN]
LIMIT = 100_000


def cap(keep: int) -> OutputCap:
    return OutputCap(max_bytes=LIMIT, keep=Keep(keep))


def gaps(run: Run) -> list[Gap]:
    return [event for event in run.events if isinstance(event, Gap)]


async def test_the_newest_are_kept(alice: Client) -> None:
    job = await alice.start(*programs.write_bytes(WRITTEN), output_cap=cap(Keep.NEWEST))
    ended = await alice.wait(job.job_id)
    assert ended.output is not None
    head = ended.output.head
    assert WRITTEN - LIMIT <= head <= WRITTEN - LIMIT // 2
    assert (ended.output.size, ended.output.dropped, ended.output.cap) == (WRITTEN, 0, cap(Keep.NEWEST))
    run = await collect(alice.follow(job.job_id))
    assert gaps(run) == [Gap(from_=0, to=head, reason=GapReason(GapReason.RETENTION))]
    assert run.out == WHOLE[head:]
    assert run.end.final_offset == WRITTEN


async def test_the_oldest_are_kept_and_the_rest_is_counted(alice: Client) -> None:
    job = await alice.start(*programs.write_bytes(WRITTEN), output_cap=cap(Keep.OLDEST))
    ended = await alice.wait(job.job_id)
    assert ended.output is not None
    assert (ended.output.size, ended.output.head) == (WRITTEN, 0)
    assert ended.output.dropped == WRITTEN - LIMIT
    run = await collect(alice.follow(job.job_id))
    assert gaps(run) == [Gap(from_=LIMIT, to=WRITTEN, reason=GapReason(GapReason.CAP))]
    assert run.out == WHOLE[:LIMIT]
    assert run.end.final_offset == WRITTEN


async def test_whoever_follows_misses_what_is_not_stored_and_nothing_else(alice: Client) -> None:
    for keep in (Keep.NEWEST, Keep.OLDEST):
        run = await alice.run(*programs.write_bytes(WRITTEN), output_cap=cap(keep))
        missing = sum(gap.to - gap.from_ for gap in gaps(run))
        assert len(run.out) + missing == WRITTEN == run.end.final_offset


async def blocked(client: Client, job_id: str) -> JobRecord:
    """The record once the job's output is not taken any more."""
    async with asyncio.timeout(PATIENCE):
        while True:  # the worker tells of that when asked, and only then
            record = await client.get(job_id)
            if record.output is not None and record.output.blocked:
                return record
            await asyncio.sleep(0.02)


async def test_a_job_waits_when_all_is_to_be_kept(alice: Client) -> None:
    job = await alice.start(*programs.write_bytes(WRITTEN), output_cap=cap(Keep.ALL))
    record = await blocked(alice, job.job_id)
    assert record.output is not None
    assert record.output.blocked == OutputBlock.CAP
    assert record.output.size == LIMIT
    await alice.stop(job.job_id)
    ended = await alice.wait(job.job_id)
    assert ended.output is not None
    assert not ended.output.blocked
    run = await collect(alice.follow(job.job_id))
    assert run.out == WHOLE[: ended.output.size]
    assert gaps(run) == []


async def test_the_workers_own_cap_holds_when_a_job_names_none(make_worker: MakeWorker) -> None:
    worker = make_worker("--output-cap", "64K")
    async with connected(worker) as alice:
        job = await alice.start(*programs.write_bytes(WRITTEN))
        assert job.output is not None
        assert job.output.cap == OutputCap(max_bytes=65_536, keep=Keep(Keep.NEWEST))
        ended = await alice.wait(job.job_id)
        assert ended.output is not None
        assert ended.output.size - ended.output.head <= 65_536
        unlimited = await alice.run(*programs.write_bytes(WRITTEN), output_cap=OutputCap())
        assert unlimited.out == WHOLE
    worker.restart()
    async with connected(worker) as alice:
        again = await alice.get(job.job_id)
        assert again == ended


async def test_a_worker_may_have_no_cap(make_worker: MakeWorker) -> None:
    async with connected(make_worker("--output-cap", "none")) as alice:
        job = await alice.start(*programs.say(out="x"))
        ended = await alice.wait(job.job_id)
        assert ended.output is not None
        assert ended.output.cap is None
        assert ended.state == JobState.ENDED


@pytest.mark.parametrize("limit", [1, 4095, 4096, 65_536])
async def test_caps_of_any_size(alice: Client, limit: int) -> None:
    for keep in (Keep.NEWEST, Keep.OLDEST):
        spec = OutputCap(max_bytes=limit, keep=Keep(keep))
        run = await alice.run(*programs.write_bytes(70_000), output_cap=spec)
        assert len(run.out) + sum(gap.to - gap.from_ for gap in gaps(run)) == 70_000
