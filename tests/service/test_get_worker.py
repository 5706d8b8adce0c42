"""GetWorker: what this worker is, and who the caller is to it."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from generated.jobworker.v1 import CgroupMode, GetWorkerRequest, Keep, OutputCap, Retention, Role
from jobwire import __version__
from tests.harness import Worker, programs
from tests.service.client import Client, connected

MakeWorker = Callable[..., Worker]


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


async def test_it_tells_where_output_is_stored(alice: Client, worker: Worker) -> None:
    before = (await alice.worker.get_worker(GetWorkerRequest())).storage
    assert before is not None
    assert before.retention == Retention(max_bytes=32 * 2**30, max_age=timedelta(days=30), max_jobs=10_000)
    assert before.default_cap == OutputCap(max_bytes=4 * 2**30, keep=Keep(Keep.NEWEST))
    assert before.blocked_jobs == 0
    job = await alice.start(*programs.write_bytes(1_000_000))
    await alice.wait(job.job_id)
    after = (await alice.worker.get_worker(GetWorkerRequest())).storage
    assert after is not None
    assert 1_000_000 <= after.ended_bytes - before.ended_bytes < 1_100_000
    space = os.statvfs(worker.state / "jobs")
    assert abs(after.free_bytes - space.f_bavail * space.f_frsize) < 2**30


async def test_what_is_switched_off_is_absent(make_worker: MakeWorker) -> None:
    off = [f"--{name}=none" for name in ("output-cap", "retain-bytes", "retain-for", "retain-jobs")]
    async with connected(make_worker(*off)) as alice:
        storage = (await alice.worker.get_worker(GetWorkerRequest())).storage
    assert storage is not None
    assert (storage.retention, storage.default_cap) == (Retention(), OutputCap())


async def test_it_tells_which_limits_it_cannot_enforce(alice: Client) -> None:
    told = await alice.worker.get_worker(GetWorkerRequest())
    missing = {entry.limit for entry in told.limits_not_enforced}
    assert all(entry.reason for entry in told.limits_not_enforced)
    for limit, controller in {"cpus": "cpu", "memory_bytes": "memory", "pids": "pids"}.items():
        assert (limit in missing) == (controller not in told.controllers)
