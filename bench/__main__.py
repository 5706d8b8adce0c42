"""`python -m bench [latency|rate|throughput|replay|followers|idle ...]`: every question, or those named."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from bench import followers, idle, latency, rate, replay, sshd, throughput
from bench.peers import peers

QUESTIONS = {
    "latency": latency.run,
    "rate": rate.run,
    "throughput": throughput.run,
    "replay": replay.run,
    "followers": followers.run,
    "idle": idle.run,
}


async def main(names: list[str]) -> int:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed jobctl is compiled; so be ours
    unknown = set(names) - QUESTIONS.keys()
    if unknown or sshd.missing():
        print(
            f"error: {'no such benchmark: ' + ', '.join(unknown) if unknown else 'needs ' + sshd.missing()}",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="jobworker-bench-") as directory:
        Path(directory).chmod(0o711)
        async with peers(Path(directory)) as all_peers:
            for name in names or QUESTIONS:
                await QUESTIONS[name](all_peers)
    return 0


sys.exit(asyncio.run(main(sys.argv[1:])))
