"""Changes to a job that runs, short of ending it: its limits, and whether it goes on.

Decides what is asked of the supervisor and what the record says afterwards. Who may, and which job, is `Jobs`' to
say; a supervisor that refuses has changed nothing, and neither does this then.
"""

from __future__ import annotations

from collections.abc import Sequence

from generated.jobworker.v1 import JobRecord, Limits
from jobworker import limits as terms
from jobworker import records
from jobworker.errors import FailedPrecondition
from jobworker.jobs import Jobs
from jobworker.policy import Caller


class Adjustments:
    """Pause, resume, update."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def pause(self, caller: Caller, job_id: str) -> JobRecord:
        """Keeps every process of the job from running; FailedPrecondition when that cannot be had."""
        return await self._go_on(caller, job_id, paused=True)

    async def resume(self, caller: Caller, job_id: str) -> JobRecord:
        """Lets a paused job go on."""
        return await self._go_on(caller, job_id, paused=False)

    async def update(
        self, caller: Caller, job_id: str, limits: Limits | None, *, lift: Sequence[str], best_effort: bool
    ) -> JobRecord:
        """Changes limits, all or none unless `best_effort`; PermissionDenied, InvalidArgument, FailedPrecondition."""
        asked = await terms.ask(limits, field="limits")
        job = await self._jobs.running(caller, job_id)
        terms.allow_limits(caller, limits, field="limits")
        if asked.unenforced and not best_effort:
            detail = "{limit}: {reason}".format(**asked.unenforced[0])
            raise FailedPrecondition(f"job '{job_id}' stays as it is: {detail}", job_id=job_id)
        request = {"op": "update", "limits": asked.limits, "unenforced": asked.unenforced}
        reply = await self._jobs.change(job, {**request, "lift": list(lift), "best_effort": best_effort})
        if not job.ended.done():  # else all of its record is written
            terms.take(job.record, reply)
            self._jobs.save(job)
        return job.record

    async def _go_on(self, caller: Caller, job_id: str, *, paused: bool) -> JobRecord:
        job = await self._jobs.running(caller, job_id)
        await self._jobs.change(job, {"op": "pause" if paused else "resume"})
        if not job.ended.done():
            records.paused(job.record, now=paused)
            self._jobs.save(job)
        return job.record
