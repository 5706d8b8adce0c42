"""Stopping and signalling: who and when, the grace, the whole tree."""

import asyncio
from datetime import timedelta

import pytest

from generated.jobworker.v1 import EndReason, JobRecord, JobSpec
from jobwire.codec import decode
from jobworker.errors import (
    FailedPrecondition,
)
from tests.harness import probes, programs
from tests.harness.domain import ALICE, ROOT, Domain, reason, until_output
from tests.harness.processes import alive, leaves_of


def output(domain: Domain, job_id: str) -> str:
    return (domain.state.job(job_id) / "output.log").read_text()


async def test_stop_tells_who_and_when_and_is_idempotent(domain: Domain) -> None:
    record = await domain.start(*programs.sleep())
    stopped = await domain.jobs.stop(ROOT, record.job_id, signal=None, grace=None)
    assert stopped.stopped_by == "root"
    at = stopped.stopped_at
    again = await domain.jobs.stop(ALICE, record.job_id, signal=None, grace=None)
    assert (again.stopped_by, again.stopped_at) == ("root", at)
    ended = await domain.wait(record.job_id)
    assert ended.termination is not None
    assert (reason(ended), ended.termination.stopped_by) == (EndReason.STOPPED, "root")
    assert await domain.jobs.stop(ALICE, record.job_id, signal=9, grace=None) == ended


async def test_stop_uses_the_specs_signal_and_grace(domain: Domain) -> None:
    script = "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done"
    record = await domain.start("/bin/sh", "-c", script, stop_signal=10)
    await until_output(domain, record.job_id, "ready")
    await domain.jobs.stop(ALICE, record.job_id, signal=None, grace=None)
    ended = await domain.wait(record.job_id)
    assert ended.termination is not None
    assert (reason(ended), ended.termination.exit_code) == (EndReason.STOPPED, 7)


async def test_a_job_that_ignores_the_signal_is_killed_after_the_grace(domain: Domain) -> None:
    record = await domain.start(*programs.ignore_term(), stop_grace=timedelta(milliseconds=100))
    await until_output(domain, record.job_id, "ready")
    await domain.jobs.stop(ALICE, record.job_id, signal=None, grace=None)
    ended = await domain.wait(record.job_id)
    assert ended.termination is not None
    assert (reason(ended), ended.termination.signal) == (EndReason.STOPPED, 9)


@probes.needs_root
@probes.needs_cgroup2
async def test_stopping_kills_sessions_that_were_forked(domain: Domain) -> None:
    record = await domain.start(*programs.fork_sessions(20))
    await until_output(domain, record.job_id, "ready")
    members = [(leaf / "cgroup.procs").read_text().split() for leaf in leaves_of(domain.path)]
    tree = {int(pid) for pids in members if str(record.pid) in pids for pid in pids}
    assert len(tree) > 20
    await domain.jobs.stop(ALICE, record.job_id, signal=None, grace=timedelta(0))
    await domain.wait(record.job_id)
    assert [pid for pid in tree if alive(pid)] == []


async def test_a_job_that_is_starting_is_stopped_once_it_runs(domain: Domain) -> None:
    spec = JobSpec(argv=programs.sleep())
    task = asyncio.create_task(domain.jobs.start(ALICE, spec, request_id="", job_id=None))
    await asyncio.sleep(0)
    (page, _) = domain.jobs.list(ALICE, None, page_size=0, page_token="")
    job_id = decode(JobRecord, page[0]).job_id
    await domain.jobs.stop(ALICE, job_id, signal=None, grace=None)
    assert (await task).job_id == job_id
    assert reason(await domain.wait(job_id)) == EndReason.STOPPED


async def test_signals_to_the_main_process_and_to_the_tree(domain: Domain) -> None:
    script = "trap 'echo main' USR1; (trap 'echo child' USR1; echo ready; while :; do sleep 0.05; done) & while :; do wait; done"
    record = await domain.start("/bin/sh", "-c", script)
    await until_output(domain, record.job_id, "ready")
    await domain.jobs.signal(ALICE, record.job_id, signal=10, tree=False)
    await until_output(domain, record.job_id, "main")
    assert "child" not in output(domain, record.job_id)
    await domain.jobs.signal(ALICE, record.job_id, signal=10, tree=True)
    await until_output(domain, record.job_id, "child")
    await domain.jobs.signal(ALICE, record.job_id, signal=9, tree=False)
    ended = await domain.wait(record.job_id)
    assert ended.termination is not None
    assert (reason(ended), ended.termination.signal) == (EndReason.SIGNALED, 9)
    with pytest.raises(FailedPrecondition, match="has ended"):
        await domain.jobs.signal(ALICE, record.job_id, signal=9, tree=False)
