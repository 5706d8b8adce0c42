"""StopJob: the whole tree, idempotent, at once with no grace."""

from datetime import timedelta

import pytest
from grpclib.const import Status

from generated.jobworker.v1 import EndReason, JobState
from tests.harness import programs
from tests.service.client import Client, Run, refusal, until_said


async def test_a_job_is_stopped_and_says_by_whom(alice: Client) -> None:
    job = await alice.start(*programs.sleep())
    stopping = await alice.stop(job.job_id)
    assert stopping.state in (JobState.STOPPING, JobState.ENDED)
    assert stopping.stopped_by == "alice"
    ended = await alice.wait(job.job_id)
    assert ended.termination is not None
    assert (ended.termination.reason, ended.termination.stopped_by) == (EndReason.STOPPED, "alice")
    assert ended.termination.survivors == 0


async def test_stopping_again_changes_nothing(alice: Client) -> None:
    job = await alice.start(*programs.sleep())
    await alice.stop(job.job_id)
    ended = await alice.wait(job.job_id)
    assert await alice.stop(job.job_id) == ended


async def test_a_tree_that_ignores_the_signal_is_killed_after_the_grace(alice: Client) -> None:
    job = await alice.start(*programs.fork_sessions(50))
    await until_said(alice, job.job_id, b"ready")
    await alice.stop(job.job_id, grace=timedelta(milliseconds=100))
    ended = await alice.wait(job.job_id)
    assert ended.termination is not None
    assert (ended.termination.reason, ended.termination.survivors) == (EndReason.STOPPED, 0)


async def test_no_grace_kills_at_once(alice: Client) -> None:
    job = await alice.start(*programs.ignore_term())
    await until_said(alice, job.job_id, b"ready")
    await alice.stop(job.job_id, grace=timedelta(0))
    ended = await alice.wait(job.job_id)
    assert ended.termination is not None
    assert ended.termination.signal == 9


async def test_the_signal_may_be_chosen(alice: Client) -> None:
    job = await alice.start(*programs.sh("trap 'exit 42' INT; echo ready; while :; do sleep 0.05; done"))
    await until_said(alice, job.job_id, b"ready")
    await alice.stop(job.job_id, signal=2)
    ended = await alice.wait(job.job_id)
    assert ended.termination is not None
    assert (ended.termination.reason, ended.termination.exit_code) == (EndReason.STOPPED, 42)


async def test_followers_are_told_the_end(alice: Client, carol: Client) -> None:
    job = await alice.start(*programs.ready_then_sleep())
    run = Run()
    async for event in carol.follow(job.job_id):
        run.events.append(event)
        if run.out == b"ready\n":
            await alice.stop(job.job_id)
    assert run.end.termination is not None
    assert run.end.termination.reason == EndReason.STOPPED


async def test_only_the_owner_and_an_admin_stop_it(
    alice: Client, bob: Client, carol: Client, root: Client
) -> None:
    job = await alice.start(*programs.sleep())
    assert (await refusal(bob.stop(job.job_id))).status is Status.NOT_FOUND
    assert (await refusal(carol.stop(job.job_id))).status is Status.PERMISSION_DENIED
    await root.stop(job.job_id)
    ended = await alice.wait(job.job_id)
    assert ended.termination is not None
    assert ended.termination.stopped_by == "root"


@pytest.mark.parametrize(
    ("field", "fields"), [("signal", {"signal": 65}), ("grace", {"grace": timedelta(seconds=-1)})]
)
async def test_bad_fields_are_named(alice: Client, field: str, fields: dict[str, object]) -> None:
    refused = await refusal(alice.stop("any", **fields))
    assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, field)
