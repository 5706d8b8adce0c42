"""The jobs of this worker: start, stop, signal, get, list, wait, delete.

Every method takes the caller first and decides ownership itself: a job that the caller may not see does not
exist for it. Jobs that have not ended are `LiveJobs`', which alone writes records; those that have are in
the database. Knows no gRPC; what a new job is to be is `starts`', processes and cgroups are the supervisor's,
and what a record's state may become next is lifecycle's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from generated.jobworker.v1 import JobFilter, JobRecord, JobSpec
from jobwire.codec import decode
from jobworker import launchrequest, leftovers, limits, listing, reconcile, records
from jobworker.endedjobs import EndedJobs
from jobworker.errors import (
    FailedPrecondition,
    Internal,
    JobworkerError,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from jobworker.keeping import EVERYTHING, Keeping
from jobworker.lifecycle import ENDED, START_FAILED
from jobworker.listing import Page
from jobworker.livejobs import LiveJob, LiveJobs
from jobworker.policy import Caller, may_change, may_see
from jobworker.retention import Retention
from jobworker.startfailures import explain
from jobworker.starts import Starts
from jobworker.statedir import StateDirectory
from jobworker.store import JobStore
from jobworker.supervisorconnection import LinkLostError, Reply
from jobworker.supervisorlink import SupervisorLink

STOP_SIGNAL = 15
STOP_GRACE = timedelta(seconds=10)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OutputSource:
    """Where a job's output is, and the future that is done with the final record once no more can come.

    The future is shared by everybody who asks: shield it, never cancel it.
    """

    job_id: str
    directory: Path
    ended: asyncio.Future[JobRecord]

    @property
    def written(self) -> int | None:
        """How many bytes the job has written, as its record tells; None while it may write more."""
        if not self.ended.done():
            return None
        output = self.ended.result().output
        return 0 if output is None else output.size


class Jobs:
    """All jobs. Records it gives back are its own live ones: encode them before the next await, change nothing.

    `ended` is told of each job that has ended.
    """

    def __init__(
        self,
        state: StateDirectory,
        store: JobStore,
        link: SupervisorLink,
        *,
        kept: Keeping = EVERYTHING,
        ended: Callable[[str], None] | None = None,
    ) -> None:
        self._state = state
        self._store = store
        self._link = link
        self._told = ended
        self._live = LiveJobs(state, store, link, ended=self._on_ended)
        self._starts = Starts(state, link, self._live, default_cap=kept.default_cap)
        self._ended = EndedJobs(state, store, forget=self._live.forget)
        self._retention = Retention(self._ended, kept.retention)
        self._cleaning: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Learns what became of every job; Unavailable or FailedPrecondition when there is no supervisor to ask."""
        aside = leftovers.find(self._state, known=self._store.ids())
        if aside:
            loop = asyncio.get_running_loop()
            self._cleaning = loop.run_in_executor(None, leftovers.remove_quietly, aside)
        await self._live.open()
        self._ended.open()
        self._retention.open()

    async def close(self) -> None:
        """Ends what goes on here; jobs run on."""
        await self._retention.close()
        if self._cleaning is not None:
            await self._cleaning

    async def start(self, caller: Caller, spec: JobSpec, *, request_id: str, job_id: str | None) -> JobRecord:
        """Starts a job; answers once its program has been executed.

        The same `request_id` again gives the same job, or the same StartFailed. Cancelling the call does not
        cancel the start. Raises StartFailed, PermissionDenied (spec.user), AlreadyExists (job_id),
        InvalidArgument (job_id that is not a UUID), Unavailable.
        """
        asked = await limits.ask(spec.limits, field="spec.limits")
        known = self._store.by_request(caller.client_id, request_id) if request_id else None
        if known is None:
            job = self._starts.begin(caller, spec, asked, request_id=request_id, job_id=job_id)
        else:
            record = _decode(known)
            job = self._live.get(record.job_id) or LiveJob(record)
        await _outcome(job)
        record = job.record
        if records.reason_of(record) == START_FAILED:
            raise explain(record)
        return record

    async def stop(
        self, caller: Caller, job_id: str, *, signal: int | None, grace: timedelta | None
    ) -> JobRecord:
        """Signals the whole tree and has it killed after the grace; for a job that has ended, just its record."""
        job = self._changeable(caller, job_id)
        await self._stop(job, by=caller.client_id, signal=signal, grace=grace)
        return job.record

    async def stop_all(self) -> None:
        """Stops every job, as nobody in particular; returns when all have ended that can be stopped."""

        async def stop(job: LiveJob) -> None:
            try:
                await self._stop(job, by=None, signal=None, grace=None)
                await asyncio.shield(job.ended)
            except JobworkerError as error:
                logger.error("%s", error)

        await asyncio.gather(*map(stop, self._live.all()))

    async def signal(self, caller: Caller, job_id: str, *, signal: int, tree: bool) -> None:
        """Sends a signal to the main process or the tree; FailedPrecondition when there is none to take it."""
        job = self._changeable(caller, job_id)
        await _outcome(job)
        if job.record.state == ENDED:
            raise FailedPrecondition(f"job '{job_id}' has ended", job_id=job_id)
        reply = await self._ask({"op": "signal", "job": job_id, "signal": signal, "tree": tree})
        if reply["op"] == "error":
            raise FailedPrecondition(f"job '{job_id}' cannot be signalled: {reply['detail']}", job_id=job_id)

    async def running(self, caller: Caller, job_id: str) -> LiveJob:
        """A job that the caller may change, once its program runs; FailedPrecondition when it has ended."""
        job = self._changeable(caller, job_id)
        await _outcome(job)
        if job.record.state == ENDED:
            raise FailedPrecondition(f"job '{job_id}' has ended", job_id=job_id)
        return job

    async def change(self, job: LiveJob, request: dict[str, object]) -> Reply:
        """What the supervisor answers to a request that changes a running job; FailedPrecondition when it refuses."""
        job_id = job.record.job_id
        reply = await self._ask({**request, "job": job_id})
        if reply["op"] == "error":
            detail = "it has ended" if reply["error"] == "no_such_job" else reply["detail"]
            raise FailedPrecondition(f"job '{job_id}' stays as it is: {detail}", job_id=job_id)
        return reply

    def save(self, job: LiveJob) -> None:
        """Writes a change of the record down, of a job that has not ended."""
        self._live.save(job)

    async def get(self, caller: Caller, job_id: str) -> JobRecord:
        """The record; of a job that runs with its usage and output size of now."""
        job = self._visible(caller, job_id)
        if job.ended.done() or not job.started.done():
            return job.record
        try:
            reply = await self._ask({"op": "usage", "job": job_id})
        except Unavailable:
            reply = {}
        if not job.ended.done():
            output = reply.get("output") or reconcile.output_info(self._state.job(job_id))
            records.running(job.record, usage=reply.get("usage"), output=output)
        return job.record

    def list(self, caller: Caller, selection: JobFilter | None, *, page_size: int, page_token: str) -> Page:
        """A page of encoded JobRecords, newest first, and the next page's token ("" on the last one).

        `page_size` 0 means 100, more than 1000 is 1000; large records make a page shorter. InvalidArgument for a
        token that is not ours.
        """
        return listing.page(self._store, caller, selection, size=page_size, token=page_token)

    async def wait(self, caller: Caller, job_id: str) -> JobRecord:
        """The final record, once the job has ended."""
        return await asyncio.shield(self._visible(caller, job_id).ended)

    async def delete(self, caller: Caller, job_id: str) -> None:
        """Forgets a job that has ended, with its output and scratch directory; FailedPrecondition while it has not."""
        if not self._changeable(caller, job_id).ended.done():
            raise FailedPrecondition(f"job '{job_id}' has not ended", hint="stop it first", job_id=job_id)
        try:
            await self._ended.delete([job_id])
        except OSError as error:
            raise Internal(
                f"files of job '{job_id}' cannot be removed: {error}", hint="they are left where they are"
            ) from error

    def output(self, caller: Caller, job_id: str) -> OutputSource:
        """What following the output needs."""
        ended = self._visible(caller, job_id).ended
        return OutputSource(job_id, self._state.job(job_id), ended)

    def counts(self) -> tuple[int, int]:
        """How many jobs have not ended, and how many have."""
        return len(self._live), self._ended.totals.jobs

    @property
    def ended_bytes(self) -> int:
        """What the output of ended jobs takes on the disk."""
        return self._ended.totals.size

    def _on_ended(self, job_id: str) -> None:
        if self._told is not None:
            self._told(job_id)
        self._ended.add(job_id)
        self._retention.job_ended()

    async def _stop(
        self, job: LiveJob, *, by: str | None, signal: int | None, grace: timedelta | None
    ) -> None:
        await _outcome(job)
        record = job.record
        if record.state == ENDED:
            return
        self._link.check()
        spec, job_id = record.spec, record.job_id
        number = _first(signal, spec.stop_signal, STOP_SIGNAL)
        grace_ms = launchrequest.milliseconds(_first(grace, spec.stop_grace, STOP_GRACE))
        records.stop_asked(record, by=by, unix_nano=time.time_ns())
        self._live.save_now(job)
        reply = await self._ask({"op": "stop", "job": job_id, "signal": number, "grace_ms": grace_ms})
        if reply["op"] == "error" and not job.ended.done():
            raise Internal(f"job '{job_id}' cannot be stopped: {reply['detail']}", job_id=job_id)

    async def _ask(self, request: dict[str, object]) -> Reply:
        self._link.check()
        try:
            return await self._link.ask(request)
        except LinkLostError as error:
            raise Unavailable("the supervisor ended meanwhile", hint="try again in a moment") from error

    def _visible(self, caller: Caller, job_id: str) -> LiveJob:
        job = self._live.get(job_id)
        if job is None and (stored := self._store.get(job_id)) is not None:
            job = LiveJob(_decode(stored))
        if job is None or not may_see(caller, job.record.owner):
            raise NotFound(f"no job '{job_id}'", hint="jobctl list shows your jobs", job_id=job_id)
        return job

    def _changeable(self, caller: Caller, job_id: str) -> LiveJob:
        job = self._visible(caller, job_id)
        if not may_change(caller, job.record.owner):
            raise PermissionDenied(
                f"client '{caller.client_id}' may look at job '{job_id}' and not change it", job_id=job_id
            )
        return job


def _decode(stored: bytes) -> JobRecord:
    try:
        return decode(JobRecord, stored)
    except ValueError as error:
        raise Internal(f"the job's record is damaged: {error}") from error


async def _outcome(job: LiveJob) -> None:
    """Returns once the launch has succeeded or failed; Unavailable when the supervisor went away meanwhile."""
    if not await asyncio.shield(job.started):
        raise Unavailable(
            "the supervisor ended while the job was being started",
            hint="the same request again tells what became of it",
            job_id=job.record.job_id,
        )


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
