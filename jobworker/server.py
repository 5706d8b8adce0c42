"""The API server: the only place that wires things together; start, ready, drain, stop.

Decides the order in which parts come up and go down, and what signals mean: SIGTERM and SIGINT drain (a
second one does not wait), SIGHUP reads the certificates again. The address is bound first, and served only
once everything is known. What a request means is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uvloop
from grpclib.health.check import ServiceStatus

from generated.jobworker.v1 import ClientServiceBase, JobServiceBase, Storage, WorkerServiceBase
from jobwire import __version__
from jobwire.codec import Codec
from jobwire.http2 import Protocol, Server
from jobworker.doorbell import Doorbell
from jobworker.durability import Durability
from jobworker.errors import FailedPrecondition, JobworkerError, Unavailable
from jobworker.identity import Identity, reload_context, server_context
from jobworker.jobs import Jobs
from jobworker.keeping import Keeping, describe, keeping
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
from jobworker.settingvalues import Address
from jobworker.statedir import StateDirectory
from jobworker.store import AuditStore, ClientStore, Database, JobStore
from jobworker.supervisorlink import SupervisorLink

BACKLOG = 1024  # connections that wait to be accepted
GOODBYE_SECONDS = 1.0  # for the last bytes of the last answers

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """`serve` on an event loop of its own, the fast one."""
    uvloop.run(serve(settings))


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT; JobworkerError when it cannot begin."""
    context = server_context(cert=settings.cert, key=settings.key, client_ca=settings.client_ca)
    with listen(settings.listen) as listener:
        async with _domain(settings) as domain:
            _allow_many_files()
            edge = Edge(domain, settings)
            signals = _Signals(reload=lambda: _reload(context, settings))
            await edge.start(listener, context)
            with contextlib.suppress(OSError):  # that nobody hears it is no reason not to serve
                os.write(1, f"{_ready(listener, settings, domain)}\n".encode())
            await signals.stop.wait()
            edge.refuse()
            if settings.stop_jobs:
                await _unless(signals.hurry, domain.jobs.stop_all())
            await edge.drain(seconds=settings.drain_seconds, hurry=signals.hurry)


@dataclass(frozen=True, slots=True)
class Domain:
    """The parts that know no network."""

    state: StateDirectory
    clients: ClientStore
    audit: AuditStore
    link: SupervisorLink
    jobs: Jobs
    kept: Keeping


@asynccontextmanager
async def _domain(settings: Settings) -> AsyncIterator[Domain]:
    """Everything that is served, in the order in which each needs the one before; closed the other way round."""
    async with AsyncExitStack() as resources:
        state = StateDirectory.open(settings.state, scratch=settings.scratch)
        resources.callback(state.close)
        durability = Durability(state)
        resources.push_async_callback(durability.close)
        loop = asyncio.get_running_loop()
        database = Database.open(state.path, loop=loop, committed=durability.record_written)
        resources.callback(database.close)
        link = SupervisorLink(state.path, cgroup_root=settings.cgroup_root)
        resources.push_async_callback(link.close)
        kept = keeping(settings)
        jobs = Jobs(state, JobStore(database), link, kept=kept, ended=durability.job_ended)
        resources.push_async_callback(_leave, jobs, link)
        await jobs.open()
        clients = ClientStore(database, uid_range=settings.uid_range)
        yield Domain(state, clients, AuditStore(database), link, jobs, kept)


async def _leave(jobs: Jobs, link: SupervisorLink) -> None:
    """Lets go of the jobs; the supervisor goes too when there are none."""
    running, _ = jobs.counts()
    await jobs.close()
    if not await link.shut_down_if_idle() and running:
        word = "1 job runs" if running == 1 else f"{running} jobs run"
        sys.stderr.write(f"{word} on under the supervisor; `jobworker serve` takes them up again\n")


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
        await _unless(hurry, self._calls.none(), seconds=seconds)
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


async def _unless(
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


class _Signals:
    """What the operator asks for: `stop`, then `hurry`."""

    def __init__(self, *, reload: Callable[[], None]) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, reload)

    def _on_stop(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()


def listen(address: Address) -> socket.socket:
    """A socket bound to the address; FailedPrecondition says why there is none."""
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = str(error.strerror)
        if error.errno is not None and error.errno > 0:  # else it is one of getaddrinfo's
            reason = os.strerror(error.errno)
        raise FailedPrecondition(
            f"cannot listen on {address}: {reason.lower()}", hint="give another --listen HOST:PORT"
        ) from error


def _reload(context: ssl.SSLContext, settings: Settings) -> None:
    try:
        reload_context(context, cert=settings.cert, key=settings.key, client_ca=settings.client_ca)
    except JobworkerError as error:
        log.error("%s; going on with the certificates as they were", error)
    else:
        log.warning("certificates read again; new connections use them")


def _allow_many_files() -> None:
    """Each connection and each followed job needs descriptors; the soft limit is usually 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _ready(listener: socket.socket, settings: Settings, domain: Domain) -> str:
    host, port = listener.getsockname()[:2]
    users = "one uid per client" if os.geteuid() == 0 else "jobs run as the worker's own user"
    return (
        f"jobworker {__version__} serving on {Address(host, port)}, state {settings.state}, "
        f"cgroups: {_cgroups(domain)}, {users}"
    )


def _cgroups(domain: Domain) -> str:
    assert domain.link.welcome is not None
    cgroup = domain.link.welcome["cgroup"]
    places: dict[str, list[str]] = {}
    for controller, version in cgroup["controllers"].items():
        places.setdefault(version, []).append(controller)
    parts = [f"{', '.join(names)} on {version}" for version, names in sorted(places.items())]
    return f"{cgroup['mode']} ({'; '.join(parts) or 'no controllers'})"
