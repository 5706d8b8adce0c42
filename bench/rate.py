"""How many programs a second, one after the other and sixteen at a time?"""

import asyncio
import time

from bench.latency import exit_known
from bench.measure import report, rounds
from bench.peers import OURS, OURS_FRESH, Peer, Peers


async def run(peers: Peers) -> None:
    for in_flight in (1, 16):
        title = f"Programs a second, {in_flight} in flight"
        figures = await rounds(peers.kept, lambda peer: _rate(peer, in_flight, jobs=160), count=7)  # noqa: B023  # awaited here
        report(title, "1/s", figures, against=OURS, more_is_better=True)
        figures = await rounds(peers.fresh, lambda peer: _rate(peer, in_flight, jobs=16), count=3)  # noqa: B023
        report(f"{title}, new process", "1/s", figures, against=OURS_FRESH, more_is_better=True)


async def _rate(peer: Peer, in_flight: int, *, jobs: int) -> float:
    async def some() -> None:
        for _ in range(jobs // in_flight):
            await exit_known(peer)

    begin = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(in_flight)))
    return jobs / (time.perf_counter() - begin)
