"""Who is at the other end of a connection: TLS, certificate → public key → registered client → caller.

Decides what a TLS connection must be like (1.3, a client certificate, ALPN "h2"), and that a caller is
whoever the registry says its public key belongs to, asked anew for every call: a registration or a
revocation counts from the next call on. What a caller may do is policy's. The one user of what grpclib
knows of the peer.
"""

from __future__ import annotations

import hashlib
import ssl
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from jobwire.pem import missing
from jobworker.errors import InvalidArgument, Unauthenticated
from jobworker.policy import Caller

if TYPE_CHECKING:
    from grpclib.protocol import Peer

    from generated.jobworker.v1 import ClientRecord


class Registry(Protocol):
    """Where clients are kept."""

    def by_key(self, sha256: bytes) -> ClientRecord | None:
        """The client of this public key, a revoked one too."""


class PeerConnection(ssl.SSLObject):
    """A server's side of one TLS connection, refused in the handshake when the peer does not speak HTTP/2."""

    def do_handshake(self) -> None:
        super().do_handshake()
        if self.selected_alpn_protocol() != "h2":
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the peer did not choose h2 by ALPN")

    @cached_property
    def key_sha256(self) -> bytes:
        """SHA-256 of the peer's SubjectPublicKeyInfo; Unauthenticated when its key is of no known kind."""
        certificate = self.getpeercert(binary_form=True)
        if certificate is None:  # not reached: the handshake demands one
            raise Unauthenticated("a client certificate is needed")
        try:
            return key_sha256(parse_certificate(certificate))
        except ValueError as error:
            raise Unauthenticated(
                "the certificate's public key is of a kind that is not supported"
            ) from error


def parse_certificate(data: bytes) -> x509.Certificate:
    """The first certificate in PEM or DER, the client's own where others follow; ValueError when there is none to use."""
    try:
        if b"-----BEGIN" in data:
            certificate = x509.load_pem_x509_certificate(data)
        else:
            certificate = x509.load_der_x509_certificate(data)
        certificate.public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError("its key is of a kind that is not known here") from error
    except x509.InvalidVersion as error:
        raise ValueError("it is of a version that there is not") from error
    return certificate


def key_sha256(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the certificate's SubjectPublicKeyInfo (RFC 5280, section 4.1), 32 bytes."""
    key = certificate.public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def server_context(*, cert: Path, key: Path | None, client_ca: Path) -> ssl.SSLContext:
    """TLS 1.3 with client certificates of `client_ca`; InvalidArgument naming the setting that does not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # a resumed session would skip the certificate
    context.set_alpn_protocols(["h2"])
    context.sslobject_class = PeerConnection
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        what = f"certificate '{cert}'" + (f" with key '{key}'" if key else "")
        hint = "give PEM; a key in a file of its own is --key"
        raise _unusable(what, missing(cert, key) or error, field="cert", hint=hint) from error
    try:
        context.load_verify_locations(client_ca)
    except (OSError, ValueError) as error:
        hint = "give PEM certificates of the authority that signs clients"
        raise _unusable(f"client authority '{client_ca}'", error, field="client_ca", hint=hint) from error
    return context


def reload_context(live: ssl.SSLContext, *, cert: Path, key: Path | None, client_ca: Path) -> None:
    """Makes new connections use the files as they are now; on InvalidArgument all stays as it was.

    The listener holds `live` for ever, and an authority cannot be taken out of a context: so each new
    connection is moved to a context made anew, at the one moment OpenSSL offers (with or without SNI).
    """
    fresh = server_context(cert=cert, key=key, client_ca=client_ca)

    def move(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = fresh

    live.sni_callback = move


class Identity:
    """Tells who calls."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[bytes, tuple[ClientRecord, Caller]] = {}

    def caller(self, peer: Peer) -> Caller:
        """The registered client whose key the peer has proved to hold; else Unauthenticated."""
        connection = cast("PeerConnection", peer._transport.get_extra_info("ssl_object"))
        key = connection.key_sha256
        record = self._registry.by_key(key)
        known = self._known.get(key)
        # the registry gives the same record until something changes
        if known is not None and known[0] is record:
            return known[1]
        if record is None:
            raise Unauthenticated(
                f"no client is registered with public key sha256:{key.hex()}",
                hint="on the worker: jobworker client add NAME --cert FILE",
            )
        if record.revoked_at is not None:
            raise Unauthenticated(
                f"client '{record.client_id}' was revoked", hint="ask an admin to register a new key"
            )
        caller = Caller(record.client_id, record.role, record.unix_user, record.uid)
        self._known[key] = record, caller
        return caller


def address_of(peer: Peer) -> str:
    """Where the peer connects from, HOST:PORT, for people."""
    host, port = (peer.addr() or ("unknown", 0))[:2]
    return f"{host}:{port}"


def _no_password() -> str:
    raise ValueError("the private key is encrypted")


def _unusable(what: str, error: Exception | str, *, field: str, hint: str) -> InvalidArgument:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return InvalidArgument(
        f"cannot use {what}: {str(reason).lower().replace('_', ' ')}", field=field, hint=hint
    )
