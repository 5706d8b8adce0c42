"""Health and reflection, as any gRPC tool uses them: for registered clients only."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.v1.reflection_grpc import ServerReflectionStub
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from jobwire import wire
from jobwire.http2 import Channel
from tests.harness import Worker
from tests.service.client import PATIENCE, address, close, refusal, tls

SERVICES = ["jobworker.v1.JobService", "jobworker.v1.ClientService", "jobworker.v1.WorkerService"]


class GoogleCodec(CodecBase):
    """For Google's own classes."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message.SerializeToString())

    def decode(self, data: bytes, message_type: Any) -> Any:
        return message_type.FromString(data)


def service_names(file: bytes) -> set[object]:
    """Names of the services in an encoded FileDescriptorProto: field 6 has them, their names are field 1."""
    services = [cast("bytes", value) for number, _, value in wire.fields(file) if number == 6]
    return {value for service in services for number, _, value in wire.fields(service) if number == 1}


@pytest.fixture
async def channel(worker: Worker) -> AsyncIterator[Channel]:
    context = tls(worker.certificates.of("carol"), worker.certificates.authority)
    channel = Channel(*address(worker), codec=GoogleCodec(), ssl=context)
    yield channel
    await close(channel)


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_every_service_is_serving(channel: Channel, service: str) -> None:
    response = await HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=PATIENCE)
    assert response.status == HealthCheckResponse.SERVING


async def test_an_unknown_service_is_not_found(channel: Channel) -> None:
    refused = await refusal(
        HealthStub(channel).Check(HealthCheckRequest(service="no.such"), timeout=PATIENCE)
    )
    assert refused.status is Status.NOT_FOUND


async def test_health_can_be_watched(channel: Channel) -> None:
    async with HealthStub(channel).Watch.open(timeout=PATIENCE) as stream:
        await stream.send_message(HealthCheckRequest(), end=True)
        response = await stream.recv_message()
        assert response is not None
        assert response.status == HealthCheckResponse.SERVING
        await stream.cancel()


async def test_strangers_are_not_told(worker: Worker) -> None:
    context = tls(worker.certificates.of("mallory"), worker.certificates.authority)
    channel = Channel(*address(worker), codec=GoogleCodec(), ssl=context)
    refused = await refusal(HealthStub(channel).Check(HealthCheckRequest(), timeout=PATIENCE))
    assert refused.status is Status.UNAUTHENTICATED
    await close(channel)


async def test_bytes_that_are_no_message_are_refused(channel: Channel) -> None:
    class Raw(GoogleCodec):
        def encode(self, message: Any, message_type: Any) -> bytes:
            return bytes(message)

    raw = Channel(channel._host, channel._port, codec=Raw(), ssl=channel._ssl)

    async def ask() -> None:
        path = "/grpc.health.v1.Health/Check"
        async with raw.request(
            path, Cardinality.UNARY_UNARY, bytes, HealthCheckResponse, timeout=PATIENCE
        ) as stream:
            await stream.send_message(b"\x0a\xff", end=True)
            await stream.recv_message()

    assert (await refusal(ask())).status is Status.INVALID_ARGUMENT
    await close(raw)


async def test_reflection_tells_every_service_and_its_files(channel: Channel) -> None:
    async def ask(request: ServerReflectionRequest) -> ServerReflectionResponse:
        await stream.send_message(request)
        response = await stream.recv_message()
        assert response is not None
        return response

    async with ServerReflectionStub(channel).ServerReflectionInfo.open(timeout=PATIENCE) as stream:
        listed = await ask(ServerReflectionRequest(list_services=""))
        names = [service.name for service in listed.list_services_response.service]
        assert names == [*SERVICES, "grpc.health.v1.Health"]
        for name in names:
            found = await ask(ServerReflectionRequest(file_containing_symbol=name))
            file = found.file_descriptor_response.file_descriptor_proto[0]
            assert name.rpartition(".")[2].encode() in service_names(file)
        timestamp = await ask(ServerReflectionRequest(file_by_filename="google/protobuf/timestamp.proto"))
        assert timestamp.HasField("file_descriptor_response")
        missing = await ask(ServerReflectionRequest(file_containing_symbol="no.such"))
        assert missing.error_response.error_code == Status.NOT_FOUND.value
        await stream.end()
