"""Looking: get, list, wait, where the output is, and what others may see."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from generated.jobworker.v1 import EndReason, JobFilter, JobRecord, JobState
from jobwire.codec import decode
from jobworker.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from jobworker.policy import Caller
from tests.harness import programs
from tests.harness.domain import ALICE, BOB, CAROL, NO_SUCH_JOB, PATIENCE, ROOT, Domain, reason, until_output
from tests.harness.processes import alive


def output(domain: Domain, job_id: str) -> str:
    return (domain.state.job(job_id) / "output.log").read_text()


async def test_a_running_job_shows_what_it_uses_now(domain: Domain) -> None:
    record = await domain.start(*programs.ready_then_sleep())
    await until_output(domain, record.job_id, "ready")
    now = await domain.jobs.get(ALICE, record.job_id)
    assert now.usage is not None
    assert now.output is not None
    assert now.output.size == len("ready\n")
    assert now.pid is not None
    assert alive(now.pid)


async def test_others_jobs_do_not_exist(domain: Domain) -> None:
    mine = (await domain.start(*programs.sleep())).job_id
    calls: list[Callable[[Caller, str], Awaitable[object]]] = [
        domain.jobs.get,
        domain.jobs.wait,
        lambda caller, job: domain.jobs.stop(caller, job, signal=None, grace=None),
        lambda caller, job: domain.jobs.signal(caller, job, signal=9, tree=False),
        domain.jobs.delete,
        as_coroutine(domain.jobs.output),
    ]
    for call in calls:
        with pytest.raises(NotFound) as others:
            await call(BOB, mine)
        with pytest.raises(NotFound) as nobodys:
            await call(ALICE, NO_SUCH_JOB)
        assert str(others.value).replace(mine, NO_SUCH_JOB) == str(nobodys.value) == f"no job '{NO_SUCH_JOB}'"
    for call in calls[2:5]:
        with pytest.raises(PermissionDenied):
            await call(CAROL, mine)
    assert (await domain.jobs.get(CAROL, mine)).job_id == (await domain.jobs.get(ROOT, mine)).job_id == mine
    assert domain.jobs.counts() == (1, 0)


def as_coroutine(call: Callable[[Caller, str], object]) -> Callable[[Caller, str], Awaitable[object]]:
    async def called(caller: Caller, job_id: str) -> object:
        return call(caller, job_id)

    return called


async def test_lists_hold_what_the_caller_may_see_and_asked_for(domain: Domain) -> None:
    first = (await domain.start("true", name="build", labels={"ci": "1"})).job_id
    second = (await domain.start(*programs.sleep(), name="build")).job_id
    theirs = (await domain.start("true", caller=BOB)).job_id
    await asyncio.gather(domain.wait(first), domain.wait(theirs, caller=BOB))

    def ids(caller: Caller, **selection: object) -> list[str]:
        chosen = JobFilter(**selection) if selection else None  # type: ignore[arg-type]
        page, token = domain.jobs.list(caller, chosen, page_size=0, page_token="")
        assert token == ""
        return [decode(JobRecord, record).job_id for record in page]

    assert ids(ALICE) == [second, first]
    assert ids(BOB) == [theirs]
    assert ids(CAROL) == ids(ROOT) == [theirs, second, first]
    assert ids(ALICE, owner="bob") == []
    assert ids(ROOT, owner="bob") == [theirs]
    assert ids(ALICE, name="build", states=[JobState(JobState.ENDED)]) == [first]
    assert ids(ALICE, states=[JobState(JobState.RUNNING)]) == [second]
    assert ids(ALICE, labels={"ci": "1"}) == [first]
    assert ids(ALICE, id_prefix=first) == [first]


async def test_pages_follow_each_other_and_tokens_are_checked(domain: Domain) -> None:
    ids = [(await domain.start("true")).job_id for _ in range(5)]
    found, token = [], ""
    while True:
        page, token = domain.jobs.list(ALICE, None, page_size=2, page_token=token)
        found += [decode(JobRecord, record).job_id for record in page]
        if not token:
            break
    assert found == ids[::-1]
    for wrong in (
        "x",
        "1",
        "1.x",
        "-1." + ids[0],
        f"{2**70}.{ids[0]}",
        "1." + ids[0].upper(),
        "\N{DIGIT ONE}\N{SUPERSCRIPT TWO}." + ids[0],
    ):
        with pytest.raises(InvalidArgument) as raised:
            domain.jobs.list(ALICE, None, page_size=0, page_token=wrong)
        assert raised.value.field == "page_token"


async def test_the_end_comes_after_the_last_byte(domain: Domain) -> None:
    record = await domain.start("/bin/sh", "-c", "head -c 3000000 /dev/zero")
    source = domain.jobs.output(ALICE, record.job_id)
    assert source.directory == domain.state.job(record.job_id)
    ended = await asyncio.wait_for(asyncio.shield(source.ended), PATIENCE)
    assert (source.directory / "output.log").stat().st_size == 3000000
    assert ended.output is not None
    assert ended.output.size == 3000000
    assert domain.jobs.output(ALICE, record.job_id).ended.result() == ended


async def test_waiters_that_leave_disturb_nobody(domain: Domain) -> None:
    record = await domain.start(*programs.sleep())
    waiters = [asyncio.create_task(domain.jobs.wait(ALICE, record.job_id)) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    await domain.jobs.stop(ALICE, record.job_id, signal=9, grace=None)
    ended = await asyncio.wait_for(asyncio.gather(*waiters[1:]), PATIENCE)
    assert [reason(record) for record in ended] == [EndReason.STOPPED] * 2
