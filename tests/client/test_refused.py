"""Workers that cannot be reached or do not want us: each says why, as far as one can know, and nothing leaks."""

import asyncio
import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

import jobctl
from jobctl import Client
from tests.client.conftest import PATIENCE, client_of
from tests.conftest import MakeWorker
from tests.harness import Worker, programs


async def refused(client: Client) -> jobctl.JobctlError:
    """The one error that every verb ends with, within a moment."""
    async with client, asyncio.timeout(PATIENCE):
        with pytest.raises(jobctl.JobctlError) as raised:
            await client.worker()
        with pytest.raises(type(raised.value)):
            await client.run(["true"])
        with pytest.raises(type(raised.value)):
            await anext(client.job("0199f0c2-0000-7000-8000-000000000000").output())
    return raised.value


async def test_a_certificate_of_an_authority_the_worker_does_not_know(worker: Worker) -> None:
    certificates = worker.certificates
    client = Client(worker.address, ca=certificates.authority, cert=certificates.other.of("alice"))
    error = await refused(client)
    assert isinstance(error, (jobctl.ConnectionLost, jobctl.Unauthenticated))
    assert "certificate" in error.hint


async def test_a_key_that_nobody_registered(worker: Worker) -> None:
    error = await refused(client_of(worker, "mallory"))
    assert isinstance(error, jobctl.Unauthenticated)


async def test_a_worker_we_do_not_trust(worker: Worker) -> None:
    certificates = worker.certificates
    client = Client(worker.address, ca=certificates.other.authority, cert=certificates.of("alice"))
    error = await refused(client)
    assert isinstance(error, jobctl.Unauthenticated)
    assert "not trusted" in str(error)
    assert error.__cause__ is not None


async def test_a_name_that_is_not_in_the_workers_certificate(worker: Worker) -> None:
    port = worker.address.rpartition(":")[2]
    error = await refused(client_of(worker, "alice", address=f"127.0.0.2:{port}"))
    assert isinstance(error, (jobctl.Unauthenticated, jobctl.ConnectionLost))


async def test_nobody_listens(worker: Worker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        address = f"127.0.0.1:{bound.getsockname()[1]}"
    error = await refused(client_of(worker, "alice", address=address))
    assert isinstance(error, jobctl.ConnectionLost)
    assert "connection refused" in str(error)


async def test_no_such_host(worker: Worker) -> None:
    error = await refused(client_of(worker, "alice", address="no-such-host.invalid:1"))
    assert isinstance(error, jobctl.ConnectionLost)
    assert "no-such-host.invalid" in str(error)


async def test_something_else_listens_there(worker: Worker) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ready\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        error = await refused(client_of(worker, "alice", address=f"{host}:{port}"))
    assert isinstance(error, jobctl.ConnectionLost)
    assert error.hint


async def test_a_listener_that_never_answers(worker: Worker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        async with client_of(worker, "alice", address=address) as client:
            with pytest.raises(jobctl.Timeout):
                await client.worker(timeout=0.3)
            with pytest.raises(jobctl.Timeout):
                await client.run(["true"], deadline=0.3)
            with pytest.raises(jobctl.Timeout):
                await anext(client.job("0199f0c2-0000-7000-8000-000000000000").output(timeout=0.3))


@pytest.mark.parametrize(
    ("ca", "cert", "says"),
    [
        ("nothing.pem", "alice", "cannot use the CA certificate"),
        ("empty.pem", "alice", "cannot use the CA certificate"),
        ("ca.pem", "nothing", "cannot use the certificate"),
        ("ca.pem", "empty", "cannot use the certificate .*: no PEM certificate in it"),
        ("ca.pem", "bare", "cannot use the certificate .*: no private key in it"),
    ],
)
async def test_files_that_are_no_certificates(
    tmp_path: Path, worker: Worker, ca: str, cert: str, says: str
) -> None:
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "ca.pem").write_bytes(worker.certificates.authority.read_bytes())
    (tmp_path / "bare.pem").write_bytes(worker.certificates.authority.read_bytes())
    (tmp_path / "alice.pem").write_bytes(worker.certificates.of("alice").read_bytes())
    async with Client(worker.address, ca=tmp_path / ca, cert=tmp_path / f"{cert}.pem") as client:
        with pytest.raises(jobctl.ConfigError, match=says):
            await client.worker()


async def test_an_encrypted_key_asks_nobody(tmp_path: Path, worker: Worker) -> None:
    pem = worker.certificates.of("alice").read_bytes()
    key = serialization.load_pem_private_key(pem[pem.index(b"-----BEGIN PRIVATE KEY") :], None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "locked.pem").write_bytes(locked)
    async with Client(
        worker.address,
        ca=worker.certificates.authority,
        cert=worker.certificates.of("alice"),
        key=tmp_path / "locked.pem",
    ) as client:
        with pytest.raises(jobctl.ConfigError, match="is encrypted"):
            await client.worker()


async def test_an_address_that_is_none(worker: Worker) -> None:
    async with client_of(worker, "alice", address="host:port") as client:
        with pytest.raises(jobctl.ConfigError, match="is no address"):
            await client.worker()


async def test_the_client_of_the_configuration(
    tmp_path: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = worker.certificates
    (tmp_path / "config.toml").write_text(
        f'current = "here"\n[context.here]\naddress = "{worker.address}"\n'
        f'ca = "{certificates.authority}"\ncert = "{certificates.of("alice")}"\n'
    )
    for name in ("ADDRESS", "CA", "CERT", "KEY", "CONTEXT"):
        monkeypatch.delenv(f"JOBCTL_{name}", raising=False)
    monkeypatch.setenv("JOBCTL_CONFIG", str(tmp_path / "config.toml"))
    async with Client.from_context() as client:
        assert (await client.worker()).client_id == "alice"
    with pytest.raises(jobctl.ConfigError):
        Client.from_context("elsewhere")


async def test_a_client_that_is_revoked_meanwhile(make_worker: MakeWorker) -> None:
    worker = make_worker()
    async with client_of(worker, "bob") as bob, client_of(worker, "root") as root:
        job = await bob.start(programs.ready_then_sleep())
        output = job.output(timeout=PATIENCE)
        assert (await anext(output)).data == b"ready\n"
        await root.revoke_client("bob")
        with pytest.raises(jobctl.Unauthenticated):
            await anext(output)
        with pytest.raises(jobctl.Unauthenticated):
            await bob.run(["true"])
        await root.job(job.id).stop(grace=0)
