"""A supervisor killed with -9 under load: what was taken from the pipes is in the log, or told of, stream by stream."""

import os
import random
import signal
import sys
from pathlib import Path

import pytest

from jobworker import indexcheck, outputindex
from jobworker.supervisor import exitrecord
from tests.harness import processes, stranger
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.outliving import needs_cgroups
from tests.supervisor.peer import PATIENCE, Supervisor, wait_until

SIZE = 8 << 20  # bytes per stream
LARGEST_PIPE = 256 * 1024
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
    start_supervisor()  # which sees to what is left of the last job


def replace_under_load(supervisor: Supervisor, streams: dict[int, bytes], *, cap: str, times: int) -> None:
    job = f"job-{cap}-{times}"
    directory = supervisor.job_directory(job)
    highest = SIZE if cap in ("none", "newest") else 300_000
    with supervisor.connect() as peer:
        argv = [sys.executable, "-S", "-E", "-s", "-c", LOUD, str(SIZE)]
        assert peer.launch(job, argv, output=CAPS[cap])["op"] == "launched"
    for least in sorted(random.Random(times).sample(range(highest), times)):
        wait_for_bytes(directory, least)
        supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        if job in [listed["job"] for listed in peer.jobs()]:
            if cap == "all":
                peer.stop(job)
            peer.exited(job)
    check(directory, streams)
    record = exitrecord.read(str(directory))
    assert record is not None
    written = record["output_bytes"] + record["output_dropped"]
    if cap == "all":
        assert record["signal"] == signal.SIGTERM
        assert written >= 300_000
    else:
        assert record["exit_code"] == 0
        assert SIZE <= written < 2 * SIZE + times * LARGEST_PIPE
    if cap == "none":  # the job ends when it has written all of one
        kept = stranger.streams(stranger.read(directory))
        assert any(kept[stream] == streams[stream] for stream in streams)


@pytest.mark.parametrize("cap", CAPS)
def test_what_was_taken_is_there(
    start_supervisor: StartSupervisor, streams: dict[int, bytes], cap: str
) -> None:
    kill_under_load(start_supervisor, streams, cap=cap, rounds=3)


@pytest.mark.parametrize("cap", CAPS)
def test_who_takes_over_goes_on_at_the_next_byte(
    start_supervisor: StartSupervisor, streams: dict[int, bytes], cap: str
) -> None:
    replace_under_load(start_supervisor(), streams, cap=cap, times=3)


def test_a_job_that_ended_while_nobody_was_there_is_not_held(start_supervisor: StartSupervisor) -> None:
    first = start_supervisor()
    with first.connect() as peer:
        needs_cgroups(peer)
        pid = peer.launch("job", ["sleep", "1000"])["pid"]
    first.kill()
    os.kill(pid, signal.SIGKILL)
    assert processes.wait_gone(pid, seconds=PATIENCE)
    second = start_supervisor()
    with second.connect() as peer:
        assert peer.jobs() == []
    assert exitrecord.read(str(second.job_directory("job"))) is not None


@pytest.mark.slow
@pytest.mark.parametrize("cap", CAPS)
def test_who_takes_over_goes_on_at_the_next_byte_a_hundred_times(
    start_supervisor: StartSupervisor, streams: dict[int, bytes], cap: str
) -> None:
    supervisor = start_supervisor()
    for times in range(1, 14):  # 91 in all
        replace_under_load(supervisor, streams, cap=cap, times=times)


@pytest.mark.slow
@pytest.mark.parametrize("cap", CAPS)
def test_what_was_taken_is_there_a_hundred_times(
    start_supervisor: StartSupervisor, streams: dict[int, bytes], cap: str
) -> None:
    kill_under_load(start_supervisor, streams, cap=cap, rounds=100)
