"""grpclib's server and channel with the settings its constructor does not offer; both ends use them.

All knowledge of the insides of grpclib and h2 is here and, for what goes on within a call, in `http2calls`; each
piece with its reason, and tests/unit/test_http2.py fails when the libraries change under it:

- frames of up to 1 MiB instead of 16 KiB to clients: output is bulk data, and the cost in Python is per frame;
- a frame's repr is not made for a log line that nobody asked for (it hex-dumps the payload);
- a connection window far above a stream's window: one unread stream must not block the others;
- more than 100 streams on one connection;
- a dead peer is noticed by the kernel (see `tuning`), not by timers: an idle connection costs nothing;
- what a peer can have us keep is limited: header blocks, our compression state, answers to pings it does not read;
- what its peer may not send ends a connection, without a traceback;
- a connection that sends without end does not keep the server from the others;
- the server's connections are countable, and each can be cut.

Source: RFC 9113 (HTTP/2) sections 4.1, 5.2 and 6.5.2.
"""

import errno
import os
from asyncio import (
    BaseTransport,
    CancelledError,
    Task,
    Transport,
    current_task,
    get_running_loop,
    sleep,
    wait,
)
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

import grpclib.client
import grpclib.protocol
import grpclib.server
import hyperframe.frame
from grpclib.config import Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from jobwire.details import DetailsCodec
from jobwire.http2calls import Connection, EventsProcessor, Handler
from jobwire.tuning import CorkedTransport, keep_large_blocks, tune

if TYPE_CHECKING:
    import ssl

    from grpclib.encoding.base import CodecBase

MAX_FRAME = 1 << 20  # bytes
MAX_REQUEST_FRAME = 64 << 10  # bytes; h2 collects 64 frames of one header block before it has had enough
STREAM_WINDOW = 4 << 20  # bytes a peer may send on a stream before we have read them
CONNECTION_WINDOW = 256 << 20
MAX_STREAMS = 10_000  # on one connection
MAX_REQUEST = 4 << 20  # bytes in one message to the server
MAX_RESPONSE = 64 << 20  # bytes in one message to the client
MAX_UNREAD = 8 << 20  # bytes written beyond what the peer takes; calls wait far below it
MAX_STILLBORN = 1000  # calls that one connection opens and resets before they begin
TURN = 8 << 10  # bytes that the server takes from one connection before it looks at the others
MAX_TABLE = 4096  # bytes of headers that we remember for their compression, and look through for each

# h2 makes the repr of every received frame for its trace log, and hyperframe's repr hexlifies the payload:
# a quarter of the time of a client that receives bulk data.
hyperframe.frame.Frame.__repr__ = object.__repr__  # type: ignore[method-assign]


class Protocol(grpclib.protocol.H2Protocol):
    """One connection. `transport` is the asyncio transport: for its ssl_object, and to abort it."""

    transport: Transport

    def __init__(self, *args: Any, max_message: int, peers: "set[Protocol] | None" = None) -> None:
        super().__init__(*args)
        self._max_message = max_message
        self._peers = peers

    def connection_made(self, transport: BaseTransport) -> None:
        """As grpclib's, with our settings in the first SETTINGS frame."""
        self.transport = cast("Transport", transport)
        tune(transport.get_extra_info("socket"))
        h2 = H2Connection(config=self.h2_config)
        max_frame = MAX_FRAME if self.h2_config.client_side else MAX_REQUEST_FRAME
        h2.local_settings = Settings(
            client=bool(self.h2_config.client_side),
            initial_values={
                SettingCodes.MAX_FRAME_SIZE: max_frame,
                SettingCodes.INITIAL_WINDOW_SIZE: self.config.http2_stream_window_size,
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: 64 << 10,
                SettingCodes.ENABLE_PUSH: 0,
            },
        )
        h2.max_inbound_frame_size = max_frame
        h2.initiate_connection()
        h2.increment_flow_control_window(self.config.http2_connection_window_size - 65535)
        corked = cast("Transport", CorkedTransport(self.transport, get_running_loop()))
        self.connection = Connection(h2, corked, config=self.config)
        self.connection.max_message = self._max_message
        self.connection.flush()
        self.connection.initialize()
        self.processor = EventsProcessor(self.handler, self.connection)
        if self._peers is not None:
            self._peers.add(self)

    def data_received(self, data: bytes) -> None:
        if self._peers is None or len(data) <= TURN:
            self._take(data)
        else:
            self.transport.pause_reading()
            self._take_in_turns(data)

    def _take_in_turns(self, data: bytes, at: int = 0) -> None:
        """A little, then what others have sent, then the rest: thousands of requests or pings fit into one read."""
        self._take(data[at : at + TURN])
        if at + TURN < len(data):
            get_running_loop().call_soon(self._take_in_turns, data, at + TURN)
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def _take(self, data: bytes) -> None:
        if self.transport.is_closing():  # grpclib has let go of what would read it
            return
        try:
            super().data_received(data)
        except UnicodeDecodeError:  # of a header
            self.processor.close("Protocol error")
        encoder = self.connection._connection.encoder
        if encoder.header_table_size > MAX_TABLE:  # noqa: PLR1730 - to set it is to tell the peer
            encoder.header_table_size = MAX_TABLE
        unread = self.transport.get_write_buffer_size()
        if unread > MAX_UNREAD or getattr(self.handler, "stillborn", 0) > MAX_STILLBORN:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._peers is not None:
            self._peers.discard(self)
        super().connection_lost(exc)


class Server(grpclib.server.Server):
    """grpclib's server; `connections` holds every live connection."""

    def __init__(
        self, handlers: Collection[Any], *, codec: "CodecBase", max_request: int = MAX_REQUEST
    ) -> None:
        keep_large_blocks()
        super().__init__(handlers, codec=codec, status_details_codec=DetailsCodec(), config=_CONFIGURATION)
        self.connections: set[Protocol] = set()
        self._max_request = max_request

    def _protocol_factory(self) -> Protocol:
        self.__gc_step__()
        handler = Handler(self._mapping, self._codec, self._status_details_codec, self.__dispatch__)
        self._handlers.add(handler)
        return Protocol(
            handler, self._config, self._h2_config, max_message=self._max_request, peers=self.connections
        )


class Channel(grpclib.client.Channel):
    """grpclib's channel. It connects on the first call, and again on the next call after a lost connection."""

    def __init__(self, host: str, port: int, *, codec: "CodecBase", ssl: "ssl.SSLContext | None") -> None:
        keep_large_blocks()
        super().__init__(
            host, port, codec=codec, status_details_codec=DetailsCodec(), ssl=ssl, config=_CONFIGURATION
        )
        self._closed = False
        self._making: Task[grpclib.protocol.H2Protocol] | None = None

    def close(self) -> None:
        """Closes the connection, also one that is only being made, for good: nobody would close another."""
        self._closed = True
        if self._making is not None:
            self._making.cancel()
        protocol = cast("Protocol | None", self._protocol)
        super().close()
        if protocol is not None:
            protocol.transport.abort()  # the polite way waits for the peer's close_notify

    async def wait_closed(self) -> None:
        """Returns once the socket of a channel that was closed is closed."""
        if self._making is not None:
            await wait({self._making})
        await _two_turns()

    async def _create_connection(self) -> grpclib.protocol.H2Protocol:
        if not self._closed:
            self._making = get_running_loop().create_task(super()._create_connection())
            try:
                protocol = cast("Protocol", await self._making)
            except CancelledError:
                if not self._closed or cast("Task[Any]", current_task()).cancelling():
                    raise
            else:
                if not self._closed:
                    return protocol
                protocol.transport.abort()
                await _two_turns()
            finally:
                self._making = None
        raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))

    def _protocol_factory(self) -> Protocol:
        plain = super()._protocol_factory()
        return Protocol(plain.handler, plain.config, plain.h2_config, max_message=MAX_RESPONSE)


async def _two_turns() -> None:
    """Of the loop, after which a transport that was aborted is closed: one for TLS, one for the socket under it."""
    for _ in range(2):
        await sleep(0)


_CONFIGURATION = Configuration(
    _keepalive_time=None,
    http2_connection_window_size=CONNECTION_WINDOW,
    http2_stream_window_size=STREAM_WINDOW,
)
