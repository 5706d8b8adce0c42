"""How jobs end: by themselves, by a signal, by a stop, by their time; and that nothing of the tree survives."""

import json
import os
import resource
import signal
import time
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.probes import needs_cgroup2, needs_root
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.peer import PATIENCE, TRACED, Peer, Supervisor, wait_for_output, wait_until

FIFTY_SESSIONS = """
trap '' TERM
for n in $(seq 50); do setsid sh -c 'trap "" TERM; echo $$; while :; do sleep 1000; done' & done
while :; do sleep 1000; done
"""


def printed_pids(supervisor: Supervisor, job: str, *, count: int) -> list[int]:
    """The pids that a job printed, one a line, once there are so many."""
    log = supervisor.job_directory(job) / "output.log"
    return [int(line) for line in wait_until(log, lambda content: content.count(b"\n") >= count).split()]


@pytest.mark.parametrize("code", [0, 1, 77, 255])
def test_the_exit_code_is_the_programs(peer: Peer, job: str, code: int) -> None:
    record = peer.run(job, ["sh", "-c", f"exit {code}"])
    assert (record["exit_code"], record["signal"], record["core_dumped"]) == (code, None, False)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGPIPE])
def test_a_death_by_signal_is_told_as_that(peer: Peer, job: str, number: int) -> None:
    record = peer.run(job, ["sh", "-c", f"kill -{int(number)} $$"])
    assert (record["exit_code"], record["signal"]) == (None, number)
    assert not record["stop_requested"]


def test_the_record_on_disk_is_the_event(supervisor: Supervisor, peer: Peer, job: str) -> None:
    before = time.time_ns()
    launched = peer.launch(job, ["sh", "-c", "echo hi; exit 3"])
    event = peer.exited(job)
    text = (supervisor.job_directory(job) / "exit").read_text()
    assert text.endswith("}\n")
    assert event.pop("event") == "exited"
    assert json.loads(text) == event
    assert before < event["started_ns"] <= event["main_exited_ns"] <= event["ended_ns"] < time.time_ns()
    assert event["started_ns"] == launched["started_ns"]
    assert event["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert event["output_bytes"] == 3
    assert event["survivors"] == event["oom_kills"] == 0


def test_the_rest_of_the_tree_dies_with_the_main_process(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    script = "trap 'exit 4' USR1; for n in 1 2 3; do setsid sh -c 'echo $$; exec sleep 1000' & done; while :; do sleep 0.05; done"
    launched = peer.launch(job, ["sh", "-c", script])
    pids = printed_pids(supervisor, job, count=3)
    peer.signal(job, signal.SIGUSR1, tree=False)
    assert peer.exited(job)["exit_code"] == 4
    assert not [pid for pid in [*pids, launched["pid"]] if processes.alive(pid)]


@needs_cgroup2
def test_fifty_sessions_that_ignore_sigterm_are_gone_after_a_stop(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    peer.launch(job, ["sh", "-c", FIFTY_SESSIONS])
    pids = printed_pids(supervisor, job, count=50)
    assert all(processes.alive(pid) for pid in pids)
    peer.stop(job, grace_ms=200)
    record = peer.exited(job)
    assert (record["signal"], record["stop_requested"], record["grace_expired"]) == (
        signal.SIGKILL,
        True,
        True,
    )
    assert record["survivors"] == 0
    assert not [pid for pid in pids if processes.alive(pid)]


def test_a_stop_signals_the_whole_tree(supervisor: Supervisor, peer: Peer, job: str) -> None:
    script = "trap 'wait; exit 9' TERM; setsid sh -c 'trap \"echo bye; exit\" TERM; echo 1; while :; do sleep 0.05; done' & while :; do sleep 0.05; done"
    peer.launch(job, ["sh", "-c", script])
    wait_for_output(supervisor.job_directory(job) / "output.log", b"1\n")
    peer.stop(job)
    record = peer.exited(job)
    assert (record["exit_code"], record["stop_requested"], record["grace_expired"]) == (9, True, False)
    assert b"bye\n" in supervisor.output(job)


def test_a_stop_without_grace_kills_at_once(peer: Peer, job: str) -> None:
    peer.launch(job, ["sh", "-c", "trap '' TERM; while :; do sleep 1000; done"])
    peer.stop(job, grace_ms=0)
    record = peer.exited(job)
    assert (record["signal"], record["stop_requested"], record["grace_expired"]) == (
        signal.SIGKILL,
        True,
        False,
    )


def test_a_second_stop_may_shorten_the_grace(supervisor: Supervisor, peer: Peer, job: str) -> None:
    peer.launch(job, ["sh", "-c", "trap 'echo caught' TERM; echo up; while :; do sleep 0.05; done"])
    log = supervisor.job_directory(job) / "output.log"
    wait_for_output(log, b"up\n")
    peer.stop(job, grace_ms=600_000)
    wait_for_output(log, b"caught\n")
    assert peer.jobs()[0]["stopping"]
    assert peer.stop(job, grace_ms=600_000)["op"] == "done"
    assert peer.stop(job, grace_ms=0)["op"] == "done"
    assert peer.exited(job)["signal"] == signal.SIGKILL
    assert supervisor.output(job).count(b"caught\n") == 1


def test_a_stop_of_an_ended_job_is_no_such_job(peer: Peer, job: str) -> None:
    peer.run(job, ["true"])
    assert peer.stop(job)["error"] == "no_such_job"


def test_a_stop_that_comes_after_the_exit_is_not_recorded(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    """The supervisor is stopped while the job exits, so it hears of both at once: the kernel knows which was first."""
    script = "trap 'exit 6' USR1; echo up; while :; do sleep 0.05; done"
    launched = peer.launch(job, ["sh", "-c", script])
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
    os.kill(supervisor.pid, signal.SIGSTOP)
    try:
        os.kill(launched["pid"], signal.SIGUSR1)
        assert processes.wait_gone(launched["pid"], seconds=PATIENCE)
        peer.send({"op": "stop", "job": job, "signal": 15, "grace_ms": 1000})
    finally:
        os.kill(supervisor.pid, signal.SIGCONT)
    record = peer.exited(job)
    assert (record["exit_code"], record["stop_requested"]) == (6, False)


def test_a_signal_reaches_the_main_process_or_the_tree(supervisor: Supervisor, peer: Peer, job: str) -> None:
    child = 'trap "echo child" USR1; echo up; while :; do sleep 0.02; done'
    script = f"trap 'echo main' USR1; sh -c '{child}' & echo up; while :; do sleep 0.02; done"
    peer.launch(job, ["sh", "-c", script])
    log = supervisor.job_directory(job) / "output.log"
    wait_until(log, lambda content: content.count(b"up") == 2)
    assert peer.signal(job, signal.SIGUSR1, tree=False)["op"] == "done"
    wait_for_output(log, b"main\n")
    assert peer.signal(job, signal.SIGUSR1, tree=True)["op"] == "done"
    wait_until(log, lambda content: content.count(b"main") == 2 and content.count(b"child") == 1)
    assert peer.signal(job, signal.SIGKILL, tree=True)["op"] == "done"
    record = peer.exited(job)
    assert (record["signal"], record["stop_requested"]) == (signal.SIGKILL, False)


def test_a_timeout_kills_the_tree_and_is_recorded(supervisor: Supervisor, peer: Peer, job: str) -> None:
    began = time.monotonic()
    peer.launch(job, ["sh", "-c", "trap '' TERM; setsid sleep 1000 & sleep 1000"], timeout_ms=300)
    record = peer.exited(job)
    assert 0.3 <= time.monotonic() - began < PATIENCE
    assert (record["timed_out"], record["signal"]) == (True, signal.SIGKILL)
    assert not record["stop_requested"]


def test_a_timeout_that_is_not_reached_is_not_recorded(peer: Peer, job: str) -> None:
    assert not peer.run(job, ["true"], timeout_ms=60_000)["timed_out"]


def test_the_longest_times_are_no_trouble(supervisor: Supervisor, peer: Peer, job: str) -> None:
    peer.launch(job, ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done"], timeout_ms=2**53)
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
    assert peer.stop(job, grace_ms=2**53)["op"] == "done"
    assert peer.stop(job, grace_ms=0)["op"] == "done"
    assert peer.exited(job)["stop_requested"]


def test_a_timeout_ends_a_stop_with_a_longer_grace_and_the_stop_stays_the_reason(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    peer.launch(job, ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done"], timeout_ms=3000)
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
    peer.stop(job, grace_ms=600_000)
    record = peer.exited(job)
    assert (record["stop_requested"], record["timed_out"], record["signal"]) == (True, False, signal.SIGKILL)


@needs_cgroup2
def test_a_job_that_waits_for_its_tree_ends_with_its_last_process(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    script = "setsid sh -c 'trap \"echo last; exit\" USR1; echo $$; while :; do sleep 0.02; done' & exit 3"
    launched = peer.launch(job, ["sh", "-c", script], wait_for_tree=True)
    (daemon,) = printed_pids(supervisor, job, count=1)
    assert processes.wait_gone(launched["pid"], seconds=PATIENCE)
    assert [listed["job"] for listed in peer.jobs()] == [job]
    assert peer.signal(job, signal.SIGUSR1, tree=False)["op"] == "error"
    os.kill(daemon, signal.SIGUSR1)
    record = peer.exited(job)
    assert record["exit_code"] == 3
    assert supervisor.output(job).endswith(b"last\n")
    assert record["ended_ns"] > record["main_exited_ns"]


@needs_cgroup2
def test_a_stop_ends_a_job_that_waits_for_its_tree(supervisor: Supervisor, peer: Peer, job: str) -> None:
    script = "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1000; done' & exit 0"
    launched = peer.launch(job, ["sh", "-c", script], wait_for_tree=True)
    (daemon,) = printed_pids(supervisor, job, count=1)
    assert processes.wait_gone(launched["pid"], seconds=PATIENCE)
    peer.stop(job, grace_ms=100)
    record = peer.exited(job)
    assert (record["exit_code"], record["stop_requested"], record["grace_expired"]) == (0, True, True)
    assert not processes.alive(daemon)


def leaf_of(peer: Peer, pid: int) -> Path:
    """The directory on cgroup2 that a job's process is in."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    place = next(line[3:] for line in lines if line.startswith("0::"))
    return Path(peer.welcome["cgroup"]["root"]) / Path(place).name


@needs_root
@needs_cgroup2
def test_a_frozen_tree_is_killed_when_the_grace_is_over(supervisor: Supervisor, peer: Peer, job: str) -> None:
    launched = peer.launch(job, ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done"])
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
    (leaf_of(peer, launched["pid"]) / "cgroup.freeze").write_text("1")
    peer.stop(job, grace_ms=100)
    record = peer.exited(job)
    assert (record["signal"], record["grace_expired"]) == (signal.SIGKILL, True)


@needs_root
@needs_cgroup2
def test_a_cgroup_that_somebody_else_removed_does_not_hold_up_the_end(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    pid = peer.launch(job, ["sleep", "1000"])["pid"]
    leaf = leaf_of(peer, pid)
    os.kill(supervisor.pid, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        assert processes.wait_gone(pid, seconds=PATIENCE)
        leaf.rmdir()
    finally:
        os.kill(supervisor.pid, signal.SIGCONT)
    assert peer.exited(job)["signal"] == signal.SIGKILL


def test_use_is_counted(peer: Peer, job: str) -> None:
    script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    usage = peer.run(job, ["sh", "-c", script])["usage"]
    assert usage["cpu_user_usec"] + usage["cpu_system_usec"] > 20_000
    if "memory" in peer.welcome["cgroup"]["controllers"]:
        assert 100_000 < usage["memory_peak_bytes"] < 100_000_000
    if "pids" in peer.welcome["cgroup"]["controllers"]:
        assert usage["pids_peak"] >= 1


def test_use_of_a_running_job_is_told(supervisor: Supervisor, peer: Peer, job: str) -> None:
    peer.launch(job, ["sh", "-c", "sleep 1000 & sleep 1000 & echo up; wait"])
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
    usage = peer.call({"op": "usage", "job": job})["usage"]
    if {"memory", "pids"} <= set(peer.welcome["cgroup"]["controllers"]):
        assert usage["pids"] == usage["pids_peak"] == 3
        assert 0 < usage["memory_bytes"] <= usage["memory_peak_bytes"]
    peer.stop(job)
    peer.exited(job)


def test_a_tracer_that_takes_no_notice_does_not_hold_up_the_end(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    record = peer.run(job, ["python3", "-c", TRACED])
    if b"traced" not in supervisor.output(job):
        pytest.skip(f"this host lets no child trace its parent: {supervisor.output(job).decode()}")
    assert (record["exit_code"], record["stop_requested"], record["survivors"]) == (3, False, 0)


@pytest.mark.parametrize("root", [None, "/no/such/cgroup"], ids=["here", "no cgroups"])
def test_a_job_that_ends_while_there_are_no_descriptors_is_ended_when_there_are(
    start_supervisor: StartSupervisor, root: str | None
) -> None:
    supervisor = start_supervisor(*(["--cgroup-root", root] if root else []))
    script = "trap 'exit 7' TERM; sleep 1000 & echo $!; while :; do sleep 0.05; done"
    with supervisor.connect() as peer:
        peer.launch("other", ["sleep", "1000"])
        peer.launch("job", ["sh", "-c", script])
        wait_for_output(supervisor.job_directory("job") / "output.log", b"\n")
        left = int(supervisor.output("job"))
        supervisor.descriptors(peer)  # the child for the next launch has come
        limits = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        peer.signal("job", signal.SIGTERM, tree=False)
        wait_for_output(supervisor.state / "supervisor.log", b"cannot be killed, tried every half second")
        assert [listed["job"] for listed in peer.jobs()] == ["other", "job"]
        assert processes.alive(left)
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, limits)
        record = peer.exited("job")
        assert not processes.alive(left)
        assert (record["exit_code"], record["survivors"]) == (7, 0)
        peer.stop("other")
        assert peer.exited("other")["signal"] == signal.SIGTERM
    assert "Traceback" not in supervisor.log
