"""How fast does 1 GiB of output reach the client while the program writes it?"""

import time
from collections.abc import Sequence
from contextlib import aclosing

from bench.measure import report, rounds
from bench.peers import OURS, Peer

SIZE = 1 << 30


async def run(kept: Sequence[Peer], fresh: Sequence[Peer]) -> None:
    peers = [fresh[0], *kept]
    report("1 GiB of output", "MiB/s", await rounds(peers, _rate, count=3), against=OURS, more_is_better=True)


async def _rate(peer: Peer) -> float:
    begin = time.perf_counter()
    received = 0
    async with aclosing(peer.output(["head", "-c", str(SIZE), "/dev/zero"])) as output:
        async for data in output:
            received += len(data)
    if received != SIZE:
        raise RuntimeError(f"{peer.name}: {received} of {SIZE} bytes arrived")
    return received / (1 << 20) / (time.perf_counter() - begin)
