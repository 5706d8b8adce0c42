"""Output beyond its cap: the newest, the oldest or all of it is kept, and what is not stored is told, byte for byte."""

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from jobworker import outputindex
from tests.supervisor.peer import Message, Peer, Supervisor, launch_request, wait_for_output, wait_until

KIB = 1024
PYTHON = [sys.executable, "-S", "-E", "-s", "-c"]
NOISE = "import os, random, sys; os.write(1, random.Random(7).randbytes(int(sys.argv[1])))"
ALTERNATE = """
import os, sys
for number in range(int(sys.argv[1])):
    os.write(1 + number % 2, b"%d\\n" % number)
"""
ALL_OF_IT = {"size": 0, "head": 0, "dropped": 0, "blocked": None}


def noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


def cap(keep: str, max_bytes: int | None) -> dict[str, object]:
    return {"keep": keep, "max_bytes": max_bytes}


def output_of(peer: Peer, job: str) -> Message:
    output: Message = peer.call({"op": "usage", "job": job})["output"]
    return output


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def header_of(directory: Path) -> outputindex.Header:
    return outputindex.unpack_header((directory / outputindex.INDEX_NAME).read_bytes())


def test_the_newest_is_kept_at_its_offsets_and_the_rest_given_back(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    size = 4096 * KIB
    record = peer.run(job, [*PYTHON, NOISE, str(size)], output=cap("newest", 256 * KIB))
    log = supervisor.job_directory(job) / outputindex.LOG_NAME
    head = record["output_head"]
    assert (record["output_bytes"], record["output_dropped"]) == (size, 0)
    assert 256 * KIB * 7 / 8 <= size - head <= 256 * KIB
    assert log.read_bytes() == bytes(head) + noise(size)[head:]
    assert allocated(log) <= 256 * KIB
    assert header_of(log.parent).head == head


def test_the_records_of_what_was_given_back_are_given_back_too(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    count = 20_000
    record = peer.run(job, [*PYTHON, ALTERNATE, str(count)], output=cap("newest", 2 * KIB))
    directory = supervisor.job_directory(job)
    log, index = directory / outputindex.LOG_NAME, directory / outputindex.INDEX_NAME
    data = index.read_bytes()
    first = outputindex.find_offset(data, record["output_head"])
    kept = outputindex.read_records(data, first, limit=count)
    assert kept[0].start <= record["output_head"] < kept[0].end
    assert kept[-1].end == record["output_bytes"]
    assert not any(data[outputindex.HEADER_SIZE : outputindex.HEADER_SIZE + 24 * (first - 1)])
    assert allocated(log) <= 8 * KIB
    assert first > 1
    # a record for each line of the cap, and blocks that are partly in use
    assert allocated(index) <= 24 * KIB


def test_the_oldest_is_kept_and_the_rest_counted(supervisor: Supervisor, peer: Peer, job: str) -> None:
    size = 1024 * KIB
    record = peer.run(job, [*PYTHON, NOISE, str(size)], output=cap("oldest", 10_000))
    assert supervisor.output(job) == noise(size)[:10_000]
    assert (record["output_bytes"], record["output_head"], record["output_dropped"]) == (
        10_000,
        0,
        size - 10_000,
    )
    assert header_of(supervisor.job_directory(job)).dropped == size - 10_000


def test_a_job_whose_oldest_output_is_kept_never_waits(supervisor: Supervisor, peer: Peer, job: str) -> None:
    script = "import os\nfor _ in range(64): os.write(1, bytes(65536))\nos.write(2, b'through')"
    record = peer.run(job, [*PYTHON, script], output=cap("oldest", 0))
    assert (record["output_bytes"], record["output_dropped"]) == (0, 64 * 65536 + 7)


def test_a_job_all_of_whose_output_is_kept_waits_at_its_cap(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    size = 1024 * KIB
    peer.launch(job, [*PYTHON, NOISE, str(size)], output=cap("all", 100_000))
    log = supervisor.job_directory(job) / outputindex.LOG_NAME
    wait_until(log, lambda content: len(content) == 100_000)
    peer.run(f"{job}-other", ["true"])  # a turn of the loop, and more, in which nothing is taken
    assert output_of(peer, job) == ALL_OF_IT | {"size": 100_000, "blocked": "cap"}
    peer.stop(job)
    record = peer.exited(job)
    stored = log.read_bytes()
    assert record["output_bytes"] == len(stored) > 100_000  # with what was in the pipe
    assert (record["output_head"], record["output_dropped"]) == (0, 0)
    assert stored == noise(size)[: len(stored)]


def test_a_job_below_its_cap_is_not_touched(supervisor: Supervisor, peer: Peer, job: str) -> None:
    for keep in ("newest", "oldest", "all"):
        name = f"{job}-{keep}"
        record = peer.run(name, [*PYTHON, NOISE, "5000"], output=cap(keep, 5000))
        assert (record["output_bytes"], record["output_head"], record["output_dropped"]) == (5000, 0, 0)
        assert supervisor.output(name) == noise(5000)


@pytest.mark.parametrize("output", [None, cap("all", None), cap("oldest", None)], ids=str)
def test_without_a_cap_all_is_kept(supervisor: Supervisor, peer: Peer, job: str, output: Any) -> None:
    size = 512 * KIB
    assert peer.run(job, [*PYTHON, NOISE, str(size)], output=output)["output_bytes"] == size
    assert supervisor.output(job) == noise(size)


def test_what_is_recorded_is_told_while_the_job_runs(supervisor: Supervisor, peer: Peer, job: str) -> None:
    peer.launch(job, ["sh", "-c", "echo hi; exec sleep 60"])
    wait_for_output(supervisor.job_directory(job) / outputindex.LOG_NAME, b"hi\n")
    assert output_of(peer, job) == ALL_OF_IT | {"size": 3}
    peer.stop(job, grace_ms=0)
    peer.exited(job)


def test_hello_tells_that_the_disk_refuses_nobody(peer: Peer) -> None:
    assert peer.welcome["storage_blocked"] == 0


@pytest.mark.parametrize(
    ("output", "field"),
    [
        ("newest", "output"),
        ({"keep": "some", "max_bytes": 1}, "output.keep"),
        ({"keep": ["all"], "max_bytes": 1}, "output.keep"),
        ({"max_bytes": 1}, "output.keep"),
        (cap("all", -1), "output.max_bytes"),
        ({"keep": "all", "max_bytes": True}, "output.max_bytes"),
        ({"keep": "all", "max_bytes": 1.5}, "output.max_bytes"),
        ({"keep": "all", "max_bytes": 2**60}, "output.max_bytes"),
    ],
    ids=str,
)
def test_a_wrong_cap_is_named(peer: Peer, job: str, output: object, field: str) -> None:
    answer = peer.call(launch_request(job, ["true"], output=output))
    assert (answer["op"], answer["error"]) == ("error", "bad_request")
    assert f"'{field}'" in answer["detail"]
