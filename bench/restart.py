"""How soon does a restarted server answer, what does a follower see of it, and what does holding everything twice cost?

`python -m bench.restart`. No peer is measured: none of them has jobs that outlive it. Finished jobs are made as files and
rows, in the formats in which the worker leaves them; jobs that run are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import pairwise
from pathlib import Path

import jobctl
from bench.measure import report
from bench.resources import PATIENCE, Link, supervisor
from bench.worker import Worker, prepare, serve
from generated.jobworker.v1 import JobSpec
from jobworker import jobids, records
from jobworker.endedjobs import disk_bytes
from jobworker.outputindex import INDEX_NAME, LOG_NAME, STDOUT, Header, pack_header, pack_record
from jobworker.store import Database, JobStore
from jobworker.supervisor import exitrecord

RUNNING = 100
FINISHED = (0, 1_000, 10_000)
TIMES = 10
STAMPS = ["/bin/sh", "-c", "while :; do date +%s%N; sleep 0.005; done"]
OUTPUT = b"finished\n"
SETTLED = 0.5  # seconds of flowing output after which an interruption is over
MIB = 2**20

Interrupt = Callable[["Server"], Awaitable[None]]


class Server:
    """A worker whose server comes and goes."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    async def end(self, number: int) -> None:
        self.worker.server.send_signal(number)
        await self.worker.server.wait()

    async def start(self) -> None:
        self.worker = await serve(self.worker.directory, address=self.worker.address)

    async def first_answer(self) -> tuple[float, float]:
        """Starts it; milliseconds until it says that it serves, and until a client has its first answer."""
        begin = time.perf_counter()
        await self.start()
        ready = time.perf_counter()
        async with self.worker.client() as client:
            await client.worker()
        return (ready - begin) * 1e3, (time.perf_counter() - begin) * 1e3


@contextlib.asynccontextmanager
async def servers() -> AsyncIterator[Server]:
    """A worker of our own; its jobs end with it."""
    with tempfile.TemporaryDirectory(prefix="jobworker-bench-") as name:
        directory = Path(name)
        await prepare(directory)
        server = Server(await serve(directory))
        try:
            yield server
        finally:
            pidfd = os.pidfd_open(server.worker.supervisor_pid)
            await server.end(signal.SIGTERM)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            await asyncio.to_thread(_await_end, pidfd)


async def starts() -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Server start with so many finished jobs: until it serves, until it has answered."""
    serving: dict[str, list[float]] = {}
    answered: dict[str, list[float]] = {}
    async with servers() as server:
        async with server.worker.client() as client:
            for _ in range(RUNNING):
                await client.start(["/bin/sleep", "1000000"])
        there = 0
        for count in FINISHED:
            await server.end(signal.SIGKILL)
            make_finished(server.worker.directory / "state", count - there)
            there = count
            await server.first_answer()  # the first one reads from the disk what the others find in memory
            for _ in range(TIMES):
                await server.end(signal.SIGKILL)
                ready, answer = await server.first_answer()
                serving.setdefault(f"{count:,} finished", []).append(ready)
                answered.setdefault(f"{count:,} finished", []).append(answer)
    return serving, answered


def make_finished(state: Path, count: int) -> None:
    """Jobs that have ended, as if they had been started here."""
    database = Database.open(state)
    store = JobStore(database)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for _ in range(count):
        now = time.time_ns()
        job_id = jobids.make(now, random=os.urandom(jobids.RANDOM_BYTES))
        directory = state / "jobs" / job_id
        directory.mkdir(0o700)
        index = pack_header(Header(created_ns=now)) + pack_record(len(OUTPUT), stream=STDOUT, time_ns=now)
        facts = exitrecord.blank(job_id, boot_id=boot_id)
        facts["started_ns"] = facts["main_exited_ns"] = facts["ended_ns"] = now
        facts["exit_code"], facts["output_bytes"] = 0, len(OUTPUT)
        files = {LOG_NAME: OUTPUT, INDEX_NAME: index, "exit": exitrecord.pack(facts)}
        for name, content in files.items():
            (directory / name).write_bytes(content)
        spec = JobSpec(argv=["/bin/echo", "finished"], name="finished")
        record = records.accept(job_id, owner="alice", spec=spec, unix_nano=now, workdir="/")
        records.launched(record, pid=1, started_ns=now)
        records.finished(record, facts)
        store.insert(record, created_unix_nano=now, request_id=job_id)
        store.set_output_bytes(job_id, disk_bytes(directory))
    database.close()


async def restart(server: Server) -> None:
    """As an operator does it."""
    await server.end(signal.SIGTERM)
    await server.start()


async def crash(server: Server) -> None:
    await server.end(signal.SIGKILL)
    await server.start()


async def upgrade(server: Server) -> None:
    os.kill(server.worker.supervisor_pid, signal.SIGHUP)


async def kill_supervisor(server: Server) -> None:
    os.kill(server.worker.supervisor_pid, signal.SIGKILL)


async def nothing(_server: Server) -> None:
    """What there is of pauses anyway."""


async def pauses() -> dict[str, list[float]]:
    """Milliseconds for which a follower of a job that writes every few milliseconds is given nothing."""
    interruptions: Mapping[str, Interrupt] = {
        "nothing happens": nothing,
        "server restart": restart,
        "server killed": crash,
        "supervisor upgrade": upgrade,
        "supervisor killed": kill_supervisor,
    }
    found: dict[str, list[float]] = {}
    async with servers() as server, server.worker.client() as client:
        job = await client.start(STAMPS)
        arrivals: list[float] = []
        following = asyncio.create_task(_follow(job, arrivals))
        for name, interrupt in interruptions.items():
            for _ in range(TIMES):
                found.setdefault(name, []).append(await _pause(server, interrupt, arrivals))
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return found


async def _follow(job: jobctl.Job, arrivals: list[float]) -> None:
    async for _ in job.output():
        arrivals.append(time.perf_counter())


async def _pause(server: Server, interrupt: Interrupt, arrivals: list[float]) -> float:
    """The longest time without a chunk, from the interruption until output has flowed for a while."""
    await asyncio.sleep(SETTLED)
    first = len(arrivals) - 1
    await interrupt(server)
    done = time.perf_counter()
    while arrivals[-1] < done + SETTLED:
        await asyncio.sleep(0.01)
    seen = arrivals[first:]
    return max(after - before for before, after in pairwise(seen)) * 1e3


def memory() -> dict[str, list[float]]:
    """MiB of each process with so many running jobs: resident, its share of that, and what it alone has."""
    found: dict[str, list[float]] = {}
    with supervisor() as link:
        there = 0
        for count in (0, 100, 1_000):
            for _ in range(count - there):
                link.launch(["/bin/sleep", "1000000"], {})
            there = count
            for name, pid in _processes(link).items():
                for kind, value in _smaps(pid).items():
                    found.setdefault(f"{name}, {count:,} jobs, {kind}", []).append(value)
    return found


def _processes(link: Link) -> dict[str, int]:
    pid = int((link.state / "supervisor.lock").read_text())
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    nurse = next(int(child) for child in children if os.getsid(int(child)) != int(child))
    return {"keeper": link.process.pid, "supervisor": pid, "nurse": nurse}


def _smaps(pid: int) -> dict[str, float]:
    """proc(5): smaps_rollup, in KiB."""
    lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 / MIB for words in lines}
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return {"resident": sizes["Rss"], "share": sizes["Pss"], "alone": private}


def _await_end(pidfd: int) -> None:
    select.select([pidfd], [], [], PATIENCE)
    os.close(pidfd)


async def main() -> None:
    """All of them."""
    serving, answered = await starts()
    report("Server start until it serves", "ms", serving)
    report("Server start until first answer", "ms", answered)
    report("Pause that a follower sees", "ms", await pauses())
    report("Memory of the processes that hold jobs", "MiB", memory())


if __name__ == "__main__":
    asyncio.run(main())
