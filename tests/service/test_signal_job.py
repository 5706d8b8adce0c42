"""SignalJob: any signal, to the main process or to the tree."""

import pytest
from grpclib.const import Status

from generated.jobworker.v1 import EndReason, SignalJobRequest
from tests.harness import programs
from tests.service.client import Client, refusal, until_said


async def test_the_main_process_gets_it(alice: Client) -> None:
    job = await alice.start(
        *programs.sh("trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.05; done")
    )
    await until_said(alice, job.job_id, b"ready")
    await alice.jobs.signal_job(SignalJobRequest(job_id=job.job_id, signal=10))
    ended = await alice.wait(job.job_id)
    assert ended.termination is not None
    assert (ended.termination.reason, ended.termination.exit_code) == (EndReason.EXITED, 7)


async def test_the_tree_gets_it(alice: Client) -> None:
    script = (
        "trap '' USR1; (trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.05; done) & wait; wait"
    )
    job = await alice.start(*programs.sh(script))
    await until_said(alice, job.job_id, b"ready")
    await alice.jobs.signal_job(SignalJobRequest(job_id=job.job_id, signal=10, tree=True))
    await until_said(alice, job.job_id, b"child")
    await alice.wait(job.job_id)


async def test_a_signal_that_ends_it_is_the_reason(alice: Client) -> None:
    job = await alice.start(*programs.sleep())
    await alice.jobs.signal_job(SignalJobRequest(job_id=job.job_id, signal=9))
    ended = await alice.wait(job.job_id)
    assert ended.termination is not None
    assert (ended.termination.reason, ended.termination.signal) == (EndReason.SIGNALED, 9)


async def test_a_job_that_has_ended_takes_none(alice: Client) -> None:
    job = await alice.start("/bin/true")
    await alice.wait(job.job_id)
    refused = await refusal(alice.jobs.signal_job(SignalJobRequest(job_id=job.job_id, signal=9)))
    assert refused.status is Status.FAILED_PRECONDITION


@pytest.mark.parametrize("signal", [-1, 0, 65])
async def test_a_number_that_is_no_signal(alice: Client, signal: int) -> None:
    refused = await refusal(alice.jobs.signal_job(SignalJobRequest(job_id="any", signal=signal)))
    assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, "signal")


async def test_another_clients_job_is_not_there(alice: Client, bob: Client) -> None:
    job = await alice.start(*programs.sleep())
    refused = await refusal(bob.jobs.signal_job(SignalJobRequest(job_id=job.job_id, signal=9)))
    assert refused.status is Status.NOT_FOUND
    await alice.jobs.signal_job(SignalJobRequest(job_id=job.job_id, signal=9))
