"""What jobwire.http2 and http2calls rely on inside grpclib and h2, seen from outside over a real socket."""

import asyncio
import gc
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast
from unittest import mock

import grpclib.const
import hyperframe.frame
import pytest
from grpclib.client import UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.connection import H2Connection
from h2.settings import SettingCodes

from generated.jobworker.v1 import ErrorDetail
from jobwire import codec, http2

LIMIT = 1 << 20


class Echo:
    """Answers with what it got; /fail with an error that has a detail; /hold when released; /flood for ever."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.called = asyncio.Event()
        self.calls: Callable[[], Any] = lambda: (
            None
        )  # the last one that was held or flooded, while it is there

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        unary, streaming = grpclib.const.Cardinality.UNARY_UNARY, grpclib.const.Cardinality.UNARY_STREAM
        return {
            "/echo": grpclib.const.Handler(self.echo, unary, bytes, bytes),
            "/fail": grpclib.const.Handler(self.fail, unary, bytes, bytes),
            "/hold": grpclib.const.Handler(self.hold, unary, bytes, bytes),
            "/flood": grpclib.const.Handler(self.flood, streaming, bytes, bytes),
        }

    async def echo(self, stream: Any) -> None:
        await stream.send_message(await stream.recv_message())

    async def fail(self, stream: Any) -> None:
        raise GRPCError(
            Status.INVALID_ARGUMENT, "no", codec.encode(ErrorDetail(field="spec.argv", hint="näher"))
        )

    async def hold(self, stream: Any) -> None:
        self._note(stream)
        await self.release.wait()
        await stream.send_message(b"released")

    async def flood(self, stream: Any) -> None:
        self._note(stream)
        while True:
            await stream.send_message(bytes(100_000))

    def _note(self, stream: Any) -> None:
        self.calls = weakref.ref(stream)
        self.called.set()


@asynccontextmanager
async def loopback() -> AsyncIterator[tuple[http2.Server, http2.Channel, Echo]]:
    echo = Echo()
    server = http2.Server([echo], codec=codec.Codec(), max_request=LIMIT)
    sock = socket.create_server(("127.0.0.1", 0))
    await server.start(sock=sock)
    channel = http2.Channel("127.0.0.1", sock.getsockname()[1], codec=codec.Codec(), ssl=None)
    try:
        async with asyncio.timeout(20):
            yield server, channel, echo
    finally:
        channel.close()
        server.close()
        for connection in list(server.connections):
            connection.transport.abort()
        await server.wait_closed()


def unary(channel: http2.Channel, path: str) -> UnaryUnaryMethod[bytes, bytes]:
    return UnaryUnaryMethod(channel, path, bytes, bytes)


async def test_both_ends_may_send_larger_frames_than_usual() -> None:
    async with loopback() as (server, channel, _):
        assert await unary(channel, "/echo")(b"x") == b"x"
        (theirs,) = server.connections
        ours = await channel.__connect__()
        assert theirs.connection._connection.max_outbound_frame_size == http2.MAX_FRAME
        assert ours.connection._connection.max_outbound_frame_size == http2.MAX_REQUEST_FRAME
        body = bytes(range(256)) * 4000
        assert await unary(channel, "/echo")(body) == body


async def test_more_than_a_hundred_calls_on_one_connection() -> None:
    async with loopback() as (server, channel, echo):
        calls = [asyncio.create_task(unary(channel, "/hold")(b"")) for _ in range(250)]
        assert await unary(channel, "/echo")(b"the 251st") == b"the 251st"
        echo.release.set()
        assert await asyncio.gather(*calls) == [b"released"] * 250
        assert len(server.connections) == 1


async def test_a_message_over_the_limit_is_refused_before_it_is_there() -> None:
    async with loopback() as (_, channel, _echo):
        with pytest.raises(GRPCError) as caught:
            await unary(channel, "/echo")(bytes(LIMIT + 1))
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert await unary(channel, "/echo")(bytes(LIMIT)) == bytes(LIMIT)


async def test_an_unread_stream_does_not_block_other_calls() -> None:
    async with (
        loopback() as (_, channel, _echo),
        UnaryStreamMethod(channel, "/flood", bytes, bytes).open() as stream,
    ):
        await stream.send_message(b"", end=True)
        assert await stream.recv_message() == bytes(100_000)
        for _ in range(20):
            assert await unary(channel, "/echo")(bytes(500_000)) == bytes(500_000)
        await stream.cancel()


async def test_a_call_that_is_reset_at_once_leaves_nothing_behind() -> None:
    async with loopback() as (server, channel, _echo):
        await unary(channel, "/echo")(b"")
        ours = await channel.__connect__()
        h2 = ours.connection._connection
        for _ in range(50):
            number = h2.get_next_available_stream_id()
            h2.send_headers(number, [(":method", "POST"), (":path", "/hold"), ("te", "trailers")])
            h2.reset_stream(number)
        ours.connection.flush()
        await unary(channel, "/echo")(b"")
        (theirs,) = server.connections
        assert len(theirs.processor.streams) <= 1


async def test_a_peer_does_not_say_how_many_headers_we_remember() -> None:
    async with loopback() as (server, channel, _echo):
        await unary(channel, "/echo")(b"")
        ours = (await channel.__connect__()).connection
        ours._connection.update_settings({SettingCodes.HEADER_TABLE_SIZE: 1 << 30})
        ours.flush()
        await unary(channel, "/echo")(b"")
        (theirs,) = server.connections
        encoder = theirs.connection._connection.encoder
        assert theirs.connection._connection.remote_settings.header_table_size == 1 << 30
        assert encoder.header_table_size == http2.MAX_TABLE
        ours._connection.update_settings({SettingCodes.HEADER_TABLE_SIZE: 100})
        ours.flush()
        await unary(channel, "/echo")(b"")
        assert encoder.header_table_size == 100


async def test_a_peer_that_reads_no_answers_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "MAX_UNREAD", 100_000)
    async with loopback() as (server, channel, _echo):
        await unary(channel, "/echo")(b"")
        (theirs,) = server.connections
        ours = cast("http2.Protocol", await channel.__connect__())
        ours.transport.pause_reading()
        for end, buffer in (
            (theirs, socket.SO_SNDBUF),
            (ours, socket.SO_RCVBUF),
        ):  # lest the kernel hold megabytes
            end.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, buffer, 4096)
        ping = struct.pack(">I", 8)[1:] + b"\6\0" + bytes(4) + b"are you?"
        while not ours.transport.is_closing() and theirs in server.connections:
            ours.transport.write(ping * 10_000)
            await ours.connection.write_ready.wait()
            await asyncio.sleep(0)
        assert theirs not in server.connections


async def test_what_comes_after_the_end_of_a_connection_is_left_unread() -> None:
    async with loopback() as (server, channel, _echo):
        await unary(channel, "/echo")(b"")
        (theirs,) = server.connections
        theirs.processor.close()
        theirs.data_received(bytes(100))


@pytest.mark.parametrize("path", ["/hold", "/flood"])
async def test_a_call_that_lost_its_connection_is_let_go(path: str) -> None:
    """At once, and not when the garbage is collected one day: it may hold much."""
    async with loopback() as (server, channel, echo):
        gc.collect()
        gc.disable()
        try:
            async with UnaryStreamMethod(channel, path, bytes, bytes).open() as stream:
                await stream.send_message(b"", end=True)
                await echo.called.wait()
                (theirs,) = server.connections
                cast("http2.Protocol", await channel.__connect__()).transport.abort()
                while theirs in server.connections:  # noqa: ASYNC110 - a turn of the loop, no time
                    await asyncio.sleep(0)
                for _ in range(3):  # the tasks are cancelled, end, and are seen to have ended
                    await asyncio.sleep(0)
                assert echo.calls() is None
        except StreamTerminatedError:
            pass
        finally:
            gc.enable()


async def test_an_error_carries_its_detail() -> None:
    async with loopback() as (_, channel, _echo):
        with pytest.raises(GRPCError) as caught:
            await unary(channel, "/fail")(b"")
        assert codec.decode(ErrorDetail, caught.value.details) == ErrorDetail(field="spec.argv", hint="näher")


async def test_a_frame_is_not_hexlified_for_the_log() -> None:
    async with loopback() as (_, channel, _echo):
        with mock.patch.object(
            hyperframe.frame.DataFrame, "_body_repr", side_effect=AssertionError, create=True
        ):
            await unary(channel, "/echo")(bytes(100_000))


async def test_the_kernel_watches_idle_connections() -> None:
    async with loopback() as (server, channel, _echo):
        await unary(channel, "/echo")(b"")
        (theirs,) = server.connections
        sock = theirs.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert theirs.connection._ping_handle is None


def test_h2_still_takes_local_settings_before_the_preface() -> None:
    assert "local_settings" in vars(H2Connection())
