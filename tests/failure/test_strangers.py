"""Peers that are nobody: refused in the handshake or by their key, and the worker serves the others."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

import pytest
from grpclib.const import Status

from tests.harness import Worker
from tests.service.client import (
    FOREIGN,
    METHODS,
    PATIENCE,
    abort,
    address,
    raw_channel,
    send,
    still_serves,
    tls,
)


def handshake(worker: Worker, context: ssl.SSLContext) -> None:
    """Connects, sends the HTTP/2 preface and reads the server's first frame; an OSError or EOFError when refused."""
    with (
        socket.create_connection(address(worker), timeout=PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        if not connection.recv(9):
            raise EOFError("the server closed the connection")


def contexts(worker: Worker) -> dict[str, Callable[[], ssl.SSLContext]]:
    certificates = worker.certificates
    alice, authority = certificates.of("alice"), certificates.authority

    def tls12() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=authority)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(alice)
        return context

    def alpn(*protocols: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=authority)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        context.load_cert_chain(alice)
        return context

    return {
        "good": lambda: tls(alice, authority),
        "no certificate": lambda: tls(None, authority),
        "a certificate of another authority": lambda: tls(certificates.other.of("alice"), authority),
        "a server's certificate": lambda: tls(certificates.of("server"), authority),
        "TLS 1.2": tls12,
        "no ALPN": alpn,
        "another protocol by ALPN": lambda: alpn("http/1.1"),
    }


def test_a_good_handshake_passes(worker: Worker) -> None:
    handshake(worker, contexts(worker)["good"]())


@pytest.mark.parametrize(
    "which",
    [
        "no certificate", "a certificate of another authority", "a server's certificate", "TLS 1.2",
        "no ALPN", "another protocol by ALPN",
    ],
)  # fmt: skip
async def test_the_handshake_refuses(worker: Worker, which: str) -> None:
    with pytest.raises((OSError, EOFError)):
        await asyncio.to_thread(handshake, worker, contexts(worker)[which]())
    await still_serves(worker)


async def test_plain_text_is_refused(worker: Worker) -> None:
    reader, writer = await asyncio.open_connection(*address(worker))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(OSError):
        assert await asyncio.wait_for(reader.read(1000), PATIENCE) == b""
    await abort(writer)
    await still_serves(worker)


@pytest.mark.parametrize("path", [*METHODS, *FOREIGN])
async def test_a_key_nobody_registered_is_told_so_by_every_method(worker: Worker, path: str) -> None:
    async with raw_channel(worker, "mallory") as channel:
        refused = await send(channel, path, b"")
    assert refused is not None
    assert refused.status is Status.UNAUTHENTICATED
    assert "sha256:" in refused.message
