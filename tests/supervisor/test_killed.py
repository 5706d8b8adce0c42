"""A supervisor killed with -9 under load: what was taken from the pipes is in the log, or told of, stream by stream."""

import random
import sys
from pathlib import Path

import pytest

from jobworker import indexcheck, outputindex
from tests.harness import stranger
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.peer import wait_until

SIZE = 8 << 20  # bytes per stream
LOUD = """
import os, random, sys
size = int(sys.argv[1])
left = {stream: memoryview(random.Random(stream).randbytes(size)) for stream in (1, 2)}
choice = random.Random()
while left[1] and left[2]:
    stream, count = choice.choice((1, 2)), choice.choice((10, 1000, 50_000))
    left[stream] = left[stream][os.write(stream, left[stream][:count]):]
"""
CAPS = {
    "none": None,
    "newest": {"keep": "newest", "max_bytes": 300_000},
    "oldest": {"keep": "oldest", "max_bytes": 300_000},
    "all": {"keep": "all", "max_bytes": 300_000},
}


def written(stream: int) -> bytes:
    return random.Random(stream).randbytes(SIZE)


@pytest.fixture(scope="module")
def streams() -> dict[int, bytes]:
    return {stream: written(stream) for stream in (outputindex.STDOUT, outputindex.STDERR)}


def wait_for_bytes(directory: Path, count: int) -> None:
    wait_until(directory / outputindex.LOG_NAME, lambda content: len(content) > count)


def check(directory: Path, streams: dict[int, bytes]) -> None:
    """The files of a job whose supervisor was killed: before they are mended, and after."""
    found = stranger.read(directory)
    outputindex.mend(str(directory))
    assert stranger.read(directory) == found
    view = (directory / outputindex.INDEX_NAME).read_bytes()
    header, size = outputindex.unpack_header(view), (directory / outputindex.LOG_NAME).stat().st_size
    assert list(indexcheck.check(view, header, log_size=size, show=str)) == []
    kept, reached = stranger.streams(found), 0
    for stream, stored in kept.items():
        begin = streams[stream].find(stored[:200])
        assert begin == 0 if not header.head else begin >= 0
        assert stored == streams[stream][begin : begin + len(stored)]
        reached += begin + len(stored)
    if not header.head or all(kept.values()):  # else it is not known how far the other stream had come
        assert reached == size


def kill_under_load(
    start_supervisor: StartSupervisor, streams: dict[int, bytes], *, cap: str, rounds: int
) -> None:
    choice = random.Random(rounds)
    for number in range(rounds):
        supervisor = start_supervisor()
        job = f"job-{number}"
        directory = supervisor.job_directory(job)
        with supervisor.connect() as peer:
            argv = [sys.executable, "-S", "-E", "-s", "-c", LOUD, str(SIZE)]
            assert peer.launch(job, argv, output=CAPS[cap])["op"] == "launched"
            wait_for_bytes(directory, choice.randrange(4_000_000 if cap in ("none", "newest") else 300_000))
            supervisor.kill()
        check(directory, streams)
    start_supervisor()  # which ends what is left of the jobs


@pytest.mark.parametrize("cap", CAPS)
def test_what_was_taken_is_there(
    start_supervisor: StartSupervisor, streams: dict[int, bytes], cap: str
) -> None:
    kill_under_load(start_supervisor, streams, cap=cap, rounds=3)


@pytest.mark.slow
@pytest.mark.parametrize("cap", CAPS)
def test_what_was_taken_is_there_a_hundred_times(
    start_supervisor: StartSupervisor, streams: dict[int, bytes], cap: str
) -> None:
    kill_under_load(start_supervisor, streams, cap=cap, rounds=100)
