"""The two services every gRPC tool knows: health and reflection, grpclib's own, behind our door.

They speak Google's generated classes; `MessageStream` stands between those and the bytes that the door
deals in. Health says NOT_SERVING once the worker shuts down, and of a service when what it needs is not well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]  # few lines need it
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # as above
from grpclib.const import Handler
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.health.v1 import health_pb2
from grpclib.reflection.service import ServerReflection
from grpclib.reflection.v1 import reflection_pb2

import generated
from jobwire.wire import WireError, fields
from jobworker.rpc import status
from jobworker.rpc.guard import Guard, Guarded
from jobworker.rpc.streams import Reply, ServerStream, receive_next

DESCRIPTORS = Path(generated.__path__[0]) / "descriptors.binpb"  # buf build's image of api/
MAX_REQUEST = 64 * 1024  # bytes


class MessageStream:
    """grpclib's server stream as its own services use it: Google's messages in and out."""

    def __init__(self, stream: ServerStream, handler: Handler) -> None:
        self._stream = stream
        self._reply = Reply(stream)
        self._request: Any = handler.request_type
        self.send_trailing_metadata = stream.send_trailing_metadata

    async def recv_message(self) -> Any:
        data = await receive_next(self._stream, limit=MAX_REQUEST)
        if data is None:
            return None
        try:
            return self._request.FromString(data)
        except DecodeError as error:
            raise status.from_wire(WireError(str(error))) from error

    async def send_message(self, message: Any) -> None:
        await self._reply.send(((message.SerializeToString(),),))

    def __aiter__(self) -> MessageStream:
        return self

    async def __anext__(self) -> Any:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message


def health(
    guard: Guard,
    services: list[Guarded],
    *,
    serving: ServiceStatus,
    also: Mapping[Guarded, Sequence[ServiceStatus]],
) -> Guarded:
    """The health service: all that `serving` says, and for some services what else must be well."""
    checks: dict[Any, list[ServiceStatus]] = {OVERALL: [serving]}
    checks |= {service: [serving, *also.get(service, ())] for service in services}
    return guard.foreign(Health(checks), wrap=MessageStream)


def reflection(guard: Guard, services: list[Guarded]) -> list[Guarded]:
    """The reflection services (v1 and v1alpha) for these services and themselves."""
    added = ServerReflection.extend(services, pool=_pool())[len(services) :]
    return [guard.foreign(service, wrap=MessageStream) for service in added]


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for _, _, file in fields(DESCRIPTORS.read_bytes()):  # a FileDescriptorSet has but one field
        pool.AddSerializedFile(file)
    for known in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    return pool
