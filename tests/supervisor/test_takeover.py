"""A supervisor that is killed: what its jobs and their records are under the next one."""

import json
import os
import select
import signal
import time
from pathlib import Path

import pytest

from tests.harness import processes
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.outliving import (
    exit_record,
    grow,
    insert,
    needs_cgroups,
    recorded,
    until_all_have_ended,
    writer,
)
from tests.supervisor.peer import PATIENCE, Peer, Supervisor, wait_for_output


@pytest.fixture
def supervisor(start_supervisor: StartSupervisor) -> Supervisor:
    return start_supervisor()


def test_a_job_writes_on_over_the_death_of_its_supervisor_and_no_byte_is_lost(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    with supervisor.connect() as peer:
        end, digest = writer(peer, "job", tmp_path)
    for _ in range(5):
        grow(supervisor, "job")
        supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        assert [listed["job"] for listed in peer.jobs()] == ["job"]
        grow(supervisor, "job")
        end.touch()
        record = peer.exited("job")
    assert (record["exit_code"], record["signal"]) == (7, None)
    assert recorded(supervisor, "job") == digest.read_text().strip()
    assert record["output_bytes"] == len(supervisor.output("job"))


def test_an_exit_that_nobody_saw_has_its_true_status(supervisor: Supervisor) -> None:
    watch = 'while kill -0 "$0"; do :; done; echo last words; exit 5'
    with supervisor.connect() as peer:
        peer.launch("exits", ["sh", "-c", watch, str(supervisor.pid)])
        peer.launch("dies", ["sh", "-c", f"{watch.partition('echo')[0]} kill -USR1 $$", str(supervisor.pid)])
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        for job in [listed["job"] for listed in peer.jobs()]:
            peer.exited(job)
    assert exit_record(supervisor, "exits")["exit_code"] == 5
    assert b"last words\n" in supervisor.output("exits")
    assert exit_record(supervisor, "dies")["signal"] == signal.SIGUSR1


def test_an_exit_while_the_next_supervisor_comes_up_is_not_missed(
    start_supervisor: StartSupervisor, code: Path, tmp_path: Path
) -> None:
    """Between asking the keeper for everything and serving: it waits there at a gate, in our copy of its code."""
    for name in ("gate", "end"):
        os.mkfifo(tmp_path / name)
    supervisor = start_supervisor(code=code)
    with supervisor.connect() as peer:
        script = 'read line <"$0"; echo last words; exit 5'
        pid = peer.launch("job", ["sh", "-c", script, str(tmp_path / "end")])["pid"]
    serve = code / "jobworker/supervisor/serve.py"
    waits = f"    open({str(tmp_path / 'gate')!r}).read()\n    loop = Loop()\n"
    serve.write_text(serve.read_text().replace("    loop = Loop()\n", waits, 1))
    os.kill(supervisor.pid, signal.SIGKILL)
    with (tmp_path / "gate").open("w"):
        (tmp_path / "end").write_text("\n")
        assert processes.wait_reaped(pid, seconds=PATIENCE)
    with supervisor.connect() as peer:
        assert peer.jobs() == [] or peer.exited("job")
    assert exit_record(supervisor, "job")["exit_code"] == 5
    assert supervisor.output("job") == b"last words\n"


def test_a_program_that_is_not_there_stays_so_when_who_was_told_is_killed(
    start_supervisor: StartSupervisor, code: Path, tmp_path: Path
) -> None:
    """Between taking the child's report and writing it down: our copy of the code kills itself there, once."""
    execution, once = code / "jobworker/supervisor/execution.py", str(tmp_path / "once")
    begin = "def _parse(report: bytes) -> StartFailure:\n"
    kill = (
        f"    if not os.path.exists({once!r}):\n        os.mkdir({once!r})\n        os.kill(os.getpid(), 9)\n"
    )
    assert begin in execution.read_text()
    execution.write_text(execution.read_text().replace(begin, begin + kill))
    supervisor = start_supervisor(code=code)
    with supervisor.connect() as peer, pytest.raises(EOFError):
        peer.launch("job", ["/no/such/program"])
    with supervisor.connect() as peer:
        until_all_have_ended(peer)
    record = exit_record(supervisor, "job")
    assert record["start_failure"] == {"stage": "exec", "errno": 2, "detail": "not found"}
    assert (record["exit_code"], record["signal"]) == (None, None)


def test_deadlines_outlive_the_supervisor(supervisor: Supervisor) -> None:
    stubborn = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"]
    begin = time.monotonic()
    with supervisor.connect() as peer:
        peer.launch("timeout", ["sleep", "1000"], timeout_ms=2000)
        peer.launch("grace", stubborn)
        wait_for_output(supervisor.job_directory("grace") / "output.log", b"ready")
        peer.stop("grace", grace_ms=2000)
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        until_all_have_ended(peer)
    timeout, grace = exit_record(supervisor, "timeout"), exit_record(supervisor, "grace")
    assert (timeout["timed_out"], timeout["stop_requested"]) == (True, False)
    assert (grace["stop_requested"], grace["grace_expired"]) == (True, True)
    assert time.monotonic() - begin > 1.9


def ask_to_death(supervisor: Supervisor, peer: Peer, request: dict[str, object]) -> None:
    """Asks what our copy of the code kills the supervisor in the midst of; returns when that is so."""
    pidfd = os.pidfd_open(supervisor.pid)
    peer.send(request)
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)


def test_a_deadline_is_known_before_the_signal_is_sent(start_supervisor: StartSupervisor, code: Path) -> None:
    killed = "        if first:\n            self.signal_tree(number)\n"
    insert(code / "jobworker/supervisor/job.py", killed, "            signal.raise_signal(signal.SIGKILL)\n")
    supervisor = start_supervisor(code=code)
    with supervisor.connect() as peer:
        peer.launch("job", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"])
        wait_for_output(supervisor.job_directory("job") / "output.log", b"ready")
        stop = {"op": "stop", "job": "job", "signal": signal.SIGTERM, "grace_ms": 500}
        ask_to_death(supervisor, peer, stop)
    with supervisor.connect() as peer:
        until_all_have_ended(peer)
    record = exit_record(supervisor, "job")
    assert (record["stop_requested"], record["grace_expired"]) == (True, True)


def test_a_job_that_is_frozen_is_known_to_be_paused(start_supervisor: StartSupervisor, code: Path) -> None:
    freezes = "        cgroup_v2.freeze(self.tree.fd, self.name, frozen=frozen)\n"
    kills = "        if frozen: os.kill(os.getpid(), 9)\n"
    insert(code / "jobworker/supervisor/cgroup.py", freezes, kills)
    supervisor = start_supervisor(code=code)
    with supervisor.connect() as peer:
        needs_cgroups(peer)
        peer.launch("job", ["sleep", "1000"])
        ask_to_death(supervisor, peer, {"op": "pause", "job": "job"})
    with supervisor.connect() as peer:
        assert [listed["paused"] for listed in peer.jobs()] == [True]
        peer.stop("job", grace_ms=600_000)  # which lets it go on
        assert peer.exited("job")["signal"] == signal.SIGTERM


def test_a_clock_that_was_set_back_makes_no_time_negative(supervisor: Supervisor) -> None:
    with supervisor.connect() as peer:
        peer.launch("job", ["sleep", "1000"])
    path = supervisor.job_directory("job") / "running"
    state, _, rest = path.read_bytes().partition(b"\n")
    changed = json.loads(state)
    changed["ordered_ns"] += 3600 * 10**9
    path.write_bytes(json.dumps(changed).encode() + b"\n" + rest)
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        peer.stop("job")
        record = peer.exited("job")
    assert 0 <= record["usage"]["wall_usec"] < 60_000_000


def test_a_paused_job_stays_paused_and_can_go_on(supervisor: Supervisor) -> None:
    with supervisor.connect() as peer:
        needs_cgroups(peer)
        peer.launch("job", ["sh", "-c", "read line < /dev/stdin; exit 3"])
        peer.launch("job-2", ["sleep", "1000"])
        assert peer.call({"op": "pause", "job": "job-2"})["op"] == "done"
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        assert {listed["job"]: listed["paused"] for listed in peer.jobs()}["job-2"]
        assert peer.call({"op": "resume", "job": "job-2"})["op"] == "done"
        peer.stop("job-2")
        assert peer.exited("job-2")["signal"] == signal.SIGTERM


def test_limits_that_were_changed_are_those_that_the_next_one_knows(supervisor: Supervisor) -> None:
    with supervisor.connect() as peer:
        needs_cgroups(peer)
        peer.launch("job", ["sleep", "1000"], limits={"nice": 2})
        request = {
            "op": "update",
            "job": "job",
            "lift": [],
            "unenforced": [{"limit": "io", "reason": "none"}],
        }
        peer.call({**request, "limits": {"nice": 3}, "best_effort": True})
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        (listed,) = peer.jobs()
        assert listed["limits"] == {"nice": 3}
        assert listed["unenforced"] == [{"limit": "io", "reason": "none"}]
        again = peer.call({**request, "limits": {"oom_score_adj": 9}, "best_effort": False, "unenforced": []})
        assert again["limits"] == {"nice": 3, "oom_score_adj": 9}
        peer.stop("job")
        peer.exited("job")


def test_nothing_of_the_tree_survives_a_job_that_was_taken_over(supervisor: Supervisor) -> None:
    with supervisor.connect() as peer:
        needs_cgroups(peer)
        peer.launch("job", ["sh", "-c", "setsid sh -c 'setsid sleep 1000 & sleep 1000' & echo ready; wait"])
        wait_for_output(supervisor.job_directory("job") / "output.log", b"ready")
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        peer.stop("job")
        assert peer.exited("job")["survivors"] == 0


def test_the_supervisor_is_replaced_while_jobs_start(supervisor: Supervisor) -> None:
    """Each job whose launch was asked for either has run once, or never will: nothing is in between."""
    for round_number in range(5):
        names = [f"job-{round_number}-{number}" for number in range(20)]
        peer = supervisor.connect()
        for name in names:
            peer.send(
                {
                    "op": "launch",
                    "job": name,
                    "argv": ["sh", "-c", "echo ran; exit 3"],
                    "env": {"PATH": "/bin:/usr/bin"},
                }
                | {"workdir": None, "scratch": None, "uid": None, "gid": None, "limits": {}}
                | {"timeout_ms": None, "wait_for_tree": False}
            )
        peer.receive(lambda received: received.get("event") == "exited")
        supervisor.kill_supervisor()
        peer.socket.close()
        with supervisor.connect() as peer:
            until_all_have_ended(peer)
        for name in names:
            if (supervisor.job_directory(name)).exists():
                record = exit_record(supervisor, name)
                if record["start_failure"] is None:
                    assert (record["exit_code"], supervisor.output(name)) == (3, b"ran\n"), record


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"version":9}', b'{"version":1,"record":{}}', b"\xff" * 4096]
)
def test_a_damaged_state_costs_one_job(supervisor: Supervisor, content: bytes) -> None:
    with supervisor.connect() as peer:
        needs_cgroups(peer)
        damaged = peer.launch("damaged", ["sleep", "1000"])["pid"]
        peer.launch("sound", ["sleep", "1000"])
    (supervisor.job_directory("damaged") / "running").write_bytes(content)
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        assert [listed["job"] for listed in peer.jobs()] == ["sound"]
    assert processes.wait_gone(damaged, seconds=PATIENCE)
    assert "job damaged: its state cannot be used" in supervisor.log


@pytest.mark.parametrize("field", ["number", "pid", "output", "limits"])
def test_a_state_that_lacks_something_costs_one_job(supervisor: Supervisor, field: str) -> None:
    with supervisor.connect() as peer:
        needs_cgroups(peer)
        damaged = peer.launch("damaged", ["sleep", "1000"])["pid"]
        peer.launch("sound", ["sleep", "1000"])
    path = supervisor.job_directory("damaged") / "running"
    state = json.loads(path.read_bytes().partition(b"\n")[0])
    del state[field]
    path.write_bytes(json.dumps(state).encode() + b"\n")
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        assert [listed["job"] for listed in peer.jobs()] == ["sound"]
    assert processes.wait_gone(damaged, seconds=PATIENCE)
    assert "job damaged: its state cannot be used" in supervisor.log
