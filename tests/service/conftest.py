"""Connections to the module's worker, one per client that the tests know."""

from collections.abc import AsyncIterator

import pytest

from tests.harness import Worker
from tests.service.client import Client, connected


@pytest.fixture
async def alice(worker: Worker) -> AsyncIterator[Client]:
    async with connected(worker, "alice") as client:
        yield client


@pytest.fixture
async def bob(worker: Worker) -> AsyncIterator[Client]:
    async with connected(worker, "bob") as client:
        yield client


@pytest.fixture
async def root(worker: Worker) -> AsyncIterator[Client]:
    async with connected(worker, "root") as client:
        yield client


@pytest.fixture
async def carol(worker: Worker) -> AsyncIterator[Client]:
    async with connected(worker, "carol") as client:
        yield client
