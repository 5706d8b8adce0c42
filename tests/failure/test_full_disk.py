"""A worker whose disk is full: it says so, jobs that write wait, all else goes on, and nothing is missing afterwards."""

import asyncio
import hashlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from generated.jobworker.v1 import EndReason, GetWorkerRequest, OutputBlock, SignalJobRequest
from jobwire.http2 import Channel
from tests.harness import Certificates, Worker, programs
from tests.harness.probes import needs_root
from tests.harness.worker import running
from tests.service.client import PATIENCE, Client, address, close, collect, connected, tls
from tests.service.test_standard import GoogleCodec

pytestmark = needs_root  # to mount a small disk

WRITTEN = 24 << 20
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.fixture(params=["jobs", "."], ids=["jobs on a disk of their own", "all on one disk"])
def cramped(request: Any, certificates: Certificates, registered: Path) -> Iterator[Worker]:
    """A worker whose jobs have 8 MiB for their output."""
    worker = Worker(certificates, like=registered)
    place = worker.state / request.param
    files = {path.name: path.read_bytes() for path in worker.state.iterdir()}
    place.mkdir(mode=0o700, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=711", "tmpfs", str(place)]
    if (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        worker.close()
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    for name, data in files.items() if place == worker.state else ():
        (place / name).write_bytes(data)
    try:
        with running(worker):
            yield worker
            give_space(worker)
    finally:
        subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(worker.directory)


def give_space(worker: Worker) -> None:
    for place in (worker.state, worker.state / "jobs"):
        if place.is_mount():
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)


@asynccontextmanager
async def health(worker: Worker, service: str) -> AsyncIterator[Any]:
    """The stream of a watched service's states."""
    context = tls(worker.certificates.of("carol"), worker.certificates.authority)
    channel = Channel(*address(worker), codec=GoogleCodec(), ssl=context)
    async with HealthStub(channel).Watch.open() as stream:
        await stream.send_message(HealthCheckRequest(service=service), end=True)
        yield stream
        await stream.cancel()
    await close(channel)


async def becomes(stream: Any, status: int) -> None:
    """Returns once the service's state is this one."""
    async with asyncio.timeout(PATIENCE):
        while (await stream.recv_message()).status != status:
            pass


async def blocked_jobs(client: Client) -> int:
    storage = (await client.worker.get_worker(GetWorkerRequest(), timeout=PATIENCE)).storage
    assert storage is not None
    return storage.blocked_jobs


async def test_it_says_so_and_goes_on(cramped: Worker) -> None:
    async with (
        connected(cramped) as alice,
        connected(cramped, "bob") as bob,
        health(cramped, "jobworker.v1.JobService") as jobs_health,
        health(cramped, "") as whole,
    ):
        await becomes(jobs_health, SERVING)
        await becomes(whole, SERVING)
        stopped, killed = [await bob.start(*programs.sleep()) for _ in range(2)]
        loud = await alice.start(*programs.write_bytes(WRITTEN))
        await becomes(jobs_health, NOT_SERVING)
        assert await blocked_jobs(alice) == 1
        record = await alice.get(loud.job_id)
        assert record.output is not None
        assert record.output.blocked == OutputBlock.DISK
        told = [
            (await asyncio.to_thread(cramped.jobctl, *verb)).stdout
            for verb in (("status", loud.job_id), ("worker",))
        ]
        assert "waiting: disk full" in told[0]
        assert "warning   1 job waits to write output: disk full" in told[1]
        # what others do goes on
        await bob.stop(stopped.job_id)
        await bob.jobs.signal_job(SignalJobRequest(job_id=killed.job_id, signal=9), timeout=PATIENCE)
        for job, reason in ((stopped, EndReason.STOPPED), (killed, EndReason.SIGNALED)):
            termination = (await bob.wait(job.job_id)).termination
            assert termination is not None
            assert termination.reason == reason
        # what is stored is delivered, and the follower then waits like the job
        digest = hashlib.sha256()
        async with aclosing(alice.follow(loud.job_id)) as events:
            first: Any = await asyncio.wait_for(anext(events), PATIENCE)
            digest.update(first.data)  # of the last piece the record may have found no space
            give_space(cramped)
            await becomes(jobs_health, SERVING)
            async for event in events:
                digest.update(getattr(event, "data", b""))
        whole_output = (b"\x01\xffbinary\n" * (WRITTEN // 9 + 1))[:WRITTEN]
        assert digest.digest() == hashlib.sha256(whole_output).digest()
        ended = await alice.wait(loud.job_id)
        assert ended.termination is not None
        assert ended.termination.exit_code == 0
        assert await blocked_jobs(alice) == 0
        assert (await alice.run(*programs.say(out="on"))).out == b"on"


async def test_a_full_disk_is_found_again_after_a_restart(cramped: Worker) -> None:
    async with connected(cramped) as alice, health(cramped, "jobworker.v1.JobService") as states:
        loud = await alice.start(*programs.write_bytes(WRITTEN))
        await becomes(states, NOT_SERVING)
    cramped.restart()
    async with connected(cramped) as alice, health(cramped, "jobworker.v1.JobService") as states:
        await becomes(states, NOT_SERVING)
        assert await blocked_jobs(alice) == 1
        give_space(cramped)
        await becomes(states, SERVING)
        assert len((await collect(alice.follow(loud.job_id))).out) == WRITTEN
