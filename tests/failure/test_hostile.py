"""Hostile peers: refused in the handshake, by identity, or by a clean status; the worker lives and serves the others."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ResponseReceived, StreamReset
from h2.settings import SettingCodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generated.jobworker.v1 import GetWorkerRequest, StreamOutputRequest
from jobwire import wire
from tests.harness import Worker, programs
from tests.service.client import (
    FOREIGN,
    METHODS,
    PATIENCE,
    Refusal,
    abort,
    address,
    connected,
    raw_channel,
    refusal,
    send,
    still_serves,
    tls,
)

CLEAN = {Status.INVALID_ARGUMENT, Status.NOT_FOUND, Status.PERMISSION_DENIED, Status.FAILED_PRECONDITION}


# -- what is sent


@pytest.mark.parametrize("path", METHODS)
async def test_wrong_wire_types_name_the_field(worker: Worker, path: str) -> None:
    """Every field of every request, sent as each wire type that it is not."""
    request_type = METHODS[path].request_type
    meta = request_type()._betterproto
    async with raw_channel(worker, "root") as channel:
        for name, field in meta.meta_by_field_name.items():
            right = {"string": 2, "bytes": 2, "message": 2, "map": 2, "double": 1}.get(field.proto_type, 0)
            values = {
                0: wire.varint(1), 1: bytes(8), 2: wire.varint(1) + b"\xff", 5: bytes(4), 3: b"", 4: b"", 6: b"", 7: b"",
            }  # fmt: skip
            packed = meta.default_gen[name] is list and right == 0
            for wire_type, value in values.items():
                if wire_type == right or (wire_type == 2 and packed):
                    continue
                refused = await send(channel, path, wire.tag(field.number, wire_type) + value)
                assert refused is not None, (name, wire_type)
                assert refused.status is Status.INVALID_ARGUMENT, (name, wire_type, refused)
                if wire_type in (0, 1, 2, 5):
                    assert refused.detail.field == name, (name, wire_type, refused)


@pytest.mark.parametrize("path", METHODS)
async def test_cut_off_and_ill_encoded_requests(worker: Worker, path: str) -> None:
    async with raw_channel(worker, "root") as channel:
        for request in (b"\x0a", b"\x0a\x05ab", b"\xff" * 11, b"\x00\x00", b"\x0b\x0c", b"\x07"):
            refused = await send(channel, path, request)
            assert refused is not None, request
            assert refused.status is Status.INVALID_ARGUMENT, (request, refused)


async def test_text_that_is_not_utf_8(worker: Worker) -> None:
    async with raw_channel(worker, "alice") as channel:
        refused = await send(channel, "/jobworker.v1.JobService/GetJob", b"\x0a\x02\xff\xfe")
        assert refused is not None
        assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, "job_id")
        inner = wire.field_bytes(1, wire.field_bytes(1, b"true") + wire.field_bytes(1, b"\xff"))
        refused = await send(channel, "/jobworker.v1.JobService/StartJob", inner)
        assert refused is not None
        assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, "spec.argv")


@pytest.fixture(scope="module")
def loop_runner() -> Any:
    with asyncio.Runner() as runner:
        yield runner


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(
        st.tuples(st.sampled_from([*METHODS, *FOREIGN]), st.binary(max_size=60)), min_size=1, max_size=20
    )
)
def test_random_bytes_are_answered_cleanly(
    worker: Worker, loop_runner: asyncio.Runner, requests: list[tuple[str, bytes]]
) -> None:
    """carol changes nothing, so whatever the bytes happen to mean does no harm."""

    async def send_all() -> list[Refusal | None]:
        async with raw_channel(worker, "carol") as channel:
            answers = [await send(channel, path, data) for path, data in requests]
        await still_serves(worker)
        return answers

    for refused in loop_runner.run(send_all()):
        assert refused is None or refused.status in CLEAN, refused


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), spec=st.booleans())
def test_random_bytes_to_start_a_job(
    worker: Worker, loop_runner: asyncio.Runner, data: bytes, spec: bool
) -> None:
    request = wire.field_bytes(1, wire.field_bytes(1, b"/no/such/program") + data) if spec else data

    async def send_one() -> Refusal | None:
        async with raw_channel(worker, "alice") as channel:
            return await send(channel, "/jobworker.v1.JobService/StartJob", request)

    refused = loop_runner.run(send_one())
    assert refused is not None
    assert refused.status in CLEAN


# -- how much is sent


async def test_a_request_of_100_mib_is_refused_before_it_is_buffered(worker: Worker) -> None:
    before = rss(worker.pid)
    async with connected(worker) as alice:
        big = "x" * (100 << 20)
        refused = await refusal(alice.start("/bin/echo", big))
    assert refused.status is Status.RESOURCE_EXHAUSTED
    assert "limit" in refused.message
    assert rss(worker.pid) - before < 40 << 20
    await still_serves(worker)


async def test_other_requests_are_small(worker: Worker) -> None:
    async with raw_channel(worker, "alice") as channel:
        refused = await send(channel, "/jobworker.v1.JobService/ListJobs", bytes(200_000))
    assert refused is not None
    assert refused.status is Status.RESOURCE_EXHAUSTED


async def test_four_mib_of_arguments_are_the_kernels_business(worker: Worker) -> None:
    async with connected(worker) as alice:
        for argument in ("x" * 4_000_000, "\x01" * 4_000_000):
            refused = await refusal(alice.start("/bin/echo", argument))
            assert refused.detail.start_failure is not None
            assert refused.detail.start_failure.errno == 7
        refused = await refusal(alice.start("/bin/echo", *([""] * 1_000_000)))
        assert refused.detail.start_failure is not None


async def test_what_was_held_for_readers_that_took_nothing_is_free_once_they_have_left(
    worker: Worker,
) -> None:
    after = []
    async with connected(worker) as alice:
        job = await alice.start(*programs.write_bytes(50_000_000))
        await alice.wait(job.job_id)
        for _ in range(3):
            async with by_hand(worker, "/jobworker.v1.JobService/StreamOutput") as peer:
                peer.flush()
                peer.writer.write(frame(4, struct.pack(">HI", SettingCodes.INITIAL_WINDOW_SIZE, 0)))
                for number in range(100):  # at places of their own, so that nothing is shared
                    peer.ask(
                        bytes(StreamOutputRequest(job_id=job.job_id, offset=400_000 * number, follow=True))
                    )
                await peer.responses(100)
            await still_serves(worker)
            after.append(rss(worker.pid))
    assert after[-1] - after[0] < 30 << 20, after


class Http2:
    """HTTP/2 by hand, for what grpclib's client would never send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        self.reader, self.writer, self.path = reader, writer, path
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.headers = [
            (":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "localhost"),
            ("te", "trailers"), ("content-type", "application/grpc+proto"),
        ]  # fmt: skip

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def ask(self, message: bytes = b"") -> None:
        """One request, on the next stream; the first one is 1."""
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, self.headers)
        self.h2.send_data(stream_id, b"\0" + struct.pack(">I", len(message)) + message, end_stream=True)
        self.flush()

    async def responses(self, count: int) -> None:
        """Returns once so many calls have begun to be answered."""
        while count:
            data = await asyncio.wait_for(self.reader.read(65536), PATIENCE)
            assert data, "the server closed the connection"
            count -= sum(isinstance(event, ResponseReceived) for event in self.h2.receive_data(data))
            self.flush()

    async def reset(self, stream_id: int) -> int:
        """The error code with which a stream was reset, once it was."""
        while True:
            data = await asyncio.wait_for(self.reader.read(65536), PATIENCE)
            assert data, "the server closed the connection"
            for event in self.h2.receive_data(data):
                if isinstance(event, StreamReset) and event.stream_id == stream_id:
                    return int(event.error_code)
            self.flush()

    async def status(self, stream_id: int) -> str:
        """The grpc-status of a stream, once it is there."""
        while True:
            data = await asyncio.wait_for(self.reader.read(65536), PATIENCE)
            assert data, "the server closed the connection"
            for event in self.h2.receive_data(data):
                headers = dict(getattr(event, "headers", None) or [])
                if getattr(event, "stream_id", None) == stream_id and "grpc-status" in headers:
                    return str(headers["grpc-status"])
            self.flush()


@asynccontextmanager
async def by_hand(worker: Worker, path: str) -> AsyncIterator[Http2]:
    context = tls(worker.certificates.of("alice"), worker.certificates.authority)
    reader, writer = await asyncio.open_connection(*address(worker), ssl=context, server_hostname="localhost")
    try:
        yield Http2(reader, writer, path)
    finally:
        await abort(writer)


def frame(kind: int, payload: bytes, *, stream_id: int = 0) -> bytes:
    """A frame of any kind, without flags."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, 0)) + struct.pack(">I", stream_id) + payload


GET = "/jobworker.v1.JobService/GetJob"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", Status.INVALID_ARGUMENT),
        (b"\0", Status.INVALID_ARGUMENT),
        (b"\0" + struct.pack(">I", 100) + b"short", Status.INVALID_ARGUMENT),
        (b"\1" + struct.pack(">I", 2) + b"\x0a\0", Status.UNIMPLEMENTED),
        (b"\0" + struct.pack(">I", 2**32 - 1), Status.RESOURCE_EXHAUSTED),
    ],
    ids=["no message", "half a prefix", "half a message", "compressed", "4 GiB announced"],
)
async def test_bad_framing(worker: Worker, body: bytes, status: Status) -> None:
    async with by_hand(worker, GET) as peer:
        peer.h2.send_headers(1, peer.headers)
        peer.h2.send_data(1, body, end_stream=True)
        peer.flush()
        assert await peer.status(1) == str(status.value)
    await still_serves(worker)


async def test_a_frame_of_an_unknown_kind_is_ignored(worker: Worker) -> None:
    async with by_hand(worker, GET) as peer:
        peer.flush()
        peer.writer.write(frame(0x42, b"what?"))
        peer.ask()
        assert await peer.status(1) == str(Status.INVALID_ARGUMENT.value)


async def test_frames_without_data_are_no_end(worker: Worker) -> None:
    message = wire.field_bytes(1, b"0199")
    body = b"\0" + struct.pack(">I", len(message)) + message
    async with by_hand(worker, GET) as peer:
        peer.h2.send_headers(1, peer.headers)
        for part in (b"", body[:3], b"", body[3:8], b"", b"", body[8:], b""):
            peer.h2.send_data(1, part)
        peer.flush()
        assert await peer.status(1) == str(Status.NOT_FOUND.value)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (("x-trace-bin", "a"), Status.INVALID_ARGUMENT),
        (("grpc-timeout", "9" * 1000 + "H"), Status.UNKNOWN),
        (("grpc-timeout", "99999999H"), Status.INVALID_ARGUMENT),
    ],
    ids=["binary that is none", "a timeout without end", "the longest timeout"],
)
async def test_headers_that_are_not_what_they_should_be(
    worker: Worker, header: tuple[str, str], status: Status
) -> None:
    async with by_hand(worker, GET) as peer:
        peer.headers.append(header)
        peer.ask()
        assert await peer.status(1) == str(status.value)


async def test_a_deadline_that_is_over_is_one_that_has_passed(worker: Worker) -> None:
    async with connected(worker) as alice:
        job = await alice.start("sleep", "600")
        async with by_hand(worker, "/jobworker.v1.JobService/WaitJob") as peer:
            peer.headers.append(("grpc-timeout", "0n"))
            peer.ask(wire.field_bytes(1, job.job_id.encode()))
            assert await peer.status(1) == str(Status.DEADLINE_EXCEEDED.value)
        await alice.stop(job.job_id, grace=timedelta(0))


@pytest.mark.parametrize("missing", [":method", ":path"])
async def test_a_request_for_nothing_is_reset(worker: Worker, missing: str) -> None:
    async with by_hand(worker, GET) as peer:
        peer.headers = [header for header in peer.headers if header[0] != missing]
        peer.h2.config.validate_outbound_headers = False
        peer.ask()
        assert await peer.reset(1) == ErrorCodes.PROTOCOL_ERROR


async def test_a_header_that_is_not_ascii_ends_the_connection(worker: Worker) -> None:
    async with by_hand(worker, GET) as peer:
        peer.headers.append(("x-name", "näher"))
        peer.ask()
        while await asyncio.wait_for(peer.reader.read(65536), PATIENCE):
            pass
    await still_serves(worker)


async def test_a_header_block_without_end_is_not_collected(worker: Worker) -> None:
    before = rss(worker.pid)
    async with by_hand(worker, GET) as peer:
        peer.flush()
        peer.writer.write(frame(1, b"\x82", stream_id=1))
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                peer.writer.write(frame(9, bytes(64 << 10), stream_id=1))
            while await asyncio.wait_for(peer.reader.read(65536), PATIENCE):
                pass
    assert rss(worker.pid) - before < 20 << 20
    await still_serves(worker)


def open_and_reset(peer: Http2, count: int) -> None:
    for _ in range(count):
        stream_id = peer.h2.get_next_available_stream_id()
        peer.h2.send_headers(stream_id, peer.headers)
        peer.h2.reset_stream(stream_id)
    peer.flush()


async def test_streams_that_are_reset_as_soon_as_they_are_opened(worker: Worker) -> None:
    async with by_hand(worker, GET) as peer:
        for _ in range(5):
            open_and_reset(peer, 100)
        peer.ask()
        assert await peer.status(1001) == str(Status.INVALID_ARGUMENT.value)
    await still_serves(worker)


async def test_who_does_nothing_but_open_and_reset_is_cut_off(worker: Worker) -> None:
    async with by_hand(worker, GET) as peer:
        with contextlib.suppress(ConnectionError):
            open_and_reset(peer, 5000)
            while await asyncio.wait_for(peer.reader.read(65536), PATIENCE):
                pass
    await still_serves(worker)


async def test_who_sends_without_end_does_not_keep_the_others_waiting(worker: Worker) -> None:
    async with by_hand(worker, GET) as peer, connected(worker, "bob") as bob:
        peer.flush()
        pings = frame(6, b"are you?") * 100_000

        async def send() -> None:
            while True:
                peer.writer.write(pings)
                await peer.writer.drain()
                while len(peer.reader._buffer):  # type: ignore[attr-defined]  # what is there already
                    await peer.reader.read(1 << 20)

        sending = asyncio.create_task(send())
        try:
            for _ in range(20):
                async with asyncio.timeout(2):
                    await bob.worker.get_worker(GetWorkerRequest())
        finally:
            sending.cancel()
            await asyncio.wait({sending})


async def test_garbage_instead_of_http2(worker: Worker) -> None:
    context = tls(worker.certificates.of("alice"), worker.certificates.authority)
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(100),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    ):
        reader, writer = await asyncio.open_connection(
            *address(worker), ssl=context, server_hostname="localhost"
        )
        writer.write(garbage)
        while await asyncio.wait_for(reader.read(1000), PATIENCE):
            pass
        await abort(writer)
    await still_serves(worker)


@pytest.mark.parametrize("path", ["/jobworker.v1.JobService/NoSuch", "/no.Such/Method", "/", "nonsense"])
async def test_methods_that_are_not_there(worker: Worker, path: str) -> None:
    async with raw_channel(worker, "alice") as channel:
        refused = await send(channel, path, b"")
    assert refused is not None
    assert refused.status is Status.UNIMPLEMENTED


async def test_nothing_of_it_is_taken_for_a_defect(worker: Worker) -> None:
    """The last test of this module: whatever the others sent, the log has no traceback."""
    await still_serves(worker)
    assert "Traceback" not in "".join(worker.log)
    assert not [line for line in worker.log if "failed" in line]


def rss(pid: int) -> int:
    """Resident memory of a process, bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))
