"""Two HTTP/2 connections to one worker, made when first needed and again when lost, carrying bytes both ways.

One is for calls that answer soon, the other for streams of output: a stream that its reader leaves unread must never
hold back a stop. Knows gRPC and TLS and not what the bytes mean; what goes wrong leaves through
`map_exceptions`. Trying again is not decided here.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from grpclib.const import Cardinality
from grpclib.encoding.base import CodecBase

from jobctl.errors import ConfigError, Internal, JobctlError
from jobctl.translate import map_exceptions
from jobwire.http2 import Channel
from jobwire.pem import missing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from jobctl.contexts import Context


class Connection:
    """Calls to one worker. Must be used and closed on the event loop where it is first used."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.answered = False  # whether this worker has ever answered us, be it with a refusal
        self._tls: ssl.SSLContext | None = None
        self._calls: Channel | None = None
        self._streams: Channel | None = None
        self._closed = False

    async def call(self, method: str, request: bytes) -> bytes:
        """One request, one answer."""
        if self._calls is None:
            self._calls = self._channel()
        with map_exceptions(self, method):
            async with self._calls.request(method, Cardinality.UNARY_UNARY, bytes, bytes) as stream:
                await stream.send_message(request, end=True)
                answer = await stream.recv_message()
        if answer is None:
            raise Internal(f"the worker ended {method} without an answer")
        self.answered = True
        return answer

    async def stream(self, method: str, request: bytes) -> AsyncGenerator[bytes, None]:
        """One request, then messages as they come. Closing the generator closes the stream."""
        if self._streams is None:
            self._streams = self._channel()
        with map_exceptions(self, method) as border:
            async with self._streams.request(method, Cardinality.UNARY_STREAM, bytes, bytes) as stream:
                await stream.send_message(request, end=True)
                while (message := await stream.recv_message()) is not None:
                    self.answered = True
                    yield message
                    border.here()

    async def close(self) -> None:
        """Ends every call and stream, for good, and returns once the sockets are closed."""
        self._closed = True
        channels = [channel for channel in (self._calls, self._streams) if channel is not None]
        self._calls = self._streams = None
        for channel in channels:
            channel.close()
        for channel in channels:
            await channel.wait_closed()

    def _channel(self) -> Channel:
        if self._closed:
            raise JobctlError("the client is closed", hint="make another one")
        if self._tls is None:
            self._tls = tls_context(self.context)
        host, port = self.context.endpoint
        return Channel(host, port, codec=_Bytes(), ssl=self._tls)


class _Bytes(CodecBase):
    """grpclib's codec for messages that are bytes already."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        data: bytes = message
        return data

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


def tls_context(context: Context) -> ssl.SSLContext:
    """TLS 1.3 with our certificate, trusting the context's CA and nothing else; raises ConfigError."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.set_alpn_protocols(["h2"])
    try:
        tls.load_verify_locations(context.ca)
    except OSError as error:
        raise ConfigError(f"cannot use the CA certificate {context.ca}: {_reason(error)}") from error
    key = context.key
    try:
        tls.load_cert_chain(context.cert, key, password=_no_password)
    except OSError as error:
        both = f"{context.cert} and {key}" if key else context.cert
        raise ConfigError(
            f"cannot use the certificate {both}: {missing(context.cert, key) or _reason(error)}",
            hint="PEM, the certificate first; the key in the same file or in one of its own",
        ) from error
    return tls


def _no_password() -> str:
    raise ConfigError(
        "the private key is encrypted", hint="give a key without a password, readable by you alone"
    )


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return (error.strerror or str(error)).lower()
