"""GetJob: everything that is known, live while the job runs."""

import uuid

from grpclib.const import Status

from generated.jobworker.v1 import GetJobRequest, JobState
from tests.harness import programs
from tests.service.client import Client, refusal, until_said


async def test_a_running_job_tells_its_use_and_output_of_now(alice: Client) -> None:
    job = await alice.start(*programs.ready_then_sleep())
    await until_said(alice, job.job_id, b"ready")
    now = await alice.get(job.job_id)
    assert now.state == JobState.RUNNING
    assert now.output is not None
    assert now.output.size == 6
    assert now.usage is not None
    assert now.usage.cpu_user_usec is not None
    await alice.stop(job.job_id)


async def test_an_ended_job_tells_how_it_ended(alice: Client) -> None:
    job = await alice.start(*programs.say(out="12345", exit_code=9))
    waited = await alice.wait(job.job_id)
    ended = await alice.get(job.job_id)
    assert ended == waited
    assert ended.state == JobState.ENDED
    assert ended.termination is not None
    assert ended.termination.exit_code == 9
    assert ended.output is not None
    assert ended.output.size == 5
    assert ended.ended_at is not None
    assert ended.started_at is not None
    assert ended.ended_at >= ended.started_at


async def test_another_clients_job_and_no_job_are_told_in_the_same_words(alice: Client, bob: Client) -> None:
    job = await alice.start("/bin/true")
    theirs = await refusal(bob.get(job.job_id))
    other = str(uuid.uuid4())
    none = await refusal(bob.get(other))
    assert theirs.status is none.status is Status.NOT_FOUND
    assert theirs.message.replace(job.job_id, other) == none.message
    assert theirs.detail.hint == none.detail.hint


async def test_admin_and_viewer_see_it(alice: Client, root: Client, carol: Client) -> None:
    job = await alice.start("/bin/true")
    assert (await root.get(job.job_id)).owner == "alice"
    assert (await carol.get(job.job_id)).owner == "alice"


async def test_an_id_that_cannot_be_one_is_refused(alice: Client) -> None:
    for job_id in ("", "../../etc/passwd", "a\0b", "x" * 65):
        refused = await refusal(alice.jobs.get_job(GetJobRequest(job_id=job_id)))
        assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, "job_id")
