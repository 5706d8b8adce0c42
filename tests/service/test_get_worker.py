"""GetWorker: what this worker is, and who the caller is to it."""

import os
from datetime import UTC, datetime

from generated.jobworker.v1 import CgroupMode, GetWorkerRequest, Role
from jobwire import __version__
from tests.harness import Worker, programs
from tests.service.client import Client


async def test_it_tells_itself_and_the_caller(alice: Client, carol: Client, worker: Worker) -> None:
    told = await alice.worker.get_worker(GetWorkerRequest())
    assert (told.version, told.hostname, told.kernel) == (
        __version__,
        os.uname().nodename,
        os.uname().release,
    )
    assert (told.client_id, told.role) == ("alice", Role.OPERATOR)
    assert told.supervisor_pid == worker.supervisor_pid
    assert told.cgroup_mode != CgroupMode.UNSPECIFIED
    assert told.started_at <= datetime.now(UTC)
    assert (await carol.worker.get_worker(GetWorkerRequest())).role == Role.VIEWER


async def test_it_counts_jobs(alice: Client) -> None:
    before = await alice.worker.get_worker(GetWorkerRequest())
    job = await alice.start(*programs.sleep())
    during = await alice.worker.get_worker(GetWorkerRequest())
    assert during.jobs_running == before.jobs_running + 1
    await alice.stop(job.job_id)
    await alice.wait(job.job_id)
    after = await alice.worker.get_worker(GetWorkerRequest())
    assert (after.jobs_running, after.jobs_ended) == (before.jobs_running, before.jobs_ended + 1)
