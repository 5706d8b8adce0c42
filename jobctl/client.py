"""The client: one worker, one identity, every verb that is not about a job one already has in hand.

Requests are built by `requests`, answers stay encoded until somebody looks. A call that may be repeated without harm is
repeated when the connection breaks, for a few seconds; starts are among them, each with a request id of its own.
Nothing has a deadline that the caller did not give.
"""

# ruff: noqa: ASYNC109 - everything that waits takes `timeout=`: it is this library's promise
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self, Unpack

from jobctl import requests, types
from jobctl.answers import message, part, parts, record_id
from jobctl.connection import Connection
from jobctl.contexts import Context, choose
from jobctl.errors import AmbiguousJob, Internal, InvalidArgument, JobNotFound, Unavailable
from jobctl.events import Gap, Stream
from jobctl.job import Job
from jobctl.output import Cursor, Output
from jobctl.reconnect import CALL_PATIENCE, Patience
from jobctl.result import Completed, completed
from jobctl.translate import time_limit

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from jobctl.requests import Argument, JobOptions

_FULL_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ID_PREFIX = re.compile(r"[0-9a-f-]{1,36}")
_CANDIDATES = 10  # how many jobs an ambiguous prefix is answered with


class Client:
    """A worker as one identity sees it. Use it as `async with Client(…) as client`, on one event loop.

    `patience` is how many seconds those who follow or wait bear a worker that has gone away; None: for ever.
    """

    def __init__(
        self,
        address: str,
        *,
        ca: str | os.PathLike[str],
        cert: str | os.PathLike[str],
        key: str | os.PathLike[str] | None = None,
        patience: float | None = None,
    ) -> None:
        self.context = Context(address, str(ca), str(cert), None if key is None else str(key))
        self.patience = patience
        self.connection = Connection(self.context)

    @classmethod
    def from_context(cls, name: str | None = None, *, patience: float | None = None) -> Self:
        """As `jobctl` itself would connect: environment, then the context of that name or the current one.

        Raises ConfigError.
        """
        chosen = choose(name)
        return cls(chosen.address, ca=chosen.ca, cert=chosen.cert, key=chosen.key, patience=patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every call and stream; jobs run on."""
        await self.connection.close()

    async def start(
        self,
        argv: Sequence[Argument],
        *,
        request_id: str | None = None,
        job_id: str | None = None,
        deadline: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Starts a job and returns once its program has been executed; raises StartFailed when it cannot be.

        `timeout=` among the options is the job's own, in seconds; `deadline` is for this call. The same
        `request_id` again gives the same job.
        """
        request = _start_request(requests.spec(argv, **options), request_id, job_id)
        record = part(await self.call("StartJob", request, timeout=deadline), 1)
        return Job(self, record_id(record), record=record)

    async def run(
        self,
        argv: Sequence[Argument],
        *,
        request_id: str | None = None,
        job_id: str | None = None,
        deadline: float | None = None,
        on_gap: Callable[[Gap], None] | None = None,
        **options: Unpack[JobOptions],
    ) -> Completed:
        """Starts a job and collects its output in memory until it has ended: like `subprocess.run`, in one call.

        Never raises for how the job ended (see `Completed.check`); raises StartFailed, and OutputGap when output is
        missing and nobody is told through `on_gap`. Cancelling it, or `deadline`, leaves the job running.
        """
        written: dict[Stream, list[bytes]] = {Stream.STDOUT: [], Stream.STDERR: []}
        async with self.stream(
            argv, request_id=request_id, job_id=job_id, deadline=deadline, on_gap=on_gap, **options
        ) as output:
            async for chunk in output:
                written[chunk.stream].append(chunk.data)
        if output.result is None:
            raise Internal("the worker did not tell how the job ended", job_id=output.job_id)
        out, err = (b"".join(written[stream]) for stream in Stream)
        return completed(output.result, stdout=out, stderr=err)

    def stream(
        self,
        argv: Sequence[Argument],
        *,
        request_id: str | None = None,
        job_id: str | None = None,
        deadline: float | None = None,
        on_gap: Callable[[Gap], None] | None = None,
        **options: Unpack[JobOptions],
    ) -> Output:
        """Starts a job and gives its output live, in one call: `async with client.stream(argv) as output`.

        The start is asked for by the first step of the iteration, which raises StartFailed when it fails. How the job
        ended is in `output.result` then, its id in `output.job_id`. Leaving it early leaves the job running.
        """
        request = _start_request(requests.spec(argv, **options), request_id, job_id)
        return Output(
            self.connection, Cursor.of_run(request), timeout=deadline, patience=self.patience, on_gap=on_gap
        )

    def job(self, job_id: str) -> Job:
        """A handle on a job by its full id; asks nobody."""
        return Job(self, job_id)

    async def get(self, job_id: str, *, timeout: float | None = None) -> Job:
        """A job by its full id, with its record; raises JobNotFound."""
        job = Job(self, job_id)
        await job.refresh(timeout=timeout)
        return job

    async def find(self, reference: str, *, timeout: float | None = None) -> Job:
        """A job by what people call it: full id, name (the newest of that name), or the beginning of one id.

        Raises JobNotFound, AmbiguousJob.
        """
        if _FULL_ID.fullmatch(reference):
            return Job(self, reference)
        async with time_limit(timeout):
            found = await self._called(reference)
        if len(found) == 1:
            return found[0]
        if not found:
            raise JobNotFound(f"no job '{reference}'", hint="jobctl list shows your jobs")
        raise AmbiguousJob(
            f"several jobs' ids begin with '{reference}'",
            candidates=tuple(job.id for job in found),
            hint="one of " + ", ".join([job.id for job in found[:3]] + ["…"] * (len(found) > 3)),
        )

    async def _called(self, reference: str) -> Sequence[Job]:
        """The newest job of that name, else those whose id begins so, as far as a refusal needs them."""
        try:
            named = [job async for job in self.list(name=reference, limit=1)] if reference else []
            if named:
                return named
        except InvalidArgument:
            pass  # what can be no name may still be the beginning of an id
        if not _ID_PREFIX.fullmatch(reference):
            return []
        return [job async for job in self.list(id_prefix=reference, limit=_CANDIDATES)]

    async def list(
        self,
        *,
        states: Iterable[int] = (),
        labels: Mapping[str, str] | None = None,
        owner: str = "",
        name: str = "",
        id_prefix: str = "",
        limit: int | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[Job]:
        """Jobs, newest first, that match all that is given; `states` are of JobState. Fetched page by page."""
        token, left = "", limit
        states = tuple(states)
        while True:
            request = requests.listing(
                states=states,
                labels=labels,
                owner=owner,
                name=name,
                id_prefix=id_prefix,
                page_size=page_size if left is None else min(left, 1000),
                page_token=token,
            )
            answer = await self.call("ListJobs", request)
            for record in parts(answer, 1)[:left]:
                yield Job(self, record_id(record), record=record)
                left = None if left is None else left - 1
            token = part(answer, 2).decode()
            if not token or left == 0:
                return

    async def worker(self, *, timeout: float | None = None) -> types.Worker:
        """What the worker is, what it can enforce, and who we are to it."""
        answer = await self.call("GetWorker", b"", service=requests.WORKER, timeout=timeout)
        return message(types.Worker, answer)

    async def register_client(
        self,
        client_id: str,
        *,
        certificate: bytes,
        role: int,
        unix_user: str | None = None,
        timeout: float | None = None,
    ) -> types.ClientRecord:
        """Registers the public key of a certificate (PEM or DER) under a name; for admins. `role` is a Role."""
        request = requests.register(client_id, role=role, certificate=certificate, unix_user=unix_user)
        answer = await self.call(
            "RegisterClient", request, service=requests.CLIENTS, timeout=timeout, patience=0
        )
        return message(types.ClientRecord, part(answer, 1))

    async def list_clients(self, *, timeout: float | None = None) -> Sequence[types.ClientRecord]:
        """Every registered client, revoked ones too; for admins."""
        answer = await self.call("ListClients", b"", service=requests.CLIENTS, timeout=timeout)
        return [message(types.ClientRecord, record) for record in parts(answer, 1)]

    async def revoke_client(self, client_id: str, *, timeout: float | None = None) -> types.ClientRecord:
        """Turns a client away from now on; its jobs run on. For admins."""
        answer = await self.call(
            "RevokeClient", requests.client(client_id), service=requests.CLIENTS, timeout=timeout
        )
        return message(types.ClientRecord, part(answer, 1))

    async def call(
        self,
        verb: str,
        request: bytes,
        *,
        service: str = requests.JOBS,
        timeout: float | None = None,
        patience: float | None = CALL_PATIENCE,
    ) -> bytes:
        """One call with encoded messages, for the verbs of this library; patience 0 never repeats it."""
        if timeout is None:
            return await self._repeat(service + verb, request, patience)
        async with time_limit(timeout):
            return await self._repeat(service + verb, request, patience)

    async def _repeat(self, method: str, request: bytes, patience: float | None) -> bytes:
        if patience == 0:
            return await self.connection.call(method, request)
        trust = Patience(self.connection, limit=patience)
        while True:
            try:
                return await self.connection.call(method, request)
            except Unavailable as error:
                await trust.wait(error)


def _start_request(spec: bytes, request_id: str | None, job_id: str | None) -> bytes:
    """A StartJobRequest or RunJobRequest that may be sent again: it always has a request id."""
    return requests.start(spec, request_id=request_id or requests.new_request_id(), job_id=job_id)
