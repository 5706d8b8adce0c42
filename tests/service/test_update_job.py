"""UpdateJob, PauseJob and ResumeJob: other limits and standing still, for one's own jobs, over a restart too."""

import pytest
from grpclib.const import Status

from generated.jobworker.v1 import (
    IoLimit,
    JobRecord,
    Limits,
    PauseJobRequest,
    ResumeJobRequest,
    RLimit,
    StartStage,
    UpdateJobRequest,
)
from tests.conftest import MakeWorker
from tests.harness import Worker, probes, programs
from tests.service.client import Client, connected, refusal

MIB = 1024 * 1024


async def update(client: Client, job_id: str, limits: Limits | None = None, **how: object) -> JobRecord:
    request = UpdateJobRequest(job_id=job_id, limits=limits, **how)  # type: ignore[arg-type]
    answer = await client.jobs.update_job(request)
    assert answer.job is not None
    return answer.job


@probes.needs_limits
async def test_limits_change_and_the_others_stay(alice: Client) -> None:
    job = await alice.start(*programs.sleep(), limits=Limits(cpus=0.5, pids=20))
    changed = await update(alice, job.job_id, Limits(pids=30, memory_bytes=64 * MIB))
    assert changed.limits_in_force == Limits(cpus=0.5, pids=30, memory_bytes=64 * MIB)
    assert changed.spec.limits == Limits(cpus=0.5, pids=20)
    lifted = await update(alice, job.job_id, lift=["cpus", "memory_bytes"])
    assert lifted.limits_in_force == Limits(pids=30)
    assert (await alice.get(job.job_id)).limits_in_force == Limits(pids=30)
    await alice.stop(job.job_id)


@probes.needs_limits
async def test_what_cannot_be_enforced_is_refused_or_told(alice: Client) -> None:
    nowhere = Limits(pids=9, io=[IoLimit(path="/sys", read_bytes_per_second=MIB)])
    refused = await refusal(alice.start("/bin/true", limits=nowhere))
    assert refused.status is Status.FAILED_PRECONDITION
    failure = refused.detail.start_failure
    assert failure is not None
    assert failure.stage == StartStage.LIMIT
    assert failure.detail == "io: '/sys': it is in a sysfs, which is on no disk"
    job = await alice.start(*programs.sleep(), limits=nowhere, best_effort_limits=True)
    assert job.limits_in_force == Limits(pids=9)
    assert [(entry.limit, entry.reason) for entry in job.limits_not_in_force] == [
        ("io", "'/sys': it is in a sysfs, which is on no disk")
    ]
    refused = await refusal(update(alice, job.job_id, nowhere))
    assert refused.status is Status.FAILED_PRECONDITION
    await alice.stop(job.job_id)
    assert (await alice.wait(job.job_id)).limits_not_in_force == job.limits_not_in_force


BAD = [
    ("limits", Limits(), []),
    ("limits.cpu_weight", Limits(cpu_weight=10_001), []),
    ("limits.nice", Limits(nice=20), []),
    ("limits.io[0].path", Limits(io=[IoLimit(path="data", read_bytes_per_second=1)]), []),
    ("limits.io[0]", Limits(io=[IoLimit(path="/data")]), []),
    ("limits.rlimits['bogus']", Limits(rlimits={"bogus": RLimit(soft=1)}), []),
    ("limits.rlimits['core']", Limits(rlimits={"core": RLimit(soft=2, hard=1)}), []),
    ("lift[0]", None, ["nice"]),
]


@pytest.mark.parametrize(("field", "limits", "lift"), BAD, ids=[field for field, _, _ in BAD])
async def test_a_bad_request_names_its_field(
    alice: Client, field: str, limits: Limits | None, lift: list[str]
) -> None:
    refused = await refusal(update(alice, "0199ffff", limits, lift=lift))
    assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, field)
    assert refused.detail.hint


async def test_only_an_admin_puts_a_job_before_others(alice: Client, root: Client) -> None:
    refused = await refusal(alice.start("/bin/true", limits=Limits(nice=-5)))
    assert refused.status is Status.PERMISSION_DENIED
    job = await alice.start(*programs.sleep(), limits=Limits(nice=3))
    assert job.limits_in_force == Limits(nice=3)
    refused = await refusal(update(alice, job.job_id, Limits(oom_score_adj=-1)))
    assert refused.status is Status.PERMISSION_DENIED
    if probes.MAY_HURRY:
        assert (await update(root, job.job_id, Limits(nice=-1))).limits_in_force == Limits(nice=-1)
    await alice.stop(job.job_id)


async def test_a_job_of_another_and_one_that_has_ended(alice: Client, bob: Client, carol: Client) -> None:
    job = await alice.start("/bin/true")
    await alice.wait(job.job_id)
    for client, status in (
        (bob, Status.NOT_FOUND),
        (carol, Status.PERMISSION_DENIED),
        (alice, Status.FAILED_PRECONDITION),
    ):
        for call in (
            update(client, job.job_id, Limits(nice=3)),
            client.jobs.pause_job(PauseJobRequest(job_id=job.job_id)),
            client.jobs.resume_job(ResumeJobRequest(job_id=job.job_id)),
        ):
            assert (await refusal(call)).status is status


@probes.needs_cgroup2
@probes.needs_root
async def test_limits_and_pause_survive_the_server(make_worker: MakeWorker) -> None:
    worker: Worker = make_worker()
    async with connected(worker, "alice") as alice:
        job = await alice.start(*programs.sleep(), limits=Limits(nice=3))
        paused = await alice.jobs.pause_job(PauseJobRequest(job_id=job.job_id))
        assert paused.job.paused
        await update(alice, job.job_id, Limits(nice=4))
    worker.restart()
    async with connected(worker, "alice") as alice:
        found = await alice.get(job.job_id)
        assert (found.paused, found.limits_in_force) == (True, Limits(nice=4))
        resumed = await alice.jobs.resume_job(ResumeJobRequest(job_id=job.job_id))
        assert not resumed.job.paused
        await alice.stop(job.job_id)
        await alice.wait(job.job_id)
