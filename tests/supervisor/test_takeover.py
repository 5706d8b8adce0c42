"""A supervisor killed, upgraded, or lost together with its keeper: what its jobs and their records are afterwards."""

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from jobworker import syscalls
from jobworker.outputindex import STDERR, STDOUT, count_records, read_records
from tests.harness import processes
from tests.supervisor.conftest import StartSupervisor, assert_nothing_left
from tests.supervisor.peer import CHECKOUT, PATIENCE, Peer, Supervisor, wait_for_output, wait_until

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


@pytest.fixture
def supervisor(start_supervisor: StartSupervisor) -> Supervisor:
    return start_supervisor()


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
    assert 1.9 < time.monotonic() - begin < PATIENCE


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


def test_an_upgrade_keeps_pid_children_pipes_and_deadlines(supervisor: Supervisor, tmp_path: Path) -> None:
    begin = time.monotonic()
    with supervisor.connect() as peer:
        end, digest = writer(peer, "job", tmp_path)
        peer.launch("timeout", ["sleep", "1000"], timeout_ms=3000)
    pid = supervisor.pid
    for _ in range(3):
        grow(supervisor, "job")
        with supervisor.connect() as peer:
            assert peer.upgrade()["op"] == "done"
        with supervisor.connect() as peer:
            assert peer.welcome["pid"] == pid
            assert "job" in {listed["job"] for listed in peer.jobs()}
    end.touch()
    with supervisor.connect() as peer:
        until_all_have_ended(peer)
    assert exit_record(supervisor, "timeout")["timed_out"]
    assert 2.9 < time.monotonic() - begin < PATIENCE
    assert exit_record(supervisor, "job")["exit_code"] == 7
    assert recorded(supervisor, "job") == digest.read_text().strip()


def test_a_hangup_signal_upgrades(supervisor: Supervisor) -> None:
    with supervisor.connect() as peer:
        peer.launch("job", ["sleep", "1000"])
        supervisor.process.send_signal(signal.SIGHUP)  # to the keeper, which passes it on
        with pytest.raises(EOFError):
            peer.receive(lambda _: False)
    with supervisor.connect() as peer:
        assert peer.welcome["pid"] == supervisor.pid
        assert [listed["job"] for listed in peer.jobs()] == ["job"]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of what is installed, to be changed under a running supervisor."""
    copy = tmp_path / "code"
    (copy / "jobworker").mkdir(parents=True)
    for name in ("__init__.py", "outputindex.py", "syscalls.py"):
        shutil.copy(CHECKOUT / "jobworker" / name, copy / "jobworker")
    shutil.copytree(
        CHECKOUT / "jobworker/supervisor",
        copy / "jobworker/supervisor",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return copy


def set_version(code: Path, version: int) -> None:
    path = code / "jobworker/supervisor/runstate.py"
    path.write_text(path.read_text().replace("VERSION = 1", f"VERSION = {version}", 1))


def test_an_upgrade_to_a_newer_format_reads_the_older(start_supervisor: StartSupervisor, code: Path) -> None:
    supervisor = start_supervisor(code=code)
    with supervisor.connect() as peer:
        peer.launch("job", ["sleep", "1000"])
        set_version(code, 2)
        assert peer.upgrade()["op"] == "done"
    with supervisor.connect() as peer:
        assert [listed["job"] for listed in peer.jobs()] == ["job"]
        peer.stop("job")
        assert peer.exited("job")["signal"] == signal.SIGTERM


@pytest.mark.parametrize("damage", ["older", "broken"])
def test_an_upgrade_to_what_cannot_take_over_is_refused_and_the_old_process_goes_on(
    start_supervisor: StartSupervisor, code: Path, damage: str
) -> None:
    supervisor = start_supervisor(code=code)
    with supervisor.connect() as peer:
        peer.launch("job", ["sleep", "1000"])
        if damage == "older":
            set_version(code, 0)
        else:
            (code / "jobworker/supervisor/takeover.py").write_text("def broken(:\n")
            (code / "jobworker/supervisor/serve.py").write_text("def broken(:\n")
        refused = peer.upgrade()
        assert (refused["op"], refused["error"]) == ("error", "busy")
        assert "cannot take over" in refused["detail"]
        assert [listed["job"] for listed in peer.jobs()] == ["job"]


def successor_of_keeper(supervisor: Supervisor) -> int:
    """Kills the keeper; returns the supervisor's old pid, which is the keeper's now, once another supervisor serves."""
    old = supervisor.pid
    with supervisor.connect() as peer:
        os.kill(keeper(supervisor), signal.SIGKILL)
        with pytest.raises(EOFError):
            peer.receive(lambda _: False)
    with supervisor.connect() as peer:
        assert peer.welcome["pid"] != old
    assert keeper(supervisor) == old
    return old


@pytest.fixture
def unless_kernel_tells() -> int | None:
    """The exit status of a job whose parent was killed together with what would have adopted it; -1 stands for none."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        syscalls.pidfd_exit_status(pidfd)
    except OSError:
        return None
    finally:
        os.close(pidfd)
    return -1


def keeper(supervisor: Supervisor) -> int:
    """The parent of the supervisor."""
    return int(Path(f"/proc/{supervisor.pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_supervisor_without_a_keeper_becomes_one_and_nothing_is_lost(
    supervisor: Supervisor, tmp_path: Path, unless_kernel_tells: int | None
) -> None:
    with supervisor.connect() as peer:
        end, digest = writer(peer, "job", tmp_path)
        peer.launch(
            "closed", ["sh", "-c", "exec >&- 2>&-; while ! test -e $0; do sleep 0.01; done; exit 6", str(end)]
        )
        peer.launch("daemon", ["sh", "-c", "sleep 1000 & exit 3"], wait_for_tree=True)
        peer.launch("stubborn", ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done"])
        wait_for_output(supervisor.job_directory("stubborn") / "output.log", b"up")
        peer.stop("stubborn", grace_ms=3000)
    grow(supervisor, "job")
    successor_of_keeper(supervisor)
    grow(supervisor, "job")
    supervisor.kill_supervisor()
    grow(supervisor, "job")
    new = successor_of_keeper(supervisor)
    end.touch()
    with supervisor.connect() as peer:
        peer.stop("daemon")
        until_all_have_ended(peer)
        peer.run("after", ["true"])
    assert exit_record(supervisor, "job")["exit_code"] in (7, unless_kernel_tells)
    assert recorded(supervisor, "job") == digest.read_text().strip()
    assert exit_record(supervisor, "closed")["exit_code"] in (6, unless_kernel_tells)
    assert exit_record(supervisor, "daemon")["exit_code"] == 3  # which had exited under the first supervisor
    assert exit_record(supervisor, "stubborn")["grace_expired"]
    os.kill(new, signal.SIGTERM)
    assert processes.wait_gone(new, seconds=PATIENCE)
    assert_nothing_left(supervisor)


def test_a_keeper_that_was_a_supervisor_lets_it_be_upgraded(supervisor: Supervisor) -> None:
    with supervisor.connect() as peer:
        peer.launch("job", ["sh", "-c", "read line; exit 4"])
    new = successor_of_keeper(supervisor)
    with supervisor.connect() as peer:
        assert peer.upgrade()["op"] == "done"
    with supervisor.connect() as peer:
        assert peer.call({"op": "shutdown", "if_idle": False})["op"] == "done"
    assert processes.wait_gone(new, seconds=PATIENCE)


def test_where_no_version_can_take_over_a_supervisor_goes_on_without_a_keeper(
    start_supervisor: StartSupervisor, code: Path
) -> None:
    supervisor = start_supervisor(code=code)
    with supervisor.connect() as peer:
        peer.launch("job", ["sleep", "1000"])
        set_version(code, 0)
        supervisor.process.kill()
        supervisor.process.wait(PATIENCE)
        wait_for_output(supervisor.state / "supervisor.log", b"cannot take over")
        assert peer.run("after", ["sh", "-c", "exit 4"])["exit_code"] == 4
        assert "keeper" in peer.upgrade()["detail"]
        second = start_supervisor(code=code)  # is kept out by the lock
        assert f"supervisor {supervisor.pid} already runs" in second.ready
        assert second.process.wait(PATIENCE) == 1
        peer.stop("job")
        assert peer.exited("job")["signal"] == signal.SIGTERM
        pid = supervisor.pid
        assert peer.call({"op": "shutdown", "if_idle": True})["op"] == "done"
    assert processes.wait_gone(pid, seconds=PATIENCE)


def test_a_job_of_a_pair_that_was_killed_is_found_again_and_its_end_told_as_far_as_it_is_known(
    start_supervisor: StartSupervisor,
) -> None:
    first = start_supervisor()
    with first.connect() as peer:
        needs_cgroups(peer)
        pid = peer.launch("job", ["sh", "-c", "setsid sleep 1000 & exec sleep 1000"])["pid"]
        peer.launch("gone", ["sh", "-c", 'while kill -0 "$0"; do :; done', str(first.pid)])
        waiting = first.waiting_child(peer)
    first.kill()
    assert processes.wait_gone(waiting, seconds=PATIENCE)
    second = start_supervisor()
    assert second.ready == "ready\n"
    with second.connect() as peer:
        assert [listed["pid"] for listed in peer.jobs() if listed["job"] == "job"] == [pid]
        assert peer.launch("job", ["true"])["error"] == "exists"
        peer.stop("job")
        record = peer.exited("job")
        assert record["stop_requested"]
        assert record["signal"] in (signal.SIGTERM, None)  # which of them, this kernel and its init decide
        while any(listed["job"] == "gone" for listed in peer.jobs()):
            peer.exited("gone")
    assert exit_record(second, "gone")["exit_code"] in (1, 0, None)


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


def test_a_job_of_a_newer_version_is_not_touched(start_supervisor: StartSupervisor) -> None:
    first = start_supervisor()
    with first.connect() as peer:
        needs_cgroups(peer)
        pid = peer.launch("job", ["sleep", "1000"])["pid"]
    first.kill()
    path = first.job_directory("job") / "running"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'{"version":1', b'{"version":2', 1))
    second = start_supervisor()
    assert second.ready == "job job runs under a newer version; run that version, or end its processes\n"
    assert second.process.wait(PATIENCE) == 1
    assert processes.alive(pid)
    path.write_bytes(content)
    third = start_supervisor()
    with third.connect() as peer:
        peer.stop("job")
        peer.exited("job")


def test_nothing_is_left_open_with_the_keeper_in_the_long_run(supervisor: Supervisor) -> None:
    def held() -> int:
        return len(os.listdir(f"/proc/{supervisor.process.pid}/fd"))

    with supervisor.connect() as peer:
        for number in range(200):
            peer.run(f"job-{number}", ["true"])
    assert held() < 4 * 100
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        peer.run("last", ["true"])
    assert held() < 30
