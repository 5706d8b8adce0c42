"""Ended jobs are deleted when they are too many, too large or too old; at the end of a job, by time, at the start."""

import asyncio
import errno
import os
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker import leftovers
from jobworker.endedjobs import disk_bytes
from jobworker.errors import NotFound
from jobworker.follow import follow
from jobworker.keeping import Keeping
from jobworker.outputs import Outputs
from jobworker.retention import Limits
from jobworker.span import Span
from tests.harness import programs
from tests.harness.domain import ALICE, PATIENCE, Domain, running
from tests.harness.outputlog import data_of, parse


def keep(**limits: object) -> Keeping:
    return Keeping(retention=Limits(**limits))  # type: ignore[arg-type]


async def ended(domain: Domain, *argv: str) -> str:
    """The id of a job that has run to its end."""
    record = await domain.start(*(argv or ("true",)))
    await domain.wait(record.job_id)
    return record.job_id


async def until(condition: Callable[[], bool]) -> None:
    """Deletion goes on beside the loop and tells nobody."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def assert_gone(domain: Domain, *job_ids: str) -> None:
    await until(lambda: not {*job_ids} & {*domain.directories()} and is_settled(domain))
    assert aside(domain) == []
    for job_id in job_ids:
        with pytest.raises(NotFound):
            await domain.jobs.get(ALICE, job_id)


def is_settled(domain: Domain) -> bool:
    cleaning = domain.jobs._cleaning
    return domain.jobs._retention._deleting is None and (cleaning is None or cleaning.done())


def aside(domain: Domain) -> list[str]:
    names = [*os.listdir(domain.state.jobs), *os.listdir(domain.state.scratch)]
    return [name for name in names if name.startswith(leftovers.ASIDE)]


async def test_the_oldest_go_when_there_are_too_many() -> None:
    async with running(kept=keep(max_jobs=3)) as domain:
        sleeper = await domain.start(*programs.sleep())
        jobs = [await ended(domain) for _ in range(6)]
        await assert_gone(domain, *jobs[:3])
        assert domain.jobs.counts() == (1, 3)
        assert {sleeper.job_id, *jobs[3:]} == {*domain.directories()} == {*os.listdir(domain.state.scratch)}


async def test_the_oldest_go_when_they_take_too_much() -> None:
    async with running(kept=keep(max_bytes=1_500_000)) as domain:
        small = await ended(domain, *programs.say(out="x"))
        large = await ended(domain, *programs.write_bytes(1_000_000))
        assert domain.jobs.ended_bytes == sum(disk_bytes(domain.state.job(job)) for job in (small, large))
        assert 1_000_000 <= domain.jobs.ended_bytes < 1_500_000
        larger = await ended(domain, *programs.write_bytes(3_000_000))
        await assert_gone(domain, small, large)
        assert 3_000_000 <= domain.jobs.ended_bytes < 3_100_000, "the last one stays, whatever it takes"
        assert (await domain.jobs.get(ALICE, larger)).output is not None


async def test_the_oldest_go_when_their_time_has_come() -> None:
    async with running(kept=keep(max_age=timedelta(seconds=0.3))) as domain:
        sleeper = await domain.start(*programs.sleep())
        first = await ended(domain)
        await asyncio.sleep(0.1)
        second = await ended(domain)
        await assert_gone(domain, first)
        await assert_gone(domain, second)
        assert domain.jobs.counts() == (1, 0)
        assert domain.directories() == [sleeper.job_id]
        third = await ended(domain)
        await assert_gone(domain, third)


async def test_what_became_too_much_meanwhile_goes_at_the_start() -> None:
    async with running() as domain:
        jobs = [await ended(domain) for _ in range(150)]
        await domain.close()
        domain.kept = keep(max_jobs=2)
        await domain.open()
        await assert_gone(domain, *jobs[:148])
        assert {*domain.directories()} == {*jobs[148:]}


async def test_jobs_that_ended_unseen_are_measured_at_the_start() -> None:
    async with running() as domain:
        job = await ended(domain, *programs.write_bytes(100_000))
        measured = domain.jobs.ended_bytes
        domain.database.write(("UPDATE jobs SET output_bytes = NULL", ()))
        await domain.crash()
        await domain.open()
        assert domain.jobs.ended_bytes == measured == disk_bytes(domain.state.job(job)) >= 100_000


async def test_a_deletion_by_a_client_counts() -> None:
    async with running(kept=keep(max_jobs=2)) as domain:
        first, second = [await ended(domain) for _ in range(2)]
        await domain.jobs.delete(ALICE, first)
        third = await ended(domain)
        assert domain.jobs.counts() == (0, 2)
        await domain.restart()
        assert {*domain.directories()} == {second, third}


async def test_a_start_that_failed_counts_too() -> None:
    async with running(kept=keep(max_jobs=1)) as domain:
        with pytest.raises(Exception, match="no-such-program"):
            await domain.start("no-such-program")
        with pytest.raises(Exception, match="no-such-user"):
            await domain.start("true", user="no-such-user")
        job = await ended(domain)
        await until(lambda: domain.jobs.counts() == (0, 1))
        assert domain.directories() == [job]


async def test_a_crash_in_the_middle_is_cleaned_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Set aside and not forgotten; forgotten and not removed."""
    async with running(kept=keep(max_jobs=1)) as domain:

        def refuse(*_: object) -> None:
            raise OSError(errno.EIO, "the power is gone")

        jobs = [await ended(domain)]
        for is_forgotten in (False, True):
            with monkeypatch.context() as patch:
                patch.setattr(leftovers, "remove", refuse)
                if not is_forgotten:
                    patch.setattr(domain.jobs._store, "delete", refuse)
                jobs.append(await ended(domain))
                await until(lambda: bool(aside(domain)) and domain.jobs._retention._deleting is None)
            assert domain.jobs.counts() == (0, 1 if is_forgotten else 2)
            await domain.crash()
            await domain.open()
            await assert_gone(domain, *jobs[:-1])
            assert (await domain.jobs.get(ALICE, jobs[-1])).job_id == jobs[-1]


async def test_a_failure_is_tried_again_and_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobworker.retention.RETRY_SECONDS", 0.05)
    failing = [True]
    set_aside = leftovers.set_aside

    def fail_at_first(*args: object) -> list[Path]:
        if failing and failing.pop():
            raise OSError(errno.EROFS, "read-only file system")
        return set_aside(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(leftovers, "set_aside", fail_at_first)
    async with running(kept=keep(max_jobs=1)) as domain:
        first, second = [await ended(domain) for _ in range(2)]
        await assert_gone(domain, first)
        assert domain.directories() == [second]
    assert "tried again in a minute: [Errno 30]" in caplog.text


async def test_following_a_job_that_goes_reaches_its_end() -> None:
    """The files are open, so nothing is missed."""
    async with running(kept=keep(max_jobs=1)) as domain:
        outputs = Outputs()
        first = await ended(domain, *programs.write_bytes(2_000_000))
        source = domain.jobs.output(ALICE, first)
        async with aclosing(follow(source, outputs=outputs, span=Span(follow=True))) as batches:
            events = parse(await anext(batches))
            await ended(domain)
            await assert_gone(domain, first)
            async for batch in batches:
                events += parse(batch)
        assert len(data_of(events)) == 2_000_000
        outputs.close()
