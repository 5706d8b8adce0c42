"""The jobs of this worker: start, stop, signal, get, list, wait, delete.

The only writer of job records. Every public method takes the caller first and decides ownership itself:
a job that the caller may not see does not exist for it. Knows no gRPC; processes and cgroups are the
supervisor's, and what a record's state may become next is lifecycle's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from generated.jobworker.v1 import JobFilter, JobRecord, JobSpec
from jobworker.policy import Caller


@dataclass(frozen=True, slots=True)
class OutputSource:
    """Where a job's output is, and the future that is done with the final record once no more can come.

    The future is shared by everybody who asks: shield it, never cancel it.
    """

    job_id: str
    directory: Path
    ended: asyncio.Future[JobRecord]


class Jobs:
    """All jobs. Records it gives back are its own live ones: encode them before the next await, change nothing."""

    async def start(self, caller: Caller, spec: JobSpec, *, request_id: str, job_id: str | None) -> JobRecord:
        """Starts a job; answers once its program has been executed.

        The same `request_id` again gives the same job, or the same StartFailed. Cancelling the call does not
        cancel the start. Raises StartFailed, PermissionDenied (spec.user), AlreadyExists (job_id),
        InvalidArgument (job_id that is not a UUID), Unavailable.
        """
        raise NotImplementedError

    async def stop(
        self, caller: Caller, job_id: str, *, signal: int | None, grace: timedelta | None
    ) -> JobRecord:
        """Signals the whole tree and has it killed after the grace; for a job that has ended, just its record."""
        raise NotImplementedError

    async def signal(self, caller: Caller, job_id: str, *, signal: int, tree: bool) -> None:
        """Sends a signal to the main process or the tree; FailedPrecondition when the job has ended."""
        raise NotImplementedError

    async def get(self, caller: Caller, job_id: str) -> JobRecord:
        """The record; of a job that runs with its usage and output size of now. The record is the caller's own."""
        raise NotImplementedError

    def list(
        self, caller: Caller, selection: JobFilter | None, *, page_size: int, page_token: str
    ) -> tuple[list[bytes], str]:
        """A page of encoded JobRecords, newest first, and the next page's token ("" on the last one).

        `page_size` 0 means 100, more than 1000 is 1000. InvalidArgument for a token that is not ours.
        """
        raise NotImplementedError

    async def wait(self, caller: Caller, job_id: str) -> JobRecord:
        """The final record, once the job has ended."""
        raise NotImplementedError

    async def delete(self, caller: Caller, job_id: str) -> None:
        """Forgets a job that has ended, with its output and scratch directory; FailedPrecondition while it has not."""
        raise NotImplementedError

    def output(self, caller: Caller, job_id: str) -> OutputSource:
        """What following the output needs."""
        raise NotImplementedError

    def counts(self) -> tuple[int, int]:
        """How many jobs have not ended, and how many have."""
        raise NotImplementedError

    async def close(self) -> None:
        """Everything known is in the database afterwards; jobs run on."""
        raise NotImplementedError
