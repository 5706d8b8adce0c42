"""Changes to a job that ends before they are written down."""

from datetime import timedelta
from typing import Any

import pytest

from generated.jobworker.v1 import Limits
from jobworker.adjust import Adjustments
from jobworker.lifecycle import ENDED
from jobworker.livejobs import LiveJob
from jobworker.supervisorconnection import Reply
from tests.harness import programs
from tests.harness.domain import ALICE, Domain
from tests.harness.probes import needs_cgroup2


@needs_cgroup2
async def test_a_job_that_has_ended_stays_as_it_ended(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = domain.jobs.change

    async def change_as_the_last_thing(job: LiveJob, request: dict[str, Any]) -> Reply:
        reply = await change(job, request)
        await domain.jobs.stop(ALICE, job.record.job_id, signal=9, grace=timedelta(0))
        await domain.wait(job.record.job_id)
        return reply

    monkeypatch.setattr(domain.jobs, "change", change_as_the_last_thing)
    paused = await domain.start(*programs.sleep())
    answer = await Adjustments(domain.jobs).pause(ALICE, paused.job_id)
    assert (answer.state, answer.paused) == (ENDED, False)
    limited = await domain.start(*programs.sleep())
    answer = await Adjustments(domain.jobs).update(
        ALICE, limited.job_id, Limits(nice=5), lift=(), best_effort=False
    )
    assert (answer.state, answer.limits_in_force) == (ENDED, None)
    await domain.restart()
    for job in (paused, limited):
        kept = await domain.jobs.get(ALICE, job.job_id)
        assert (kept.state, kept.paused, kept.limits_in_force) == (ENDED, False, None)
