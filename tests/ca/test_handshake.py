"""TLS 1.3 over a real socket with certificates of the authority: who gets in, who is turned away, and by which side."""

import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ca import files
from ca.authority import Authority, Identity, KeyType

DAY = timedelta(days=1)
YESTERDAY = datetime.now(UTC) - 2 * DAY
TOMORROW = datetime.now(UTC) + DAY


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


def handshake(
    directory: Path, trusted: Authority, server: Identity, client: Identity | None, *, host: str = "localhost"
) -> str | None:
    """Let the two greet each other over a socket pair: the TLS version, or ssl.SSLError of the side that refused."""
    listening = context(ssl.PROTOCOL_TLS_SERVER, server, trusted, directory)
    connecting = context(ssl.PROTOCOL_TLS_CLIENT, client, trusted, directory)
    near, far = socket.socketpair()
    near.settimeout(10)
    far.settimeout(10)
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(accept, listening, far)
        try:
            with near, connecting.wrap_socket(near, server_hostname=host) as secured:
                secured.sendall(b"hello")
                secured.recv(5)  # in TLS 1.3 a client learns only now what the server made of its certificate
        except ssl.SSLCertVerificationError:
            raise
        except OSError:
            pass  # the server refused, and its own error says why
        return accepted.result(10)


def accept(listening: ssl.SSLContext, connection: socket.socket) -> str | None:
    with connection, listening.wrap_socket(connection, server_side=True) as secured:
        secured.sendall(secured.recv(5))
        return secured.version()


def context(purpose: int, own: Identity | None, trusted: Authority, directory: Path) -> ssl.SSLContext:
    """As strict as OpenSSL can be: TLS 1.3, a certificate from the other side, RFC 5280 to the letter."""
    made = ssl.SSLContext(purpose)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=trusted.certificate_pem.decode())
    if own is not None:
        path = directory / f"{purpose}.pem"
        files.write_new(path, own.pem, mode=0o600)
        made.load_cert_chain(path)
    return made


@pytest.mark.parametrize("signer", KeyType)
@pytest.mark.parametrize("leaf", KeyType)
def test_both_sides_are_accepted_whatever_their_keys(tmp_path: Path, signer: KeyType, leaf: KeyType) -> None:
    authority = Authority.create(key_type=signer)
    server = authority.issue_server(["localhost"], key_type=leaf)
    assert handshake(tmp_path, authority, server, authority.issue_client("alice", key_type=leaf)) == "TLSv1.3"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "worker.lab.example"])
def test_a_server_answers_to_each_of_its_names(tmp_path: Path, authority: Authority, host: str) -> None:
    server = authority.issue_server(["localhost", "127.0.0.1", "::1", "*.lab.example"])
    assert handshake(tmp_path, authority, server, authority.issue_client("alice"), host=host) == "TLSv1.3"


def test_renewed_certificates_are_accepted(tmp_path: Path, authority: Authority) -> None:
    server = authority.renew(authority.issue_server(["localhost"]))
    client = authority.renew(authority.issue_client("alice", not_before=YESTERDAY, lifetime=DAY))
    assert handshake(tmp_path, authority, server, client) == "TLSv1.3"


@pytest.mark.parametrize("host", ["other.example", "127.0.0.2", "deep.worker.lab.example"])
def test_a_client_refuses_a_server_of_another_name(tmp_path: Path, authority: Authority, host: str) -> None:
    server = authority.issue_server(["localhost", "127.0.0.1", "*.lab.example"])
    with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)mismatch|not valid for"):
        handshake(tmp_path, authority, server, authority.issue_client("alice"), host=host)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("another authority", "self-signed|unable to get local issuer|signature failure"),
        ("expired", "expired"),
        ("not yet valid", "not yet valid"),
        ("a client's", "unsuitable certificate purpose|unsupported certificate purpose"),
    ],
)
def test_a_client_refuses_a_server_certificate_that_is(
    tmp_path: Path, authority: Authority, case: str, why: str
) -> None:
    server = {
        "another authority": lambda: Authority.create().issue_server(["localhost"]),
        "expired": lambda: authority.issue_server(["localhost"], not_before=YESTERDAY, lifetime=DAY),
        "not yet valid": lambda: authority.issue_server(["localhost"], not_before=TOMORROW),
        "a client's": lambda: authority.issue_client("localhost"),
    }[case]()
    with pytest.raises(ssl.SSLCertVerificationError, match=f"(?i){why}"):
        handshake(tmp_path, authority, server, authority.issue_client("alice"))


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("missing", "did not return a certificate"),
        ("another authority", "certificate.verify.failed"),
        ("expired", "expired"),
        ("not yet valid", "not yet valid"),
        ("a server's", "certificate.purpose"),
        ("signed by a leaf", "certificate.verify.failed"),
    ],
)
def test_a_server_refuses_a_client_certificate_that_is(
    tmp_path: Path, authority: Authority, case: str, why: str
) -> None:
    leaf = authority.issue_client("mallory")
    make: dict[str, Callable[[], Identity | None]] = {
        "missing": lambda: None,
        "another authority": lambda: Authority.create().issue_client("alice"),
        "expired": lambda: authority.issue_client("alice", not_before=YESTERDAY, lifetime=DAY),
        "not yet valid": lambda: authority.issue_client("alice", not_before=TOMORROW),
        "a server's": lambda: authority.issue_server(["alice"]),
        "signed by a leaf": lambda: Authority(leaf.certificate, leaf.key).issue_client("alice"),
    }
    with pytest.raises(ssl.SSLError, match=f"(?i){why}"):
        handshake(tmp_path, authority, authority.issue_server(["localhost"]), make[case]())
