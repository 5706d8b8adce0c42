"""How soon does a follower have a line that a job writes? The slowest of many?

A line is the time at which it was written: there is one clock here. With others than ours one follower reads what
a program writes, and many read a file to which it is written, each with a `tail -f` in a session of its own.
"""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jobctl
from bench.measure import report
from bench.peers import OURS, Output, Peer, Peers, data_of
from bench.processes import cpu_seconds, tree

PATIENCE = 120.0  # seconds
OPENING = 16  # followers at a time
TAILS = 100  # more of them than about 120 look once a second: fs.inotify.max_user_instances is 128 by default
WRITER = """\
import os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
def say(word):
    os.write(1, word)
    if "wait" in sys.argv:
        signal.sigwait({signal.SIGUSR1})
say(b"ready\\n")
for _ in range(int(sys.argv[1])):
    time.sleep(float(sys.argv[2]))
    os.write(1, b"%d\\n" % time.monotonic_ns())
time.sleep(float(sys.argv[2]))
say(b"done\\n")
"""


@dataclass(frozen=True, slots=True)
class Writer:
    """A program that has begun to write, and goes on when told to; `follow` opens one follower of it."""

    follow: Callable[[], Output]
    go_on: Callable[[], Awaitable[None]]


class Audience:
    """Followers of one writer, who wait for each other at its first word and at its last."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._all = asyncio.Barrier(len(outputs) + 1)
        self._opening = asyncio.Semaphore(OPENING)
        self._tasks = [asyncio.create_task(self._follow(output)) for output in outputs]

    async def reached(self) -> None:
        """Returns when every follower has the word."""
        async with asyncio.timeout(PATIENCE):
            await self._all.wait()

    async def slowest(self) -> list[float]:
        """Milliseconds until the last of them had each line; all have ended then."""
        async with asyncio.timeout(PATIENCE):
            return [max(line) for line in zip(*await asyncio.gather(*self._tasks), strict=True)]

    async def _follow(self, output: Output) -> list[float]:
        late: list[float] = []
        async with aclosing(output):
            lines = _lines(output)
            async with self._opening:
                await anext(lines)
            await self._all.wait()
            async for line, now in lines:
                if line == b"done":
                    await self._all.wait()
                else:
                    late.append((now - int(line)) / 1e6)
        return late


async def run(peers: Peers) -> None:
    await _report_latency(peers)
    for count, lines, interval in ((100, 50, 0.1), (500, 20, 0.5)):
        await _report_slowest(peers, count, lines, interval)


async def _report_latency(peers: Peers) -> None:
    """500 lines, one each 20 ms, by turns of 100."""
    figures: dict[str, list[float]] = {peer.name: [] for peer in peers.kept}
    for _ in range(5):
        for peer in peers.kept:
            figures[peer.name] += await _latencies(peer)
    report("Line at its follower", "ms", figures, against=OURS)


async def _latencies(peer: Peer) -> list[float]:
    async with aclosing(peer.output(_writer(100, 0.02))) as output:
        late = [(now - int(line)) / 1e6 async for line, now in _lines(output) if line.isdigit()]
    await peer.forget()
    return late


async def _report_slowest(peers: Peers, count: int, lines: int, interval: float) -> None:
    """One follower's connection of each kind carries all of them."""
    slowest: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    argv = _writer(lines, interval, "wait")
    servers = _servers(peers, argv)
    if count > TAILS:
        servers = {OURS: servers[OURS]}
    for name, (writer, pids) in servers.items():
        async with writer as written:
            audience = Audience([written.follow() for _ in range(count)])
            await audience.reached()
            serving = pids()
            seconds = cpu_seconds(serving)
            await written.go_on()
            await audience.reached()
            cpu[name] = [(cpu_seconds(serving) - seconds) * 1e3 / (lines + 1)]
            await written.go_on()
            slowest[name] = await audience.slowest()
    report(f"Line at the slowest of {count} followers", "ms", slowest, against=OURS)
    report(f"CPU time of the server for a line to {count} followers", "ms", cpu, against=OURS)


def _servers(
    peers: Peers, argv: list[str]
) -> dict[str, tuple[AbstractAsyncContextManager[Writer], Callable[[], list[int]]]]:
    """A writer for each kept connection, and the processes that serve it."""
    file = peers.ours.directory / "lines"
    return {
        **{peer.name: (_file(peer, argv, file), partial(tree, peers.ssh.pid)) for peer in peers.kept[:-1]},
        OURS: (_job(peers.client, argv), lambda: [peers.ours.server.pid]),
    }


@asynccontextmanager
async def _job(client: jobctl.Client, argv: list[str]) -> AsyncIterator[Writer]:
    job = await client.start(argv)
    yield Writer(partial(data_of, job), partial(job.signal, signal.SIGUSR1))
    (await job.wait()).check()
    await job.delete()


@asynccontextmanager
async def _file(peer: Peer, argv: list[str], path: Path) -> AsyncIterator[Writer]:
    with path.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*argv, stdout=file)
    tail = ["tail", "-n", "+1", "-f", f"--pid={process.pid}", str(path)]

    async def go_on() -> None:
        process.send_signal(signal.SIGUSR1)

    yield Writer(partial(peer.output, tail), go_on)
    await process.wait()
    path.unlink()


def _writer(lines: int, interval: float, *options: str) -> list[str]:
    """The program, for the system's Python: ours may be where a job's user cannot go."""
    return ["/usr/bin/python3", "-S", "-E", "-s", "-c", WRITER, str(lines), str(interval), *options]


async def _lines(output: Output) -> AsyncGenerator[tuple[bytes, int], None]:
    """Each line, and when it came, in ns."""
    rest = b""
    async for data in output:
        now = time.monotonic_ns()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line, now
