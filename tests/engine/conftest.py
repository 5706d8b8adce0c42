"""An open worker without its network for every test."""

from collections.abc import AsyncIterator

import pytest

from tests.harness.domain import Domain, running


@pytest.fixture
async def domain() -> AsyncIterator[Domain]:
    async with running() as opened:
        yield opened
