"""Jobs where the host gives no cgroups: their trees die all the same, however they hide, and nobody else does."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.harness import processes
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.peer import PATIENCE, TRACED, Peer, Supervisor, wait_until

# forks twice, so that it is nobody's child, in a session of its own, deaf to SIGTERM; tells its pid
DAEMON = "(setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1000; done' &)"
UNTIL_TOLD = "trap 'exit 7' TERM; while :; do sleep 0.05; done"
# one process after the other: each makes the next and ends; for ten seconds at most
RUNNER = """
import os, sys, time
end = time.monotonic() + 10
print("off", flush=True)
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
"""


@pytest.fixture
def supervisor(start_supervisor: StartSupervisor) -> Supervisor:
    return start_supervisor("--cgroup-root", "/no/such/cgroup")


@pytest.fixture
def peer(supervisor: Supervisor) -> Iterator[Peer]:
    with supervisor.connect() as connection:
        assert connection.welcome["cgroup"]["mode"] == "none"
        yield connection


def lines_of(supervisor: Supervisor, job: str, count: int) -> list[bytes]:
    """The job's output, once it has so many lines."""
    log = supervisor.job_directory(job) / "output.log"
    return wait_until(log, lambda content: content.count(b"\n") >= count).split()


def start_with_daemons(supervisor: Supervisor, peer: Peer, job: str, *, count: int, then: str) -> list[int]:
    """Starts a job that makes daemons; their pids, once it can be told what it can be told."""
    trap, _, _ = then.rpartition("; while")
    peer.launch(job, ["sh", "-c", "\n".join([trap, *[DAEMON] * count, then])])
    return list(map(int, lines_of(supervisor, job, count)))


def test_a_stop_kills_what_hides(supervisor: Supervisor, peer: Peer) -> None:
    pids = start_with_daemons(supervisor, peer, "job", count=20, then="wait; sleep 1000")
    peer.stop("job", grace_ms=50)
    record = peer.exited("job")
    assert not [pid for pid in pids if processes.alive(pid)], "the record was there before they were gone"
    assert record["stop_requested"]


def test_the_end_of_the_main_process_is_the_end_of_what_hides(supervisor: Supervisor, peer: Peer) -> None:
    pids = start_with_daemons(supervisor, peer, "job", count=20, then=UNTIL_TOLD)
    peer.signal("job", signal.SIGTERM, tree=False)
    record = peer.exited("job")
    assert not [pid for pid in pids if processes.alive(pid)]
    assert (record["exit_code"], record["survivors"]) == (7, 0)


def test_a_job_that_waits_for_its_tree_ends_with_its_first_process(
    supervisor: Supervisor, peer: Peer
) -> None:
    """Also when a process that is left traces it, and keeps its end to itself."""
    record = peer.run("daemon", ["sh", "-c", f"{DAEMON}; exit 3"], wait_for_tree=True)
    assert (record["exit_code"], record["stop_requested"]) == (3, False)
    record = peer.run("traced", ["python3", "-c", TRACED], wait_for_tree=True)
    if b"traced" not in supervisor.output("traced"):
        pytest.skip(f"this host lets no child trace its parent: {supervisor.output('traced').decode()}")
    assert (record["exit_code"], record["stop_requested"], record["survivors"]) == (3, False, 0)


def test_a_stop_tells_all_of_them(supervisor: Supervisor, peer: Peer) -> None:
    script = "(setsid sh -c 'trap \"echo told; exit\" TERM; echo here; sleep 1000 & wait' &)"
    peer.launch("job", ["sh", "-c", f"{script}; {script}; trap '' TERM; while :; do sleep 0.1; done"])
    lines_of(supervisor, "job", 2)
    peer.stop("job", grace_ms=60_000)
    assert sorted(lines_of(supervisor, "job", 4)) == [b"here", b"here", b"told", b"told"]
    peer.stop("job", grace_ms=0)
    peer.exited("job")


def test_nobody_else_is_touched(supervisor: Supervisor, peer: Peer) -> None:
    stay = start_with_daemons(supervisor, peer, "stays", count=3, then="wait; sleep 1000")
    gone = start_with_daemons(supervisor, peer, "goes", count=3, then=UNTIL_TOLD)
    peer.signal("goes", signal.SIGTERM, tree=False)
    peer.exited("goes")
    assert not [pid for pid in gone if processes.alive(pid)]
    assert all(map(processes.alive, stay))
    peer.stop("stays", grace_ms=0)
    peer.exited("stays")


@pytest.mark.parametrize("how", ["stop", "end"])
def test_what_runs_away_is_caught(supervisor: Supervisor, peer: Peer, how: str) -> None:
    keep = "; sleep 1000" if how == "stop" else ""
    peer.launch("job", ["sh", "-c", f'setsid python3 -S -E -c "$1" & sleep 0.3{keep}', "sh", RUNNER])
    lines_of(supervisor, "job", 1)
    if how == "stop":
        peer.stop("job", grace_ms=0)
    peer.exited("job")
    assert not processes.mentioning("time.monotonic() + 10")


@pytest.mark.parametrize("how", ["killed", "upgraded"])
def test_another_supervisor_finds_them_too(supervisor: Supervisor, how: str) -> None:
    with supervisor.connect() as peer:
        pids = start_with_daemons(supervisor, peer, "job", count=5, then="wait; sleep 1000")
    if how == "killed":
        supervisor.kill_supervisor()
    else:
        with supervisor.connect() as peer:
            assert peer.upgrade()["op"] == "done"
    with supervisor.connect() as peer:
        peer.stop("job", grace_ms=0)
        record = peer.exited("job")
    assert not [pid for pid in pids if processes.alive(pid)]
    assert record["signal"] == signal.SIGKILL


def test_all_are_gone_with_the_supervisor(supervisor: Supervisor) -> None:
    with supervisor.connect() as peer:
        pids = start_with_daemons(supervisor, peer, "job", count=5, then="wait; sleep 1000")
    assert supervisor.terminate() == 0
    assert not [pid for pid in pids if processes.alive(pid)]
    assert supervisor.process.wait(PATIENCE) == 0


def test_as_many_jobs_as_are_started_can_end_at_once(start_supervisor: StartSupervisor) -> None:
    """Each has more processes left than there are descriptors for."""
    supervisor = start_supervisor("--cgroup-root", "/no/such/cgroup", wrap=["prlimit", "--nofile=160:160"])
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo up; wait"
    with supervisor.connect() as peer:
        answers = [peer.launch(f"job-{number}", ["sh", "-c", script]) for number in range(20)]
        started = {answer["job"]: answer["pid"] for answer in answers if answer["op"] == "launched"}
        assert 0 < len(started) < len(answers)
        for job in started:
            lines_of(supervisor, job, 1)
        os.kill(supervisor.pid, signal.SIGSTOP)
        for pid in started.values():
            os.kill(pid, signal.SIGKILL)
        os.kill(supervisor.pid, signal.SIGCONT)
        assert [peer.exited(job)["survivors"] for job in started] == [0] * len(started)
    assert "cannot be" not in supervisor.log
