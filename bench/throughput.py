"""How fast does 1 GiB of output reach the client while the program writes it, and what CPU time does that take?

Ours is recorded on its way, so what the file system takes is measured beside it, and what was recorded is removed
after every round, by all alike. In a virtual machine a page that it has never touched before costs its host a fault:
the first gigabytes written to new files are written to such pages, many times slower than later ones, and that is
nobody's doing here. Pages of a removed file are used again.
"""

import asyncio
import time
from contextlib import aclosing
from functools import partial
from pathlib import Path

from bench.measure import report, take_turns
from bench.peers import OURS, Peer, Peers
from bench.processes import cpu_seconds

SIZE = 1 << 30
DISK = "dd to a file, no reader"


async def run(peers: Peers) -> None:
    ways = {peer.name: partial(_rate, peer) for peer in (peers.fresh[0], *peers.kept)}
    figures = await take_turns({DISK: partial(_disk, peers.ours.jobs / "dd"), **ways}, count=5)
    report("1 GiB of output", "MiB/s", figures, against=OURS, more_is_better=True)
    report("CPU time of 1 GiB of output", "s", await _cpu_times(peers, count=3))


async def _rate(peer: Peer) -> float:
    begin = time.perf_counter()
    await _receive(peer)
    elapsed = time.perf_counter() - begin
    await peer.forget()
    return SIZE / (1 << 20) / elapsed


async def _receive(peer: Peer) -> None:
    received = 0
    async with aclosing(peer.output(["head", "-c", str(SIZE), "/dev/zero"])) as output:
        async for data in output:
            received += len(data)
    if received != SIZE:
        raise RuntimeError(f"{peer.name}: {received} of {SIZE} bytes arrived")


async def _disk(path: Path) -> float:
    argv = ["dd", "if=/dev/zero", f"of={path}", "bs=256k", f"count={SIZE >> 18}", "status=none"]
    begin = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*argv)
    if await process.wait():
        raise RuntimeError("dd failed")
    elapsed = time.perf_counter() - begin
    path.unlink()
    return SIZE / (1 << 20) / elapsed


async def _cpu_times(peers: Peers, *, count: int) -> dict[str, list[float]]:
    """Of our three processes that move output: its reader is this one."""
    processes = peers.ours.processes
    figures: dict[str, list[float]] = {"server": [], "supervisor": [], "client": []}
    for _ in range(count):
        before = {name: cpu_seconds([processes[name]]) for name in ("server", "supervisor")}
        client = time.process_time()
        await _receive(peers.kept[-1])
        figures["client"].append(time.process_time() - client)
        for name, seconds in before.items():
            figures[name].append(cpu_seconds([processes[name]]) - seconds)
        await peers.kept[-1].forget()
    return figures
