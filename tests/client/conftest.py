"""Clients of the module's worker, as the library makes them."""

from collections.abc import AsyncIterator

import pytest

from jobctl import Client
from tests.harness import Worker

PATIENCE = 30  # seconds after which a test gives up


def client_of(worker: Worker, name: str, *, address: str | None = None) -> Client:
    """A client of this name."""
    certificates = worker.certificates
    return Client(address or worker.address, ca=certificates.authority, cert=certificates.of(name))


@pytest.fixture
async def alice(worker: Worker) -> AsyncIterator[Client]:
    async with client_of(worker, "alice") as client:
        yield client


@pytest.fixture
async def bob(worker: Worker) -> AsyncIterator[Client]:
    async with client_of(worker, "bob") as client:
        yield client


@pytest.fixture
async def root(worker: Worker) -> AsyncIterator[Client]:
    async with client_of(worker, "root") as client:
        yield client
