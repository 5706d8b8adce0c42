"""How long until the first byte of a program's output is here, and until its exit is known?"""

import time
from contextlib import aclosing

from bench.measure import report, rounds
from bench.peers import OURS, OURS_FRESH, Peer, Peers


async def first_byte(peer: Peer) -> float:
    """Milliseconds from the call to the first byte of `echo hi`; the run is then followed to its end."""
    begin = time.perf_counter()
    elapsed = 0.0
    async with aclosing(peer.output(["echo", "hi"])) as output:
        async for _ in output:
            elapsed = elapsed or (time.perf_counter() - begin) * 1e3
    return elapsed


async def exit_known(peer: Peer) -> float:
    """Milliseconds from the call until the exit of /bin/true is known."""
    begin = time.perf_counter()
    async with aclosing(peer.output(["/bin/true"])) as output:
        async for _ in output:
            pass
    return (time.perf_counter() - begin) * 1e3


async def run(peers: Peers) -> None:
    for title, measure in (("First byte of echo hi", first_byte), ("/bin/true until exit known", exit_known)):
        figures = await rounds(peers.kept, measure, count=200)
        report(title, "ms", figures, against=OURS, more_is_better=False)
        figures = await rounds(peers.fresh, measure, count=15)
        report(f"{title}, new process", "ms", figures, against=OURS_FRESH, more_is_better=False)
