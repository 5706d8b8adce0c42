"""A disk that is full to the brim: the jobs that write wait, all else goes on, and nothing is missing afterwards."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobworker import outputindex
from jobworker.supervisor import exitrecord
from tests.harness import processes
from tests.harness.probes import needs_root
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.outliving import exit_record
from tests.supervisor.peer import PATIENCE, Message, Peer, Supervisor, wait_for_output
from tests.supervisor.test_output import NOISE, PYTHON, streams

ENOSPC = 28

pytestmark = needs_root  # to mount a small disk


def give_space(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=32m", str(disk)], check=True)


def free_bytes(disk: Path) -> int:
    return os.statvfs(disk).f_bfree * os.statvfs(disk).f_frsize


def blocked(peer: Peer, number: int) -> Message:
    """The event that says so many jobs wait."""
    return peer.receive(lambda message: message.get("event") == "storage" and message["blocked"] == number)


def fill(supervisor: Supervisor, peer: Peer, disk: Path) -> None:
    """Starts a job that takes all space there is, and more, once the next launch has its directory."""
    gate = disk / "gate"
    os.mkfifo(gate)
    waits = 'read go <"$0"; exec "$@"'
    assert (
        peer.launch("loud", ["sh", "-c", waits, str(gate), *PYTHON, NOISE, str(4 << 20)])["op"] == "launched"
    )
    supervisor.descriptors(peer)
    gate.write_text("\n")
    blocked(peer, 1)
    assert free_bytes(disk) == 0


def assert_loud_is_whole(supervisor: Supervisor, peer: Peer) -> None:
    assert peer.exited("loud")["exit_code"] == 0
    parts = streams(supervisor, "loud")
    assert len(parts[outputindex.STDOUT]) == 4 << 20
    assert hashlib.sha256(parts[outputindex.STDOUT]).hexdigest().encode() == parts[outputindex.STDERR]


def test_the_job_waits_is_told_so_and_nothing_is_missing(
    small_disk: Path, start_supervisor: StartSupervisor
) -> None:
    supervisor = start_supervisor(state=small_disk / "state")
    with supervisor.connect() as peer:
        fill(supervisor, peer, small_disk)
        output = peer.call({"op": "usage", "job": "loud"})["output"]
        assert output["blocked"] == "disk"
        assert output["size"] == supervisor.job_directory("loud").joinpath("output.log").stat().st_size
        with supervisor.connect() as late:
            assert late.welcome["storage_blocked"] == 1
        give_space(small_disk)
        blocked(peer, 0)
        assert_loud_is_whole(supervisor, peer)


def test_other_jobs_end_by_themselves_and_by_a_stop(
    small_disk: Path, start_supervisor: StartSupervisor
) -> None:
    """Their exit records have their space already, so their end is on disk and told at once."""
    supervisor = start_supervisor(state=small_disk / "state")
    with supervisor.connect() as peer:
        peer.launch("stopped", ["sleep", "60"])
        peer.launch("ended", ["sh", "-c", "trap 'exit 3' USR1; echo up; while :; do sleep 0.02; done"])
        wait_for_output(supervisor.job_directory("ended") / "output.log", b"up\n")
        fill(supervisor, peer, small_disk)
        assert peer.stop("stopped")["op"] == "done"
        assert peer.exited("stopped")["stop_requested"]
        assert peer.signal("ended", signal.SIGUSR1, tree=False)["op"] == "done"
        record = peer.exited("ended")
        assert (record["exit_code"], record["output_bytes"]) == (3, 3)
        for job in ("stopped", "ended"):
            assert exitrecord.read(str(supervisor.job_directory(job))) is not None
        assert free_bytes(small_disk) == 0
        assert [listed["job"] for listed in peer.jobs()] == ["loud"]
        give_space(small_disk)
        assert_loud_is_whole(supervisor, peer)


def test_a_job_that_is_stopped_while_it_waits_ends_when_its_output_is_stored(
    small_disk: Path, start_supervisor: StartSupervisor
) -> None:
    supervisor = start_supervisor(state=small_disk / "state")
    with supervisor.connect() as peer:
        says = (
            "import os, signal\nsignal.signal(10, lambda *_: os.write(1, b'y' * 5000))\nos.write(1, b'up')\n"
        )
        peer.launch("quiet", [*PYTHON, says + "while True: signal.pause()"])
        wait_for_output(supervisor.job_directory("quiet") / "output.log", b"up")
        fill(supervisor, peer, small_disk)
        peer.signal("quiet", signal.SIGUSR1, tree=False)
        blocked(peer, 2)
        assert peer.stop("quiet", grace_ms=0)["op"] == "done"
        assert peer.stop("loud", grace_ms=0)["op"] == "done"
        peer.jobs()
        assert all(message.get("event") != "exited" for message in peer._received)
        give_space(small_disk)
        record = peer.exited("quiet")
        assert (record["signal"], record["output_bytes"]) == (signal.SIGKILL, 5002)
        assert peer.exited("loud")["signal"] == signal.SIGKILL
        blocked(peer, 0)
    assert streams(supervisor, "quiet")[outputindex.STDOUT] == b"up" + b"y" * 5000
    whole = subprocess.run([*PYTHON, NOISE, str(4 << 20)], capture_output=True, check=True).stdout
    stored = streams(supervisor, "loud")[outputindex.STDOUT]
    assert len(stored) > 100_000
    assert whole.startswith(stored)


def test_a_launch_fails_for_that_reason_and_works_again_with_space(
    small_disk: Path, start_supervisor: StartSupervisor
) -> None:
    supervisor = start_supervisor(state=small_disk / "state")
    with supervisor.connect() as peer:
        fill(supervisor, peer, small_disk)
        answers = [peer.launch(f"more-{number}", ["true"]) for number in range(3)]
        assert answers[0]["op"] == "launched"  # its directory was made before
        assert (answers[2]["op"], answers[2]["stage"], answers[2]["errno"]) == ("failed", "setup", ENOSPC)
        assert peer.exited("more-0")["exit_code"] == 0
        give_space(small_disk)
        assert peer.run("again", ["echo", "hi"])["output_bytes"] == 3
        assert_loud_is_whole(supervisor, peer)


def test_a_job_whose_state_has_no_space_is_not_started(
    small_disk: Path, start_supervisor: StartSupervisor
) -> None:
    """A state that is longer than what is set aside for it."""
    supervisor = start_supervisor(state=small_disk / "state")
    with supervisor.connect() as peer:
        fill(supervisor, peer, small_disk)
        long = [{"limit": "io", "reason": "x" * 8000}]
        failed = peer.launch("long", ["sleep", "1000"], unenforced=long)
        assert (failed["op"], failed["stage"], failed["errno"]) == ("failed", "setup", ENOSPC)
        give_space(small_disk)
        assert peer.launch("again", ["sleep", "1000"], unenforced=long)["op"] == "launched"
        assert_loud_is_whole(supervisor, peer)
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        assert [(listed["job"], listed["unenforced"]) for listed in peer.jobs()] == [("again", long)]
        peer.stop("again")
        peer.exited("again")


def test_who_takes_over_on_a_full_disk_waits_as_well(
    small_disk: Path, start_supervisor: StartSupervisor
) -> None:
    supervisor = start_supervisor(state=small_disk / "state")
    with supervisor.connect() as peer:
        fill(supervisor, peer, small_disk)
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        assert [listed["job"] for listed in peer.jobs()] == ["loud"]
        if not peer.welcome["storage_blocked"]:
            blocked(peer, 1)
        assert free_bytes(small_disk) == 0
        give_space(small_disk)
        assert_loud_is_whole(supervisor, peer)


TAKE_ALL = """
import os, sys
fd, size, told = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY), 0, False
while True:
    try:
        size += os.pwrite(fd, b"x" * 4096, size)
    except OSError:
        told = told or not print("full", flush=True)
"""


def test_the_next_supervisor_comes_up_where_others_take_all_space(
    small_disk: Path, start_supervisor: StartSupervisor
) -> None:
    supervisor = start_supervisor(state=small_disk / "state")
    with subprocess.Popen([*PYTHON, TAKE_ALL, str(small_disk / "all")], stdout=subprocess.PIPE) as thief:
        try:
            assert thief.stdout
            assert thief.stdout.readline() == b"full\n"
            for _ in range(5):
                supervisor.kill_supervisor()
        finally:
            thief.kill()
    give_space(small_disk)


@pytest.mark.parametrize("options", [(), ("--cgroup-root", "/no/such/cgroup")], ids=["cgroups", "none"])
def test_who_takes_over_on_a_full_disk_knows_how_a_job_ended_before(
    small_disk: Path, start_supervisor: StartSupervisor, options: tuple[str, ...]
) -> None:
    supervisor = start_supervisor(*options, state=small_disk / "state")
    with supervisor.connect() as peer:
        fill(supervisor, peer, small_disk)
        pid = peer.launch("job", [*PYTHON, "print('x' * 5000); raise SystemExit(5)"])["pid"]
        assert processes.wait_gone(pid, seconds=PATIENCE)
        assert sorted(listed["job"] for listed in peer.jobs()) == ["job", "loud"]
    supervisor.kill_supervisor()
    give_space(small_disk)
    with supervisor.connect() as peer:
        while [listed["job"] for listed in peer.jobs()]:
            peer.receive(lambda message: message.get("event") == "exited")
    assert exit_record(supervisor, "job")["exit_code"] == 5


def test_why_a_program_could_not_be_executed_is_on_disk_as_well(
    small_disk: Path, start_supervisor: StartSupervisor
) -> None:
    supervisor = start_supervisor(state=small_disk / "state")
    with supervisor.connect() as peer:
        fill(supervisor, peer, small_disk)
        answer = peer.launch("none", ["/no/such/program"])
        assert (answer["op"], answer["stage"]) == ("failed", "exec")
        record = exitrecord.read(str(supervisor.job_directory("none")))
        assert record is not None
        assert record["start_failure"] is not None
        assert [entry.name for entry in supervisor.job_directory("none").iterdir()] == ["exit"]
        give_space(small_disk)
        assert_loud_is_whole(supervisor, peer)


def test_the_newest_output_needs_no_more_space_than_its_cap(
    small_disk: Path, start_supervisor: StartSupervisor
) -> None:
    """64 MiB through a disk of one."""
    supervisor = start_supervisor(state=small_disk / "state")
    cap = {"keep": "newest", "max_bytes": 256 * 1024}
    with supervisor.connect() as peer:
        record = peer.run("loud", [sys.executable, "-c", NOISE, str(64 << 20)], output=cap)
        assert record["output_bytes"] == (64 << 20) + 64
        assert all(message.get("event") != "storage" for message in peer._received)
