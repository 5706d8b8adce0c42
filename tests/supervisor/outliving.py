"""What tests of a supervisor that dies look at: a job that never stops writing, and what was recorded of it."""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from jobworker.outputindex import STDERR, STDOUT, count_records, read_records
from tests.supervisor.peer import Peer, Supervisor, wait_until

WRITE_UNTIL_TOLD = """
import hashlib, os, sys
totals, number = {1: hashlib.sha256(), 2: hashlib.sha256()}, 0
while not os.path.exists(sys.argv[1]):
    line = b"%d " % number * 50 + b"\\n"
    stream = 1 + number % 2
    os.write(stream, line)
    totals[stream].update(line)
    number += 1
print(totals[1].hexdigest(), totals[2].hexdigest(), file=open(sys.argv[2], "w"), flush=True)
sys.exit(7)
"""


def writer(peer: Peer, job: str, tmp_path: Path) -> tuple[Path, Path]:
    """A job that writes without a pause; the file that tells it to end, and the one for the digest of what it wrote."""
    end, digest = tmp_path / f"{job}.end", tmp_path / f"{job}.digest"
    launched = peer.launch(job, ["python3", "-c", WRITE_UNTIL_TOLD, str(end), str(digest)])
    assert launched["op"] == "launched", launched
    return end, digest


def recorded(supervisor: Supervisor, job: str) -> str:
    """The digests of what is stored of the two streams, told apart by the index."""
    output, index = supervisor.output(job), (supervisor.job_directory(job) / "output.idx").read_bytes()
    totals = {STDOUT: hashlib.sha256(), STDERR: hashlib.sha256()}
    for record in read_records(index, 0, limit=count_records(index)):
        totals[record.stream].update(output[record.start : record.end])
    return f"{totals[STDOUT].hexdigest()} {totals[STDERR].hexdigest()}"


def exit_record(supervisor: Supervisor, job: str) -> dict[str, object]:
    record: dict[str, object] = json.loads((supervisor.job_directory(job) / "exit").read_bytes())
    return record


def until_all_have_ended(peer: Peer) -> None:
    while running := peer.jobs():
        peer.exited(running[0]["job"])


def needs_cgroups(peer: Peer) -> None:
    if peer.welcome["cgroup"]["mode"] == "none":
        pytest.skip("without cgroups nobody knows which processes were jobs")


def grow(supervisor: Supervisor, job: str) -> None:
    """Returns once the job has written more than it had."""
    log = supervisor.job_directory(job) / "output.log"
    size = log.stat().st_size
    wait_until(log, lambda _: log.stat().st_size > size)


def set_version(code: Path, version: int) -> None:
    path = code / "jobworker/supervisor/runstate.py"
    path.write_text(re.sub(r"VERSION = \d+", f"VERSION = {version}", path.read_text(), count=1))
    os.utime(path, (version, version))  # of which the compiled form knows the seconds only


def insert(path: Path, line: str, more: str) -> None:
    """Puts more into our copy of the code, after a line."""
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, line + more, 1))
