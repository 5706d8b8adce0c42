"""What clients reach: the services behind the door, the server that speaks for them, and the connections it has.

Decides which services there are and what each is given, when nothing new is taken, and how what goes on is brought
to an end: followers are sent away to resume, other calls finish, and a connection is cut once its peer has read
all. When that is to happen, and what a call means, is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from grpclib.health.check import ServiceStatus

from generated.jobworker.v1 import ClientServiceBase, JobServiceBase, Storage, WorkerServiceBase
from jobwire.codec import Codec
from jobwire.http2 import Protocol, Server
from jobworker.domain import Domain
from jobworker.doorbell import Doorbell
from jobworker.errors import Unavailable
from jobworker.identity import Identity
from jobworker.keeping import describe
from jobworker.limits import unenforced
from jobworker.outputs import Outputs
from jobworker.rpc import standard
from jobworker.rpc.adjust import AdjustVerbs
from jobworker.rpc.calls import OpenCalls
from jobworker.rpc.clients import ClientVerbs
from jobworker.rpc.guard import Guard
from jobworker.rpc.jobs import JobVerbs
from jobworker.rpc.output import OutputVerbs
from jobworker.rpc.worker import Host, WorkerVerbs
from jobworker.settings import Settings

BACKLOG = 1024  # connections that wait to be accepted
GOODBYE_SECONDS = 1.0  # for the last bytes of the last answers


class Edge:
    """What clients reach: the server, its services behind the door, and the followers' files."""

    def __init__(self, domain: Domain, settings: Settings) -> None:
        max_request, patience = settings.max_request_bytes, settings.reader_patience
        self._domain = domain
        self._calls = OpenCalls()
        self._identity = Identity(domain.clients)
        self._outputs = Outputs()
        guard = Guard(
            identity=self._identity,
            calls=self._calls,
            audit=domain.audit,
            max_request=max_request,
            patience=None if patience is None else patience.total_seconds(),
        )
        jobs = domain.jobs
        verbs = [
            guard.service(
                JobServiceBase(), JobVerbs(jobs), AdjustVerbs(jobs), OutputVerbs(jobs, self._outputs)
            ),
            guard.service(
                ClientServiceBase(),
                ClientVerbs(domain.clients, calls=self._calls, identity=self._identity),
            ),
            guard.service(
                WorkerServiceBase(),
                WorkerVerbs(jobs, host=self._host, storage=self._storage, started_at=datetime.now(UTC)),
            ),
        ]
        self._serving, storing = ServiceStatus(), ServiceStatus()
        self._serving.set(True)
        domain.link.watch_storage(lambda blocked: storing.set(not blocked))
        health = standard.health(guard, verbs, serving=self._serving, also={verbs[0]: [storing]})
        services = [*verbs, health]
        self._server = Server(
            [*services, *standard.reflection(guard, services)], codec=Codec(), max_request=max_request
        )
        self._server._mapping = guard.every(self._server._mapping)

    async def start(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        """Serves on a socket that is bound."""
        self._doorbell = Doorbell(self._domain.state.path, heard=self._recheck)
        await self._server.start(sock=listener, ssl=context, backlog=BACKLOG)

    def refuse(self) -> None:
        """Takes nothing new: no connection, and no call on those that are there."""
        self._serving.set(False)
        assert self._server._server is not None
        self._server._server.close()  # only the listener; Server.close() would end every call without a word
        self._calls.refusal = Unavailable("the worker is shutting down", hint="try again once it is back")

    async def drain(self, *, seconds: float, hurry: asyncio.Event) -> None:
        """Ends followers with an invitation to resume, lets the other calls finish."""
        self._calls.end_waiting(
            Unavailable("the worker is shutting down", hint="the job runs on; resume once the worker is back")
        )
        await unless(hurry, self._calls.none(), seconds=seconds)
        await self._say_goodbye()
        self._doorbell.close()
        self._outputs.close()

    async def _say_goodbye(self) -> None:
        """Closes every connection once its peer has taken what was sent, or after a moment."""
        self._calls.end_all(Unavailable("the worker is shutting down", hint="try again once it is back"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._calls.none()
        connections = list(self._server.connections)
        taken = [_taken(protocol) for protocol in connections]
        if taken:
            await asyncio.wait(taken, timeout=GOODBYE_SECONDS)
        for protocol in connections:
            protocol.processor.close("the worker has shut down")
        for protocol in connections:
            protocol.transport.abort()

    def _recheck(self) -> None:
        self._calls.recheck(self._identity)

    def _storage(self) -> Storage:
        domain = self._domain
        return describe(
            domain.kept,
            domain.state.jobs,
            ended_bytes=domain.jobs.ended_bytes,
            blocked_jobs=domain.link.blocked_jobs,
        )

    def _host(self) -> Host:
        welcome = self._domain.link.welcome
        assert welcome is not None, "the link was opened before anything was served"
        cgroup = welcome["cgroup"]
        return Host(
            welcome["pid"], cgroup["mode"], cgroup["controllers"], unenforced(cgroup.get("unenforced", ()))
        )


async def unless(
    hurry: asyncio.Event, work: Coroutine[Any, Any, None], *, seconds: float | None = None
) -> None:
    """Does the work, for as long as nobody is in a hurry."""
    tasks = {asyncio.create_task(work), asyncio.create_task(hurry.wait())}
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _taken(protocol: Protocol) -> asyncio.Future[None]:
    """Done when the peer has answered a ping: it has read everything before it.

    grpclib's client, for one, forgets the status of a call when it finds the connection closed beside it.
    """
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_answer() -> None:
        if not answered.done():
            answered.set_result(None)

    connection = protocol.connection
    connection.ping_ack_process = on_answer  # type: ignore[method-assign]
    connection._connection.ping(b"farewell")
    connection.flush()
    return answered
