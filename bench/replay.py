"""How fast is output that was recorded before read again, by one reader from its first byte to its last?

All read one and the same file, which is in the page cache: ours as the job's output, the others with `cat`.
"""

import time
from collections.abc import Callable
from contextlib import aclosing
from functools import partial

import jobctl
from bench.measure import report, take_turns
from bench.peers import OURS, Output, Peers, Process, data_of
from bench.processes import cpu_seconds
from bench.worker import SCRIPTS

MIB = 1 << 20

Replay = Callable[[], Output]


async def run(peers: Peers) -> None:
    for size in (256 * MIB, 1024 * MIB):
        job = await peers.client.start(["head", "-c", str(size), "/dev/zero"])
        (await job.wait()).check()
        title = f"{size // MIB} MiB read again"
        ways = {name: partial(_rate, replay, size) for name, replay in _replays(peers, job).items()}
        report(title, "MiB/s", await take_turns(ways, count=5), against=OURS, more_is_better=True)
        report(f"CPU time of {title}", "s", await _cpu_times(peers, job, size, count=3))
        await job.delete()


def _replays(peers: Peers, job: jobctl.Job) -> dict[str, Replay]:
    cat = ["cat", str(peers.ours.jobs / job.id / "output.log")]
    theirs = (peers.fresh[0], *peers.kept[:-1])
    logs = Process("jobctl logs, new process", [str(SCRIPTS / "jobctl"), "logs"], shell=False)
    return {
        **{peer.name: partial(peer.output, cat) for peer in theirs},
        logs.name: partial(logs.output, [job.id]),
        OURS: partial(data_of, job),
    }


async def _rate(replay: Replay, size: int) -> float:
    begin = time.perf_counter()
    received = 0
    async with aclosing(replay()) as output:
        async for data in output:
            received += len(data)
    if received != size:
        raise RuntimeError(f"{received} of {size} bytes arrived")
    return size / MIB / (time.perf_counter() - begin)


async def _cpu_times(peers: Peers, job: jobctl.Job, size: int, *, count: int) -> dict[str, list[float]]:
    """Of the server, and of its reader, which is this process."""
    figures: dict[str, list[float]] = {"server": [], "client": []}
    for _ in range(count):
        server, client = cpu_seconds([peers.ours.server.pid]), time.process_time()
        await _rate(partial(data_of, job), size)
        figures["server"].append(cpu_seconds([peers.ours.server.pid]) - server)
        figures["client"].append(time.process_time() - client)
    return figures
