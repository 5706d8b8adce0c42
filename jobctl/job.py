"""One job, as a handle: read its output, wait for it, stop it, signal, pause and limit it, look at it, delete it.

Holds the id and the record as it was last seen, encoded; nothing here is cached or refreshed behind the caller's back.
"""

# ruff: noqa: ASYNC109 - everything that waits takes `timeout=`: it is this library's promise
from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jobctl import requests, types
from jobctl.answers import message, part
from jobctl.ending import Ending, parse_ending
from jobctl.errors import Internal, JobctlError
from jobctl.events import Gap, Stream
from jobctl.output import Cursor, Output
from jobctl.reconnect import CALL_PATIENCE
from jobctl.result import TAIL, Result, result_of
from jobctl.span import Moment, span
from jobctl.translate import time_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobctl.client import Client

_TERMINATION, _USAGE = 8, 9  # fields of JobRecord


class Job:
    """A job of a worker. Nothing that is done to the handle, short of stop, signal, pause, resume, update and delete, is done to the job."""

    def __init__(self, client: Client, job_id: str, *, record: bytes | None = None) -> None:
        self._client = client
        self.id = job_id
        self.encoded_record = record

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    @property
    def record(self) -> types.JobRecord:
        """All that was known of the job when it was last asked for: by start, list, get, refresh, wait or stop."""
        if self.encoded_record is None:
            raise JobctlError(
                f"job {self.id} has not been asked for", hint="await job.refresh()", job_id=self.id
            )
        return message(types.JobRecord, self.encoded_record)

    async def refresh(self, *, timeout: float | None = None) -> types.JobRecord:
        """The record as it is now, of a running job with its usage until now."""
        self._seen(await self._client.call("GetJob", requests.job(self.id), timeout=timeout))
        return self.record

    def output(
        self,
        *,
        offset: int = 0,
        follow: bool = True,
        streams: Iterable[Stream] = (),
        tail_lines: int | None = None,
        tail_bytes: int | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        until_offset: int | None = None,
        on_gap: Callable[[Gap], None] | None = None,
        timeout: float | None = None,
    ) -> Output:
        """The job's output from its first byte on, live, until it has ended: `async for chunk in job.output()`.

        It begins at the latest of what is given: `offset`, `since`, the last `tail_lines` or `tail_bytes` there are now
        (or before its end, where one is given). It ends at `until_offset` or `until`, whichever comes first; with
        `follow=False` with what is there now. `streams` selects, and tails count in what is selected. Times are of the
        worker's clock: datetimes with a zone, or timedeltas: so long ago. `timeout` is for the whole of it, in seconds.
        Raises InvalidArgument at once for what is none of these.
        """
        wanted = span(
            now_unix_nano=time.time_ns(),
            offset=offset,
            follow=follow,
            streams=streams,
            tail_lines=tail_lines,
            tail_bytes=tail_bytes,
            since=since,
            until=until,
            until_offset=until_offset,
        )
        cursor, client = Cursor(self.id, wanted), self._client
        return Output(client.connection, cursor, timeout=timeout, patience=client.patience, on_gap=on_gap)

    async def wait(self, *, timeout: float | None = None) -> Result:
        """How the job ended, once it has; over broken connections too. Raises Timeout; the job runs on then."""
        async with time_limit(timeout):
            await self.ended()
            return await self.result()

    async def ended(self, *, timeout: float | None = None) -> Ending:
        """As `wait`, for those who want the bare facts of the end: no usage, nothing of the output is read."""
        request = requests.job(self.id)
        answer = await self._client.call("WaitJob", request, timeout=timeout, patience=self._client.patience)
        return parse_ending(part(self._seen(answer), _TERMINATION))

    async def result(self) -> Result:
        """The result that the record last seen tells; raises JobctlError when the job had not ended by then."""
        record = self.encoded_record or b""
        termination = part(record, _TERMINATION)
        if not termination:
            raise JobctlError(f"job {self.id} has not ended", hint="await job.wait()", job_id=self.id)
        tail = b"" if parse_ending(termination).ok else await self._stderr_tail()
        return result_of(self.id, termination=termination, usage=part(record, _USAGE), stderr_tail=tail)

    async def _stderr_tail(self) -> bytes:
        """The end of stderr; what cannot be had of it is left out."""
        wanted = span(now_unix_nano=0, follow=False, streams=(Stream.STDERR,), tail_bytes=TAIL)
        tail, client = b"", self._client
        # who waits for ever for the job's end does not do so for this
        patience = CALL_PATIENCE if client.patience is None else client.patience
        output = Output(
            client.connection, Cursor(self.id, wanted), timeout=None, patience=patience, on_gap=_ignore
        )
        try:
            async for chunk in output:
                tail += chunk.data
        except JobctlError:
            return tail  # an addition to an answer that is there already
        return tail

    async def stop(
        self,
        *,
        signal: int | None = None,
        grace: requests.Seconds | None = None,
        timeout: float | None = None,
    ) -> None:
        """Signals the whole tree and has it killed after `grace`; answers at once, see `wait`. Idempotent.

        Without `signal` and `grace` the job's own apply, else TERM and 10 seconds. `grace=0` kills.
        """
        request = requests.stop(self.id, signal=signal, grace=grace)
        self._seen(await self._client.call("StopJob", request, timeout=timeout))

    async def signal(self, signal: int, *, tree: bool = False, timeout: float | None = None) -> None:
        """Sends a signal to the main process, or to every process of the job. Never sent twice by itself."""
        request = requests.signal_job(self.id, signal, tree=tree)
        await self._client.call("SignalJob", request, timeout=timeout, patience=0)

    async def pause(self, *, timeout: float | None = None) -> None:
        """Keeps every process of the job from running, until it is resumed or stopped. Idempotent."""
        self._seen(await self._client.call("PauseJob", requests.job(self.id), timeout=timeout))

    async def resume(self, *, timeout: float | None = None) -> None:
        """Lets the paused job go on. Idempotent."""
        self._seen(await self._client.call("ResumeJob", requests.job(self.id), timeout=timeout))

    async def update(
        self,
        limits: types.Limits | None = None,
        *,
        lift: Iterable[str] = (),
        best_effort: bool = False,
        timeout: float | None = None,
    ) -> types.JobRecord:
        """Changes limits while the job runs, and gives its record with those now in force; the others stay.

        `lift` names those that are to be no more: "memory_bytes", "io". All of them change, or none, in which case
        FailedPrecondition says which could not be had; with `best_effort` the record's limits_not_in_force does.
        """
        request = requests.update(self.id, limits, lift=lift, best_effort=best_effort)
        self._seen(await self._client.call("UpdateJob", request, timeout=timeout))
        return self.record

    async def delete(self, *, timeout: float | None = None) -> None:
        """Forgets the job, its output and its scratch directory; raises FailedPrecondition while it runs."""
        await self._client.call("DeleteJob", requests.job(self.id), timeout=timeout, patience=0)

    def _seen(self, answer: bytes) -> bytes:
        """The record in an answer is the last one seen."""
        record = part(answer, 1)
        if not record:
            raise Internal("the worker's answer has no record in it", job_id=self.id)
        self.encoded_record = record
        return record


def _ignore(_: Gap) -> None:
    pass
