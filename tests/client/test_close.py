"""A client that was closed: what was under way ends, nothing begins again, and no socket is left."""

import asyncio
import contextlib
import os
from typing import cast

import pytest

from jobctl import Client, Job, JobctlError
from jobwire.http2 import Protocol
from tests.client.conftest import PATIENCE, client_of
from tests.client.proxy import proxy_to
from tests.harness import Worker

pytestmark = pytest.mark.filterwarnings(
    "error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
async def sleeper(alice: Client) -> Job:
    return await alice.start(["sh", "-c", "echo here; exec sleep 1000"])


async def test_what_waits_is_ended(worker: Worker, sleeper: Job) -> None:
    async with client_of(worker, "alice") as client:
        job = client.job(sleeper.id)
        output = job.output()
        await anext(output)
        waiting = [asyncio.create_task(job.wait()), asyncio.ensure_future(anext(output))]
        await client.worker()  # both are with the worker now
    async with asyncio.timeout(PATIENCE):
        for task in waiting:
            with pytest.raises(JobctlError, match="the client is closed"):
                await task


async def test_nothing_begins_again(worker: Worker, sleeper: Job) -> None:
    client = client_of(worker, "alice")
    assert (await client.worker()).client_id == "alice"
    await client.close()
    await client.close()
    with pytest.raises(JobctlError, match="the client is closed"):
        await client.worker()
    with pytest.raises(JobctlError, match="the client is closed"):
        await anext(client.job(sleeper.id).output())


async def test_a_connection_that_is_being_made_is_closed_too(worker: Worker) -> None:
    client = client_of(worker, "alice")
    call = asyncio.create_task(client.worker())
    await asyncio.sleep(0)  # it has begun to connect
    await client.close()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(JobctlError):
            await call


@pytest.mark.parametrize("turns", [1, 2, 5, 10, 20, 40, 80])
async def test_no_socket_is_left_however_far_a_connection_is(worker: Worker, turns: int) -> None:
    """After so many turns of the loop, in which the call may have been answered."""
    before = sockets()
    client = client_of(worker, "alice")
    call = asyncio.create_task(client.worker())
    for _ in range(turns):
        await asyncio.sleep(0)
    await client.close()
    assert sockets() == before
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(JobctlError):
            await call
    assert sockets() == before


async def test_a_connection_that_was_lost_is_closed_once(worker: Worker) -> None:
    """asyncio's TLS transport, closed twice, has forgotten whose it is: CPython 3.11.2 then fails to abort it."""
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        await client.worker()
        calls = client.connection._calls
        assert calls is not None
        transport = cast("Protocol", await calls.__connect__()).transport
        proxy.cut()
        async with asyncio.timeout(PATIENCE):
            while calls._connected:  # noqa: ASYNC110 - a turn of the loop, no time
                await asyncio.sleep(0)
        await client.close()
        transport.abort()
        assert transport.get_extra_info("sslcontext") is not None


def sockets() -> int:
    """How many this process has."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    return count
