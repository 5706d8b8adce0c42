"""Jobs that have not ended, and the last that have: launched, found again, concluded, each change written down.

Decides when a record is stored: the intent before the launch, everything the supervisor can tell again a
moment behind, a failure and a stop at once. After every new connection to the supervisor, at the start and
when either process was replaced, all jobs are settled against what it holds. Who may do what is not known.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Mapping

from generated.jobworker.v1 import JobRecord, StartStage
from jobwire.codec import decode
from jobworker import limits, reconcile, records, removal
from jobworker.errors import JobworkerError
from jobworker.lifecycle import ENDED, STARTING
from jobworker.records import fields
from jobworker.statedir import StateDirectory
from jobworker.store import JobStore
from jobworker.supervisor.messages import ExitedEvent, LaunchedEvent, ListedJob
from jobworker.supervisor.protocol import FrameError
from jobworker.supervisorconnection import LinkLostError, Reply
from jobworker.supervisorlink import SupervisorLink

RECENT = 256  # ended jobs kept at hand: who started a short job asks for its end when it has come already
EXEC = StartStage(StartStage.EXEC)

logger = logging.getLogger(__name__)


class LiveJob:
    """One job: its record as it is now, and two futures that are shared and never cancelled.

    `started` tells whether the launch's outcome is known (False: the supervisor went away meanwhile);
    `ended` is done with the final record.
    """

    __slots__ = ("ended", "record", "started")

    def __init__(self, record: JobRecord) -> None:
        loop = asyncio.get_running_loop()
        self.record = record
        self.started: asyncio.Future[bool] = loop.create_future()
        self.ended: asyncio.Future[JobRecord] = loop.create_future()
        state = fields(record)["state"]
        if state != STARTING:
            self.started.set_result(True)
        if state == ENDED:
            self.ended.set_result(record)


class LiveJobs:
    """All jobs that have not ended, by id. `ended` is told of each that has."""

    def __init__(
        self, state: StateDirectory, store: JobStore, link: SupervisorLink, *, ended: Callable[[str], None]
    ) -> None:
        self._ended = ended
        self._state = state
        self._store = store
        self._link = link
        self._jobs: dict[str, LiveJob] = {}
        self._recent: dict[str, LiveJob] = {}
        self._is_of_this_boot = True

    def __len__(self) -> int:
        return len(self._jobs)

    def all(self) -> list[LiveJob]:
        """Those that have not ended."""
        return list(self._jobs.values())

    def get(self, job_id: str) -> LiveJob | None:
        """The job, if it has not ended, or is one of the last that have."""
        return self._jobs.get(job_id) or self._recent.get(job_id)

    def forget(self, job_id: str) -> None:
        """A job that has ended is deleted."""
        self._recent.pop(job_id, None)

    async def open(self) -> None:
        """Loads what is unfinished, connects to the supervisor and settles everything against it."""
        for job_id, owner, stored in self._store.unfinished():
            try:
                record = decode(JobRecord, stored)
            except ValueError as error:
                logger.error("the record of job %s is damaged, its end is lost: %s", job_id, error)
                record = reconcile.placeholder(job_id, owner=owner, unix_nano=time.time_ns())
                self._store.update(record)
            else:
                self._jobs[job_id] = LiveJob(record)
        self._is_of_this_boot = self._state.is_of_this_boot()
        await self._link.open(attach=self._attach, launched=self._on_launched, exited=self._on_exited)
        if not self._is_of_this_boot:
            self._note_boot()

    def launch(
        self, record: JobRecord, request: Mapping[str, object], *, unix_nano: int, request_id: str
    ) -> LiveJob:
        """Records the intent, then asks for the launch; AlreadyExists or Unavailable when that cannot be recorded."""
        self._store.insert(record, created_unix_nano=unix_nano, request_id=request_id)
        job = self._jobs[record.job_id] = LiveJob(record)
        try:
            reply = self._link.ask(request)
        except FrameError:  # larger than anything that the kernel would execute
            self._fail(job, stage=EXEC, number=errno.E2BIG, detail=os.strerror(errno.E2BIG).lower())
        else:
            reply.add_done_callback(lambda done: self._on_launch(job, done))
        return job

    def refuse(
        self,
        record: JobRecord,
        *,
        stage: StartStage,
        number: int,
        detail: str,
        unix_nano: int,
        request_id: str,
    ) -> LiveJob:
        """Records a start that failed before anything was asked for; raises as `launch` does."""
        records.start_failed(record, stage=stage, errno=number, detail=detail, unix_nano=unix_nano)
        self._store.insert(record, created_unix_nano=unix_nano, request_id=request_id)
        self._ended(record.job_id)
        return LiveJob(record)

    def save(self, job: LiveJob) -> None:
        """Writes, a moment behind, a change that the supervisor can tell again."""
        self._store.update(job.record)

    def save_now(self, job: LiveJob) -> None:
        """Writes a change that nobody else could tell after a crash."""
        self._store.update_now(job.record)

    def _on_launch(self, job: LiveJob, done: asyncio.Future[Reply]) -> None:
        if job.started.done():
            # its end came in the same breath
            if done.exception() is None and done.result()["op"] == "launched":
                limits.take(job.record, done.result())
                self._store.update(job.record)
            return
        if isinstance(done.exception(), LinkLostError):
            job.started.set_result(False)
            job.started = asyncio.get_running_loop().create_future()
            return
        reply = done.result()
        if reply["op"] == "launched":
            records.launched(job.record, pid=reply["pid"], started_ns=reply["started_ns"])
            limits.take(job.record, reply)
            self._store.update(job.record)
            job.started.set_result(True)
            return
        stage = records.STAGES.get(reply.get("stage", ""), records.SETUP)
        self._fail(job, stage=stage, number=reply["errno"], detail=reply["detail"])
        if reply["op"] == "failed":  # otherwise the directory, if there is one, is not of this launch
            self._clear(job.record.job_id)

    def _fail(self, job: LiveJob, *, stage: StartStage, number: int, detail: str) -> None:
        records.start_failed(job.record, stage=stage, errno=number, detail=detail, unix_nano=time.time_ns())
        self._store.update_now(job.record)
        self._conclude(job)

    def _on_launched(self, event: LaunchedEvent) -> None:
        """A program that an earlier connection asked for has been executed."""
        job = self._jobs.get(event["job"])
        if job is not None and job.record.state == STARTING:
            self._settle(job, event)

    def _on_exited(self, event: ExitedEvent) -> None:
        job = self._jobs.get(event["job"])
        if job is None:
            return
        records.finished(job.record, event)
        self._store.update(job.record)
        self._conclude(job)

    def _conclude(self, job: LiveJob) -> None:
        job_id = fields(job.record)["job_id"]
        del self._jobs[job_id]
        self._recent[job_id] = job
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        if not job.started.done():
            job.started.set_result(True)
        job.ended.set_result(job.record)
        self._ended(job_id)

    def _clear(self, job_id: str) -> None:
        """Removes what a failed launch left: its exit record, which is in our record now."""
        try:
            removal.remove_tree(self._state.job(job_id))
        except OSError as error:
            logger.warning("'%s' stays: %s", self._state.job(job_id), error)

    async def _attach(self) -> None:
        """Settles every job against what the supervisor holds; nobody can start one meanwhile."""
        listed = {entry["job"]: entry for entry in await self._link.list()}
        for job_id, job in list(self._jobs.items()):
            self._settle(job, listed.get(job_id))
        for job_id in listed.keys() - self._jobs.keys():
            self._end_stray(job_id)

    def _note_boot(self) -> None:
        """Once what an earlier boot left is settled, and that is written."""
        self._is_of_this_boot = True
        try:
            self._store.flush()
            self._state.note_boot()
        except (OSError, JobworkerError) as error:  # then the next start takes less for certain
            logger.warning("the boot cannot be noted: %s", error)

    def _settle(self, job: LiveJob, listed: ListedJob | None) -> None:
        record = job.record
        state, directory = record.state, self._state.job(record.job_id)
        job.record = reconcile.settle(
            record,
            listed=listed,
            directory=directory,
            unix_nano=time.time_ns(),
            is_of_this_boot=self._is_of_this_boot,
        )
        if job.record.state == state:
            return
        self._store.update(job.record)
        if job.record.state == ENDED:
            self._conclude(job)
        else:
            job.started.set_result(True)

    def _end_stray(self, job_id: str) -> None:
        """A job that the supervisor holds and no record calls unfinished."""
        if self._store.get(job_id) is None:
            logger.warning("the supervisor holds job %s, which has no record; it is left alone", job_id)
            return
        logger.warning("job %s runs although its record says that it has ended; it is killed", job_id)
        stop = self._link.ask({"op": "stop", "job": job_id, "signal": 9, "grace_ms": 0})
        stop.add_done_callback(asyncio.Future.exception)
