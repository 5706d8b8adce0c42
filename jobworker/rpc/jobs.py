"""JobService without its streams: each verb is one call of `Jobs`, and its answer encoded.

Decides nothing: the door has checked the request, `Jobs` checks ownership. Answers that are one record are
made as bytes, since every such message has the record as field 1; pages of records are never decoded.
"""

from __future__ import annotations

from generated.jobworker import v1
from jobwire.codec import encode
from jobwire.wire import field_bytes
from jobworker.jobs import Jobs
from jobworker.rpc.calls import Call

NOTHING = b""  # a message without fields


class JobVerbs:
    """What the door calls for JobService's unary methods."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def start_job(self, call: Call, request: v1.StartJobRequest) -> bytes:
        call.subject = request.job_id or ""
        record = await self._jobs.start(
            call.caller, request.spec, request_id=request.request_id, job_id=request.job_id
        )
        call.subject = record.job_id
        return job_answer(record)

    async def stop_job(self, call: Call, request: v1.StopJobRequest) -> bytes:
        call.subject = request.job_id
        return job_answer(
            await self._jobs.stop(call.caller, request.job_id, signal=request.signal, grace=request.grace)
        )

    async def signal_job(self, call: Call, request: v1.SignalJobRequest) -> bytes:
        call.subject = request.job_id
        await self._jobs.signal(call.caller, request.job_id, signal=request.signal, tree=request.tree)
        return NOTHING

    async def get_job(self, call: Call, request: v1.GetJobRequest) -> bytes:
        return job_answer(await self._jobs.get(call.caller, request.job_id))

    async def list_jobs(self, call: Call, request: v1.ListJobsRequest) -> bytes:
        records, token = self._jobs.list(
            call.caller, request.filter, page_size=request.page_size, page_token=request.page_token
        )
        page = [field_bytes(1, record) for record in records]
        if token:
            page.append(field_bytes(2, token.encode()))
        return b"".join(page)

    async def wait_job(self, call: Call, request: v1.WaitJobRequest) -> bytes:
        return job_answer(await self._jobs.wait(call.caller, request.job_id))

    async def delete_job(self, call: Call, request: v1.DeleteJobRequest) -> bytes:
        call.subject = request.job_id
        await self._jobs.delete(call.caller, request.job_id)
        return NOTHING


def job_answer(record: v1.JobRecord) -> bytes:
    """StartJobResponse, and every other that answers with the job: {JobRecord job = 1}."""
    return field_bytes(1, encode(record))
