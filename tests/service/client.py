"""A client made of the generated stubs alone, so that what is tested is the server and not our library."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import betterproto
import grpclib.client
import pytest
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

from generated.jobworker import v1
from generated.jobworker.v1 import (
    Chunk,
    ClientServiceStub,
    End,
    ErrorDetail,
    Gap,
    GetJobRequest,
    JobRecord,
    JobServiceStub,
    JobSpec,
    Position,
    RunJobRequest,
    StartJobRequest,
    StopJobRequest,
    Stream,
    StreamOutputRequest,
    WaitJobRequest,
    WorkerServiceStub,
)
from jobwire.codec import Codec, decode
from jobwire.http2 import Channel, Protocol
from tests.harness import Worker

PATIENCE = 20.0  # seconds

BASES: list[Any] = [v1.JobServiceBase(), v1.ClientServiceBase(), v1.WorkerServiceBase()]
METHODS = {path: handler for base in BASES for path, handler in base.__mapping__().items()}
FOREIGN = [
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]

Event = Chunk | Gap | End | JobRecord | Position
Events = AsyncGenerator[Event, None]


def tls(certificate: Path | None, authority: Path) -> ssl.SSLContext:
    """What a well-behaved client uses."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def address(worker: Worker) -> tuple[str, int]:
    host, _, port = worker.address.rpartition(":")
    return host, int(port)


@dataclass
class Run:
    """What a stream of output brought."""

    events: list[Event] = field(default_factory=list)

    @property
    def out(self) -> bytes:
        return self._bytes(1)

    @property
    def err(self) -> bytes:
        return self._bytes(2)

    @property
    def end(self) -> End:
        assert isinstance(self.events[-1], End)
        return self.events[-1]

    @property
    def started(self) -> JobRecord:
        assert isinstance(self.events[0], JobRecord)
        return self.events[0]

    def _bytes(self, stream: int) -> bytes:
        return b"".join(e.data for e in self.events if isinstance(e, Chunk) and int(e.stream) == stream)


async def close(channel: grpclib.client.Channel) -> None:
    """Closes a channel, and returns once its socket is closed."""
    transport = transport_of(channel) if channel._protocol is not None else None
    channel.close()
    if transport is not None:
        transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def transport_of(channel: grpclib.client.Channel) -> asyncio.Transport:
    """What the channel's connection is made of: to stop reading, or to cut it."""
    protocol = channel._protocol
    if isinstance(protocol, Protocol):
        return protocol.transport
    assert protocol is not None
    return protocol.connection._transport


class Client:
    """One connection of one client."""

    def __init__(self, worker: Worker, name: str = "alice", *, context: ssl.SSLContext | None = None) -> None:
        context = context or tls(worker.certificates.of(name), worker.certificates.authority)
        self.channel = Channel(*address(worker), codec=Codec(), ssl=context)
        self.jobs = JobServiceStub(self.channel)
        self.clients = ClientServiceStub(self.channel)
        self.worker = WorkerServiceStub(self.channel)

    async def close(self) -> None:
        """Ends the connection, and returns once it is gone."""
        await close(self.channel)

    async def start(self, *argv: str, request_id: str = "", **spec: Any) -> JobRecord:
        request = StartJobRequest(spec=JobSpec(argv=list(argv), **spec), request_id=request_id)
        return (await self.jobs.start_job(request, timeout=PATIENCE)).job

    async def run(self, *argv: str, request_id: str = "", **spec: Any) -> Run:
        return await collect(self.running(*argv, request_id=request_id, **spec))

    def running(self, *argv: str, request_id: str = "", **spec: Any) -> Events:
        """The events of RunJob as they come."""
        request = RunJobRequest(spec=JobSpec(argv=list(argv), **spec), request_id=request_id)
        return _events(self.jobs.run_job(request))

    def follow(self, job_id: str, *, follow: bool = True, streams: Sequence[int] = (), **span: Any) -> Events:
        """The events of StreamOutput as they come."""
        request = StreamOutputRequest(
            job_id=job_id, follow=follow, streams=[Stream.try_value(n) for n in streams], **span
        )
        return _events(self.jobs.stream_output(request))

    async def stop(self, job_id: str, **fields: Any) -> JobRecord:
        return (await self.jobs.stop_job(StopJobRequest(job_id=job_id, **fields), timeout=PATIENCE)).job

    async def get(self, job_id: str) -> JobRecord:
        return (await self.jobs.get_job(GetJobRequest(job_id=job_id), timeout=PATIENCE)).job

    async def wait(self, job_id: str) -> JobRecord:
        return (await self.jobs.wait_job(WaitJobRequest(job_id=job_id), timeout=PATIENCE)).job


async def _events(responses: AsyncIterator[betterproto.Message]) -> Events:
    async with aclosing(cast("AsyncGenerator[betterproto.Message, None]", responses)):
        async for response in responses:
            yield cast("Event", betterproto.which_one_of(response, "event")[1])


async def next_of(events: Events) -> Event:
    """The next event, which must come soon."""
    return await asyncio.wait_for(anext(events), PATIENCE)


async def collect(events: Events) -> Run:
    """All events to the end, which must come soon."""
    run = Run()
    async with asyncio.timeout(PATIENCE), aclosing(events):
        async for event in events:
            run.events.append(event)
    return run


@asynccontextmanager
async def connected(worker: Worker, name: str = "alice") -> AsyncIterator[Client]:
    client = Client(worker, name)
    try:
        yield client
    finally:
        await client.close()


@dataclass(frozen=True)
class Refusal:
    """How a call was refused."""

    status: Status
    message: str
    detail: ErrorDetail


async def refusal(call: Awaitable[object]) -> Refusal:
    """The refusal of a call that must not succeed."""
    with pytest.raises(GRPCError) as refused:
        await call
    return as_refusal(refused.value)


def as_refusal(error: GRPCError) -> Refusal:
    return Refusal(error.status, error.message or "", decode(ErrorDetail, error.details or b""))


async def until_said(client: Client, job_id: str, words: bytes) -> None:
    """Returns once the job's output contains the words."""
    said = b""
    async with asyncio.timeout(PATIENCE), aclosing(client.follow(job_id)) as events:
        async for event in events:
            said += event.data if isinstance(event, Chunk) else b""
            if words in said:
                return
    raise AssertionError(f"the job ended without saying {words!r}, but {said!r}")


class RawCodec(CodecBase):
    """Bytes out and bytes in."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


@asynccontextmanager
async def raw_channel(worker: Worker, name: str) -> AsyncIterator[Channel]:
    context = tls(worker.certificates.of(name), worker.certificates.authority)
    channel = Channel(*address(worker), codec=RawCodec(), ssl=context)
    try:
        yield channel
    finally:
        await close(channel)


async def send(channel: Channel, path: str, request: bytes) -> Refusal | None:
    """Sends a request of any bytes; how it was refused, or None when it was answered."""
    try:
        async with channel.request(path, Cardinality.UNARY_STREAM, bytes, bytes, timeout=PATIENCE) as stream:
            await stream.send_message(request, end=True)
            while await stream.recv_message() is not None:
                pass
    except GRPCError as error:
        return as_refusal(error)
    return None


async def still_serves(worker: Worker) -> None:
    async with connected(worker, "bob") as bob:
        await bob.worker.get_worker(v1.GetWorkerRequest(), timeout=PATIENCE)


async def abort(writer: asyncio.StreamWriter) -> None:
    """Closes a connection, and returns once its socket is closed."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
