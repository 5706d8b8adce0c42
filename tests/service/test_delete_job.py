"""DeleteJob: a job that has ended, its output and its scratch directory."""

import uuid
from contextlib import aclosing

from grpclib.const import Status

from generated.jobworker.v1 import Chunk, DeleteJobRequest, JobSpec, StartJobRequest
from tests.harness import Worker, programs
from tests.service.client import Client, collect, next_of, refusal


async def test_nothing_of_it_is_left(alice: Client, worker: Worker) -> None:
    job = await alice.start(*programs.sh("echo out; echo data > file; mkdir -p a/b; pwd"))
    await alice.wait(job.job_id)
    assert worker.job_directory(job.job_id).exists()
    await alice.jobs.delete_job(DeleteJobRequest(job_id=job.job_id))
    assert not worker.job_directory(job.job_id).exists()
    assert (await refusal(alice.get(job.job_id))).status is Status.NOT_FOUND
    again = await refusal(alice.jobs.delete_job(DeleteJobRequest(job_id=job.job_id)))
    assert again.status is Status.NOT_FOUND


async def test_a_job_that_runs_is_kept(alice: Client) -> None:
    job = await alice.start(*programs.sleep())
    refused = await refusal(alice.jobs.delete_job(DeleteJobRequest(job_id=job.job_id)))
    assert refused.status is Status.FAILED_PRECONDITION
    assert refused.detail.hint
    await alice.stop(job.job_id)


async def test_only_the_owner_and_an_admin(alice: Client, bob: Client, carol: Client, root: Client) -> None:
    job = await alice.start("/bin/true")
    await alice.wait(job.job_id)
    request = DeleteJobRequest(job_id=job.job_id)
    assert (await refusal(bob.jobs.delete_job(request))).status is Status.NOT_FOUND
    assert (await refusal(carol.jobs.delete_job(request))).status is Status.PERMISSION_DENIED
    await root.jobs.delete_job(request)


async def test_who_takes_its_id_sees_nothing_of_it(alice: Client, bob: Client) -> None:
    """Not even while somebody still reads it, who then reads it to the end."""
    size = 20_000_000
    request = StartJobRequest(spec=JobSpec(argv=programs.write_bytes(size)), job_id=str(uuid.uuid4()))
    job_id = (await alice.jobs.start_job(request)).job.job_id
    await alice.wait(job_id)
    async with aclosing(alice.follow(job_id)) as reading:
        first = await next_of(reading)
        assert isinstance(first, Chunk)
        await alice.jobs.delete_job(DeleteJobRequest(job_id=job_id))
        request.spec = JobSpec(argv=programs.say(out="bob's"))
        await bob.jobs.start_job(request)
        assert (await bob.wait(job_id)).owner == "bob"
        assert (await collect(bob.follow(job_id))).out == b"bob's"
        assert len(first.data) + len((await collect(reading)).out) == size
    assert (await collect(bob.follow(job_id))).out == b"bob's"
