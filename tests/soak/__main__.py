"""`python -m tests.soak [--rounds N] [--seed N] [--first N]`: load and kills, round after round, and what was survived.

Decides how many rounds there are and what is printed. One worker serves them all, so that what one round leaves behind
meets the next. The first round with a fault is the last: its directory is kept, and its seed printed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import jobctl
from tests.harness import Certificates, Worker
from tests.harness.worker import register_everybody, running
from tests.soak.kills import KILLS
from tests.soak.round import Round
from tests.soak.verdict import FAULTS, Tally, summary

SURVIVED = [f"kills: {name}" for name in KILLS]
SEEN = ["jobs", "starts repeated", "bytes recorded", "bytes followed"]
ALLOWED = ["never started", "not known after both", "cut off after both"]


async def soak(worker: Worker, tally: Tally, *, rounds: range, seed: int) -> None:
    """Plays the rounds, until one has a fault; a line for every ten."""
    certificates = worker.certificates
    async with jobctl.Client(
        worker.address, ca=certificates.authority, cert=certificates.of("alice")
    ) as client:
        begin = time.monotonic()
        for number in rounds:
            try:
                choice = random.Random(f"{seed} {number}")
                await Round(worker, client, tally, number=number, choice=choice).play()
            except Exception as error:
                tally.fault("stuck", f"round {number}: {error!r}")
            if tally.faults:
                return
            tally.counts["rounds"] += 1
            if tally.counts["rounds"] % 10 == 0:
                _tell(tally, ["rounds", *SURVIVED, *SEEN[:1]], f" after {time.monotonic() - begin:.0f} s")


def play(directory: Path, *, rounds: range, seed: int) -> Tally:
    """A worker of our own, and the rounds on it; what a fault leaves is copied to `directory`."""
    tally = Tally()
    certificates = Certificates.make(directory / "certificates")
    register_everybody(directory / "state", certificates)
    with running(Worker(certificates, like=directory / "state")) as worker:
        asyncio.run(soak(worker, tally, rounds=rounds, seed=seed))
        if tally.faults:
            (directory / "server.log").write_text("".join(worker.log))
            kept, nothing = directory / "worker", shutil.ignore_patterns("supervisor.sock", "doorbell")
            shutil.copytree(worker.directory, kept, ignore=nothing)
    return tally


def main() -> int:
    """The command; 1 when there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to play one again")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    tally = play(directory, rounds=range(asked.first, asked.first + asked.rounds), seed=seed)
    for names in (["rounds", *SURVIVED], SEEN, FAULTS, ALLOWED):
        _tell(tally, names)
    if not tally.faults:
        shutil.rmtree(directory)
        return 0
    print("\n".join(tally.faults[:20]), file=sys.stderr)
    first = asked.first + tally.counts["rounds"]
    print(f"error: round {first} failed; its files are in {directory}", file=sys.stderr)
    print(f"hint: python -m tests.soak --seed {seed} --first {first} --rounds 1", file=sys.stderr)
    return 1


def _tell(tally: Tally, names: list[str] | tuple[str, ...], more: str = "") -> None:
    print(summary(tally.counts, names) + more, flush=True)


if __name__ == "__main__":
    sys.exit(main())
