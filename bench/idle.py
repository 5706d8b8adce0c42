"""What do followers take who only wait: of CPU time, which has to be nothing, and of the server's memory?"""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial

import jobctl
from bench.measure import report
from bench.peers import Output, Peers, data_of
from bench.processes import cpu_seconds, memory_kib, name, switches, tree

COUNT = 100
OPENING = 16  # followers at a time
SETTLE, WATCH = 2.0, 10.0  # seconds
SILENT = ["sh", "-c", "echo up; exec sleep 1000"]


async def run(peers: Peers) -> None:
    asyncssh = peers.kept[1]
    async with _silent(peers.client, COUNT) as jobs, _followed([data_of(job) for job in jobs]):
        ours = {role: [pid] for role, pid in peers.ours.processes.items()}
        await _report_use("100 silent jobs with followers", ours)
    async with _followed([asyncssh.output(SILENT) for _ in range(COUNT)]), _sessions(peers.ssh.pid):
        await _report_use("100 silent sessions of asyncssh", {"sshd, all processes": tree(peers.ssh.pid)})
    await _report_memory(peers)


async def _report_use(title: str, processes: Mapping[str, Sequence[int]]) -> None:
    await asyncio.sleep(SETTLE)
    before = {each: (cpu_seconds(pids), switches(pids)) for each, pids in processes.items()}
    await asyncio.sleep(WATCH)
    cpu, switched = {}, {}
    for each, (seconds, count) in before.items():
        cpu[each] = [(cpu_seconds(processes[each]) - seconds) * 1e3]
        switched[each] = [float(switches(processes[each]) - count)]
    report(f"{title}, CPU time in {WATCH:g} s", "ms", cpu)
    report(f"{title}, context switches in {WATCH:g} s", "number", switched)


async def _report_memory(peers: Peers) -> None:
    """Three hundred followers of one job, by hundreds. What only the first one costs is in the highest figure."""
    figures: dict[str, list[float]] = {}
    async with _silent(peers.client, 1) as [job], AsyncExitStack() as clients:

        async def connected() -> AsyncGenerator[bytes, None]:
            client = await clients.enter_async_context(peers.ours.client())
            async for data in data_of(client.job(job.id)):
                yield data

        server = [peers.ours.server.pid]
        figures["jobworker, one connection"] = await _memory(partial(data_of, job), server)
        figures["jobworker, a connection each"] = await _memory(connected, server)
    report("Memory of the server for an idle follower", "KiB", figures)


async def _memory(follow: Callable[[], Output], pids: Sequence[int]) -> list[float]:
    figures = []
    async with AsyncExitStack() as stack:
        for _ in range(3):
            before = memory_kib(pids)
            await stack.enter_async_context(_followed([follow() for _ in range(COUNT)]))
            figures.append((memory_kib(pids) - before) / COUNT)
    return figures


@asynccontextmanager
async def _silent(client: jobctl.Client, count: int) -> AsyncIterator[list[jobctl.Job]]:
    jobs = [await client.start(SILENT) for _ in range(count)]
    try:
        yield jobs
    finally:
        for job in jobs:
            await job.stop(grace=0)
        for job in jobs:
            await job.wait()
            await job.delete()


@asynccontextmanager
async def _sessions(sshd: int) -> AsyncIterator[None]:
    """Ends the programs of all sessions: sshd leaves one running that writes nothing and has no terminal."""
    yield
    for pid in tree(sshd):
        if name(pid) == "sleep":
            os.kill(pid, signal.SIGTERM)


@asynccontextmanager
async def _followed(outputs: Sequence[Output]) -> AsyncIterator[None]:
    """Each has given its first bytes, and is waited for until the context ends."""
    opening = asyncio.Semaphore(OPENING)
    opened = asyncio.Barrier(len(outputs) + 1)

    async def follow(output: Output) -> None:
        async with aclosing(output):
            async with opening:
                await anext(output)
            await opened.wait()
            async for _ in output:
                pass

    followers = [asyncio.create_task(follow(output)) for output in outputs]
    async with asyncio.timeout(60):
        await opened.wait()
    yield
    for follower in followers:
        follower.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
