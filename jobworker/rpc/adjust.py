"""JobService's verbs that change a running job: each is one call of `Adjustments`, and its answer encoded."""

from __future__ import annotations

from generated.jobworker import v1
from jobworker.adjust import Adjustments
from jobworker.jobs import Jobs
from jobworker.rpc.calls import Call
from jobworker.rpc.jobs import job_answer


class AdjustVerbs:
    """What the door calls for PauseJob, ResumeJob and UpdateJob."""

    def __init__(self, jobs: Jobs) -> None:
        self._adjust = Adjustments(jobs)

    async def pause_job(self, call: Call, request: v1.PauseJobRequest) -> bytes:
        call.subject = request.job_id
        return job_answer(await self._adjust.pause(call.caller, request.job_id))

    async def resume_job(self, call: Call, request: v1.ResumeJobRequest) -> bytes:
        call.subject = request.job_id
        return job_answer(await self._adjust.resume(call.caller, request.job_id))

    async def update_job(self, call: Call, request: v1.UpdateJobRequest) -> bytes:
        call.subject = request.job_id
        record = await self._adjust.update(
            call.caller,
            request.job_id,
            request.limits,
            lift=request.lift,
            best_effort=request.best_effort,
        )
        return job_answer(record)
