"""One call's bytes: the request's one message in, any number of ready-made messages out.

grpclib's own way out costs more than the rest of a short call, and copies bulk data ten times. Here headers
are constants, and messages, given as their parts, are joined once, with the frame around them, into what
the transport gets. h2 keeps the books: flow control windows and the stream's state; the flags that grpclib
keeps on its stream are kept true, so that it still ends a call by itself, with a status, when this module
has not. What does not fit the peer's window or frames goes grpclib's way. A peer that takes nothing is not
waited for without end.

Sources: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md; RFC 9113 (HTTP/2) sections 4.1, 6.1
and 6.2; RFC 7541 (HPACK) section 6.2.2
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream
from h2.exceptions import StreamClosedError
from h2.stream import H2Stream

from jobworker.errors import InvalidArgument, ResourceExhausted, Unavailable

LARGE = 16 * 1024  # bytes; after sending more than this the other calls get a turn
PART = 64 * 1024  # bytes that are given to grpclib at once, when they do not fit the peer's window or frames
FRAME = 256 * 1024  # bytes; messages that together have no more share a frame

_PREFIX = struct.Struct(">BI")  # compressed, length
_FRAME_HEADER = struct.Struct(">BHBBI")  # length in two parts, type, flags, stream
_DATA, _HEADERS = 0, 1
_END_STREAM, _END_HEADERS = 1, 4

# Literal header fields without indexing: they leave the connection's compression state as it is.
_TYPE = b"application/grpc+proto"
_BEGIN = b"\x88" + b"\x0f\x10" + bytes((len(_TYPE),)) + _TYPE  # :status 200 (8), content-type (31)
_END_OK = b"\x00\x0bgrpc-status\x010"

ServerStream = Stream[Any, Any]
Parts = Sequence[bytes | memoryview]  # of one encoded message


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
    """What the server sends in one call.

    A peer that takes nothing for `patience` seconds, when something is to be sent, gets Unavailable instead; None
    waits for ever. What is held for it meanwhile is what was given to `send`.
    """

    __slots__ = ("_h2", "_id", "_patience", "_ready", "_stream", "_target")

    def __init__(self, stream: ServerStream, *, patience: float | None = None) -> None:
        self._patience = patience
        self._stream = stream
        self._target = stream._stream
        self._h2 = self._target._h2_connection
        self._ready = self._target.connection.write_ready
        assert self._target.id is not None
        self._id = self._target.id

    async def send(self, messages: Iterable[Parts]) -> None:
        """Sends messages in order; waits while the peer takes no more, and gives the others a turn after a large one."""
        group: list[bytes | memoryview] = []
        size = 0
        for message in messages:
            length = sum(map(len, message))
            if group and size + length > FRAME:
                await self._write(group, size)
                group, size = [], 0
            group.append(_PREFIX.pack(0, length))
            group += message
            size += length + _PREFIX.size
        if group:
            await self._write(group, size)
        if size > LARGE:
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Ends the call well."""
        await self._connection_takes()
        beginning = self._beginning()
        self._state().end_stream()  # the frame it gives back is not the one we send
        self._stream._send_trailing_metadata_done = True
        self._target._transport.write(
            _frame(_HEADERS, _END_STREAM | _END_HEADERS, self._id, (_END_OK,), len(_END_OK), before=beginning)
        )

    async def _write(self, parts: list[bytes | memoryview], size: int) -> None:
        while True:
            await self._connection_takes()
            if size <= self._window():
                break
            if not self._will_fit(size):
                return await self._write_in_parts(b"".join(parts))
            await self._window_grows()
        if size > self._h2.max_outbound_frame_size:
            return await self._write_in_parts(b"".join(parts))
        self._h2.outbound_flow_control_window -= size
        self._state().outbound_flow_control_window -= size
        self._target._transport.write(_frame(_DATA, 0, self._id, parts, size, before=self._beginning()))
        self._stream._send_message_done = True
        return None

    def _will_fit(self, size: int) -> bool:
        """Whether to wait until the peer takes all of it: cut short in the middle, its end would not be understood."""
        window = self._h2.remote_settings.initial_window_size
        return 2 * size <= window and size <= self._h2.outbound_flow_control_window

    async def _write_in_parts(self, data: bytes) -> None:
        self._target._transport.write(self._beginning())
        for start in range(0, len(data), PART):
            async with self._limited():
                await self._target.send_data(data[start : start + PART])
        self._stream._send_message_done = True

    async def _connection_takes(self) -> None:
        """Returns when the connection has room; all of its calls are woken at once, and the first may take it."""
        while not self._ready.is_set():
            async with self._limited():
                await self._ready.wait()

    async def _window_grows(self) -> None:
        """Returns when the peer has taken something of this stream; what it takes of others does not count."""
        before = self._window()
        async with self._limited():
            while self._window() <= before:
                self._target.window_updated.clear()
                await self._target.window_updated.wait()

    @asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience):
                yield
        except TimeoutError:
            raise Unavailable(
                f"nothing of the stream was taken for {self._patience:g} seconds",
                hint="the job runs on; resume with what comes next once there is room for it",
            ) from None

    def _window(self) -> int:
        """Bytes that the peer would take now."""
        window: int = min(self._h2.outbound_flow_control_window, self._state().outbound_flow_control_window)
        return window

    def _state(self) -> H2Stream:
        """What h2 knows of the stream; StreamClosedError when the peer has ended it."""
        state = self._h2.streams.get(self._id)
        if state is None or state.closed:
            raise StreamClosedError(self._id)
        return state

    def _beginning(self) -> bytes:
        """The response's headers, the first time."""
        if self._stream._send_initial_metadata_done:
            return b""
        self._stream._send_initial_metadata_done = True
        return _frame(_HEADERS, _END_HEADERS, self._id, (_BEGIN,), len(_BEGIN))


def _frame(
    kind: int,
    flags: int,
    stream_id: int,
    parts: Iterable[bytes | memoryview],
    size: int,
    *,
    before: bytes = b"",
) -> bytes:
    """A whole frame after the bytes `before`."""
    header = _FRAME_HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream_id)
    return b"".join((before, header, *parts))
