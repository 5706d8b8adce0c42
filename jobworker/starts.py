"""Starts: from a request that was checked to a job's record and what the supervisor is asked to launch.

Decides which starts are refused before anything is asked of the supervisor, and which of those leave a record: a
mistake in the request leaves none, a user or limit that this host has not is a job that failed to start. Whether the same
request came before, and what becomes of a launch, is not known here.
"""

from __future__ import annotations

import os
import time

from generated.jobworker.v1 import JobSpec, OutputCap, StartStage
from jobworker import jobids, launchrequest, records, runas, unixusers
from jobworker.errors import InvalidArgument
from jobworker.limits import Asked, allow_limits
from jobworker.livejobs import LiveJob, LiveJobs
from jobworker.policy import Caller
from jobworker.statedir import StateDirectory
from jobworker.supervisorlink import SupervisorLink
from jobworker.unixusers import UnixUser

USER = StartStage(StartStage.USER)
LIMIT = StartStage(StartStage.LIMIT)


class Starts:
    """Begins jobs; `default_cap` is for the output of those that name none."""

    def __init__(
        self, state: StateDirectory, link: SupervisorLink, live: LiveJobs, *, default_cap: OutputCap | None
    ) -> None:
        self._state = state
        self._link = link
        self._live = live
        self._default_cap = default_cap
        uid = os.geteuid()
        self._worker = unixusers.by_uid(uid) or UnixUser(str(uid), uid, os.getegid(), "/bin/sh")

    def begin(
        self, caller: Caller, spec: JobSpec, asked: Asked, *, request_id: str, job_id: str | None
    ) -> LiveJob:
        """Records a job and asks for its launch, or records that it failed; nothing comes between checks and launch.

        Raises InvalidArgument, PermissionDenied, FailedPrecondition, AlreadyExists, Unavailable: then nothing is recorded.
        """
        if job_id is not None and not jobids.is_canonical(job_id):
            raise InvalidArgument("job_id is not a UUID in lower case", field="job_id")
        allow_limits(caller, spec.limits, field="spec.limits")
        self._link.check()
        now = time.time_ns()
        job_id = job_id or jobids.make(now, random=os.urandom(jobids.RANDOM_BYTES))
        scratch = str(self._state.job_scratch(job_id))
        record = records.accept(
            job_id,
            owner=caller.client_id,
            spec=spec,
            unix_nano=now,
            workdir=spec.workdir or scratch,
            cap=launchrequest.cap_in_force(spec.output_cap, default=self._default_cap),
        )
        try:
            identity = runas.choose(caller, spec.user, worker=self._worker)
        except runas.UnknownUserError as error:
            return self._live.refuse(
                record,
                stage=USER,
                number=error.errno,
                detail=str(error),
                unix_nano=now,
                request_id=request_id,
            )
        record.uid = identity.user.uid
        if asked.unenforced and not spec.best_effort_limits:
            detail = "{limit}: {reason}".format(**asked.unenforced[0])
            return self._live.refuse(
                record, stage=LIMIT, number=0, detail=detail, unix_nano=now, request_id=request_id
            )
        request = launchrequest.build(record, identity=identity, scratch=scratch, asked=asked)
        return self._live.launch(record, request, unix_nano=now, request_id=request_id)
