"""Limits on a real block device, held against programs that read and write past the page cache and through it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobworker.blockdevice import NoDiskError, Place, find
from tests.supervisor.peer import Message, Peer, Supervisor, wait_for_output

MIB = 1024 * 1024
RATE = 4 * MIB
SIZE = 8 * MIB
# each prints how long it took; direct ones need aligned memory, which mmap gives
PROLOGUE = """
import mmap, os, sys, time
path, size, block = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
page = mmap.mmap(-1, block)
page.write(b"x" * block)
"""
WRITE = """
fd = os.open(path, os.O_WRONLY | os.O_CREAT | FLAGS, 0o600)
began = time.monotonic()
for _ in range(size // block): os.write(fd, page)
if not FLAGS: os.fsync(fd)
print(time.monotonic() - began)
"""
READ = """
fd = os.open(path, os.O_RDONLY | FLAGS)
began = time.monotonic()
for n in range(size // block): os.preadv(fd, [page], n * block)
print(time.monotonic() - began)
"""

Io = Callable[..., Message]


@pytest.fixture
def disk(directory: Path) -> Place:
    try:
        return find(str(directory))
    except NoDiskError as error:
        pytest.skip(f"the temporary directory has no disk to limit: {error}")


@pytest.fixture
def io(peer: Peer, directory: Path, disk: Place) -> Io:
    """Limits for the temporary directory's disk."""
    if "io" not in peer.welcome["cgroup"]["controllers"]:
        pytest.skip("the supervisor has no io controller here")

    def limits(**rates: int) -> Message:
        place = {"path": str(directory), "device": disk.device, "filesystem": disk.filesystem}
        return {"io": [{**place, **rates}]}

    return limits


def program(text: str, path: Path, *, direct: bool, block: int = 128 * 1024) -> list[str]:
    flags = os.O_DIRECT if direct else 0
    script = PROLOGUE + text.replace("FLAGS", str(flags))
    return [sys.executable, "-S", "-E", "-s", "-c", script, str(path), str(SIZE), str(block)]


def make_cold(path: Path) -> None:
    """A file of which nothing is in the page cache."""
    with path.open("wb") as file:
        file.write(b"x" * SIZE)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "cached"])
def test_a_reader_gets_the_rate_it_may_have(
    supervisor: Supervisor, peer: Peer, job: str, directory: Path, io: Io, *, direct: bool
) -> None:
    path = directory / f"{job}.cold"
    make_cold(path)
    limits = io(read_bytes_per_second=RATE)
    launched = peer.launch(job, program(READ, path, direct=direct), limits=limits)
    assert launched["limits"]["io"] == [
        {key: value for key, value in limits["io"][0].items() if key != "filesystem"}
    ]
    usage = peer.exited(job)["usage"]
    assert 0.85 * SIZE / RATE < float(supervisor.output(job)) < 2 * SIZE / RATE
    assert SIZE <= usage["io_read_bytes"] < 3 * SIZE
    assert usage["io_read_operations"] > 0


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "synced"])
def test_a_writer_gets_the_rate_it_may_have(
    supervisor: Supervisor, peer: Peer, job: str, directory: Path, io: Io, *, direct: bool
) -> None:
    command = program(WRITE, directory / f"{job}.new", direct=direct)
    launched = peer.launch(job, command, limits=io(write_bytes_per_second=RATE), best_effort=True)
    is_v1 = peer.welcome["cgroup"]["controllers"]["io"] == "v1"
    unenforced = [entry["limit"] for entry in launched["unenforced"]]
    assert unenforced == (["io.write_bytes_per_second"] if is_v1 else [])
    usage = peer.exited(job)["usage"]
    assert 0.85 * SIZE / RATE < float(supervisor.output(job)) < 2 * SIZE / RATE
    assert SIZE <= usage["io_write_bytes"] < 3 * SIZE
    assert usage["io_write_operations"] > 0


def test_operations_are_counted_too(
    supervisor: Supervisor, peer: Peer, job: str, directory: Path, io: Io
) -> None:
    path = directory / f"{job}.cold"
    make_cold(path)
    command = program(READ, path, direct=True, block=64 * 1024)
    peer.run(job, command, limits=io(read_operations_per_second=64))
    assert 0.85 * 2 < float(supervisor.output(job)) < 4


def test_a_limit_on_buffered_writes_is_refused_where_the_kernel_does_not_know_whose_they_are(
    supervisor: Supervisor, peer: Peer, job: str, io: Io
) -> None:
    reply = peer.launch(job, ["true"], limits=io(write_operations_per_second=100))
    if peer.welcome["cgroup"]["controllers"]["io"] == "v1":
        assert (reply["op"], reply["stage"]) == ("failed", "limit")
        assert reply["detail"].startswith("io.write_operations_per_second: ")
        assert os.listdir(supervisor.job_directory(job)) == ["exit"]
    else:
        assert reply["op"] == "launched"
        peer.exited(job)


def test_on_a_file_system_that_does_not_tell_whose_a_write_is(peer: Peer, job: str, io: Io) -> None:
    limits = io(write_bytes_per_second=RATE)
    limits["io"][0]["filesystem"] = "vfat"
    assert peer.launch(job, ["true"], limits=limits)["detail"].startswith("io.write_bytes_per_second: ")


def test_a_disk_that_is_not_there(peer: Peer, job: str, io: Io) -> None:
    limits = io(read_bytes_per_second=RATE)
    limits["io"][0]["device"] = "253:99"
    failed = peer.launch(job, ["true"], limits=limits)
    assert (failed["op"], failed["stage"]) == ("failed", "limit")
    assert failed["detail"].startswith("io: ")


def test_a_limit_that_is_lifted_lets_a_reader_go(
    supervisor: Supervisor, peer: Peer, job: str, directory: Path, io: Io
) -> None:
    path = directory / f"{job}.cold"
    make_cold(path)
    command = program("print('up', flush=True)" + READ, path, direct=True)
    peer.launch(job, command, limits=io(read_bytes_per_second=MIB // 8))  # a minute
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
    request = {"op": "update", "job": job, "best_effort": False, "unenforced": []}
    faster = peer.call({**request, "limits": io(read_bytes_per_second=MIB // 4), "lift": []})
    assert faster["limits"]["io"][0]["read_bytes_per_second"] == MIB // 4
    assert peer.call({**request, "limits": {}, "lift": ["io"]})["limits"] == {}
    peer.exited(job)
    assert float(supervisor.output(job).split()[1]) < 30
