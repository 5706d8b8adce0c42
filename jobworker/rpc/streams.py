"""One call's bytes: the request's one message in, any number of ready-made messages out.

grpclib's own ways in and out cost more than the rest of a short call: events for listeners we do not have,
headers built anew each time, a message at a time. Here headers are constant and messages are bytes that are
encoded already, any number at once. The flags that grpclib keeps on its stream are kept true, so that it
still ends a call by itself, with a status, when this module has not.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from jobworker.errors import InvalidArgument, ResourceExhausted

LARGE = 16 * 1024  # bytes; after sending more than this the other calls get a turn

_PREFIX = struct.Struct(">BI")  # compressed, length
_BEGIN = [(":status", "200"), ("content-type", "application/grpc+proto")]
_END_OK = [("grpc-status", "0")]

ServerStream = Stream[Any, Any]


async def receive(stream: ServerStream, *, limit: int) -> bytes:
    """The request's one message; ResourceExhausted, before it is buffered, when it has over `limit` bytes."""
    message = await receive_next(stream, limit=limit)
    if message is None:
        raise InvalidArgument("the request has no message", field="", hint="send exactly one message")
    return message


async def receive_next(stream: ServerStream, *, limit: int) -> bytes | None:
    """The next message of a call that sends several, None after the last one."""
    source = stream._stream
    try:
        prefix = await source.recv_data(5)
        if not prefix:
            return None
        compressed, size = _PREFIX.unpack(prefix)
        if compressed:
            raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not supported")
        if size > limit:
            raise ResourceExhausted(
                f"a request of {size} bytes is over the limit of {limit} bytes",
                hint="put large data in a file that the job reads",
            )
        return await source.recv_data(size)
    except AssertionError:  # grpclib's word for a stream that ends early
        raise InvalidArgument(
            "the request is cut off", field="", hint="send as many bytes as its prefix says"
        ) from None


class Reply:
    """What the server sends in one call; whatever leaves in one turn of the event loop leaves in one write."""

    __slots__ = ("_stream", "_target")

    def __init__(self, stream: ServerStream) -> None:
        self._stream = stream
        self._target = stream._stream

    async def send(self, messages: Sequence[bytes]) -> None:
        """Sends messages in order; waits while the peer takes no more, and gives the others a turn after a large one."""
        data = _framed(messages)
        await self._begin()
        await self._target.send_data(data)
        self._stream._send_message_done = True
        if len(data) > LARGE:
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Ends the call well."""
        await self._begin()
        await self._target.send_headers(_END_OK, end_stream=True)
        self._stream._send_trailing_metadata_done = True

    async def _begin(self) -> None:
        if not self._stream._send_initial_metadata_done:
            await self._target.send_headers(_BEGIN)
            self._stream._send_initial_metadata_done = True


def _framed(messages: Sequence[bytes]) -> bytes:
    parts: list[bytes] = []
    for message in messages:
        parts += (_PREFIX.pack(0, len(message)), message)
    return b"".join(parts)
