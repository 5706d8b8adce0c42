"""ClientService: registering, listing and revoking public keys, for admins."""

import ssl
import uuid
from pathlib import Path

import pytest
from grpclib.const import Status

from ca import files
from ca.authority import Identity
from generated.jobworker.v1 import (
    ClientRecord,
    GetWorkerRequest,
    ListClientsRequest,
    RegisterClientRequest,
    RevokeClientRequest,
    Role,
)
from tests.harness import Worker
from tests.harness.certificates import CLIENTS
from tests.service.client import Client, connected, refusal, tls

OPERATOR = Role(Role.OPERATOR)


@pytest.fixture
def identity(worker: Worker) -> Identity:
    """A certificate of the worker's authority that nobody has registered."""
    return files.load_authority(worker.certificates.directory).issue_client("newcomer")


@pytest.fixture
def newcomer(identity: Identity, tmp_path: Path) -> Path:
    """Certificate and key as a file."""
    path = tmp_path / "newcomer.pem"
    path.write_bytes(identity.pem)
    return path


async def register(client: Client, certificate: bytes, **fields: object) -> ClientRecord:
    name = f"c-{uuid.uuid4()}"
    request = RegisterClientRequest(
        **{"client_id": name, "role": OPERATOR, "certificate": certificate, **fields}  # type: ignore[arg-type]
    )
    return (await client.clients.register_client(request)).client


async def test_a_registered_client_is_let_in_and_a_revoked_one_is_not(
    root: Client, worker: Worker, identity: Identity, newcomer: Path
) -> None:
    stranger = Client(worker, context=tls(newcomer, worker.certificates.authority))
    refused = await refusal(stranger.worker.get_worker(GetWorkerRequest()))
    assert refused.status is Status.UNAUTHENTICATED
    assert "sha256:" in refused.message
    assert "jobworker client add" in refused.detail.hint

    record = await register(root, identity.certificate_pem)
    assert record.public_key_sha256.hex() in refused.message
    told = await stranger.worker.get_worker(GetWorkerRequest())
    assert told.client_id == record.client_id

    revoked = (await root.clients.revoke_client(RevokeClientRequest(client_id=record.client_id))).client
    assert revoked.revoked_at is not None
    refused = await refusal(stranger.worker.get_worker(GetWorkerRequest()))
    assert refused.status is Status.UNAUTHENTICATED
    assert "revoked" in refused.message
    await stranger.close()


async def test_der_is_as_good_as_pem(root: Client, identity: Identity) -> None:
    der = ssl.PEM_cert_to_DER_cert(identity.certificate_pem.decode())
    record = await register(root, der)
    assert len(record.public_key_sha256) == 32
    taken = await refusal(register(root, identity.certificate_pem))
    assert taken.status is Status.ALREADY_EXISTS


async def test_all_clients_are_listed_by_name(root: Client) -> None:
    clients = (await root.clients.list_clients(ListClientsRequest())).clients
    names = [client.client_id for client in clients]
    assert names == sorted(names)
    assert set(CLIENTS) <= set(names)
    assert {client.role for client in clients if client.client_id == "carol"} == {Role.VIEWER}


@pytest.mark.parametrize("certificate", [b"nonsense", b"-----BEGIN CERTIFICATE-----\nx", b"\x30\x82"])
async def test_what_is_no_certificate_is_refused(root: Client, certificate: bytes) -> None:
    refused = await refusal(register(root, certificate))
    assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, "certificate")


async def test_a_certificate_of_no_version_is_refused(root: Client, identity: Identity) -> None:
    der = ssl.PEM_cert_to_DER_cert(identity.certificate_pem.decode())
    version = b"\xa0\x03\x02\x01"  # RFC 5280, section 4.1: [0] EXPLICIT INTEGER, 2 for v3
    assert der.count(version + b"\2") == 1
    refused = await refusal(register(root, der.replace(version + b"\2", version + b"\7")))
    assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, "certificate")


async def test_a_client_that_is_not_there_cannot_be_revoked(root: Client) -> None:
    refused = await refusal(root.clients.revoke_client(RevokeClientRequest(client_id="nobody")))
    assert refused.status is Status.NOT_FOUND


@pytest.mark.parametrize("name", ["alice", "carol"])
async def test_only_an_admin_may(worker: Worker, name: str, identity: Identity) -> None:
    async with connected(worker, name) as client:
        for call in (
            register(client, identity.certificate_pem),
            client.clients.list_clients(ListClientsRequest()),
            client.clients.revoke_client(RevokeClientRequest(client_id="bob")),
        ):
            assert (await refusal(call)).status is Status.PERMISSION_DENIED
