"""The supervisor's own start and end: one per state directory, a clear line when it cannot be, jobs killed with it."""

import os
import signal
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.probes import MOUNTS, needs_cgroup2, needs_root
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.peer import PATIENCE, Supervisor, wait_for_output


def test_a_second_supervisor_on_the_same_state_says_so_and_exits(
    supervisor: Supervisor, start_supervisor: StartSupervisor
) -> None:
    second = start_supervisor(state=supervisor.state)
    assert second.process.wait(PATIENCE) == 1
    assert second.ready == f"supervisor {supervisor.pid} already runs on state directory {supervisor.state}\n"
    with supervisor.connect() as peer:
        assert peer.jobs() == []


@pytest.mark.parametrize("options", [["--what", "x"], ["--cgroup-root"], ["--ready-fd", "x"]])
def test_a_wrong_command_line_is_told(start_supervisor: StartSupervisor, options: list[str]) -> None:
    supervisor = start_supervisor(*options)
    assert supervisor.process.wait(PATIENCE) == 1
    assert "usage: " in supervisor.log


def test_a_state_directory_that_is_none_is_told(tmp_path: Path, start_supervisor: StartSupervisor) -> None:
    supervisor = start_supervisor()
    assert supervisor.terminate() == 0
    (tmp_path / "state" / "jobs").rmdir()
    (tmp_path / "state" / "jobs").write_text("a file")
    second = start_supervisor()
    assert second.process.wait(PATIENCE) == 1
    assert second.ready == f"state directory {tmp_path / 'state'}: Not a directory\n"


@needs_root
@needs_cgroup2
def test_the_tree_goes_where_it_is_told(start_supervisor: StartSupervisor) -> None:
    base = MOUNTS["v2"] / f"jobworker-test-{os.getpid()}"
    base.mkdir()
    supervisor = start_supervisor("--cgroup-root", str(base))
    with supervisor.connect() as peer:
        assert peer.welcome["cgroup"]["root"] == str(
            base / f"jobworker-{processes.state_hash(supervisor.state)}"
        )
        pid = peer.launch("job", ["sleep", "1000"])["pid"]
        assert f"0::/{base.name}/jobworker-" in Path(f"/proc/{pid}/cgroup").read_text()
    assert supervisor.terminate() == 0
    base.rmdir()


@needs_root
def test_a_tree_that_cannot_be_made_is_told_and_jobs_run_without(start_supervisor: StartSupervisor) -> None:
    supervisor = start_supervisor("--cgroup-root", "/proc/self")
    with supervisor.connect() as peer:
        assert peer.welcome["cgroup"]["mode"] == "none"
        assert peer.run("job", ["true"])["exit_code"] == 0
        assert peer.launch("limited", ["true"], limits={"pids": 5})["stage"] == "limit"
    assert "jobs run without cgroups" in supervisor.log


def test_a_long_path_is_no_trouble(tmp_path: Path, start_supervisor: StartSupervisor) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    supervisor = start_supervisor(state=deep / "state")
    assert supervisor.ready == "ready\n"
    with supervisor.connect() as peer:
        assert peer.run("job", ["true"])["exit_code"] == 0


def test_shutdown_only_when_idle(start_supervisor: StartSupervisor) -> None:
    supervisor = start_supervisor()
    with supervisor.connect() as peer:
        peer.launch("job", ["sleep", "1000"])
        assert peer.call({"op": "shutdown", "if_idle": True})["error"] == "busy"
        peer.stop("job", grace_ms=0)
        peer.exited("job")
        assert peer.call({"op": "shutdown", "if_idle": True})["op"] == "done"
        with pytest.raises(EOFError):
            peer.exited("nothing")
    assert supervisor.process.wait(PATIENCE) == 0
    assert not (supervisor.state / "supervisor.sock").exists()


@pytest.mark.parametrize("by", ["signal", "request"])
def test_an_end_of_the_supervisor_kills_and_records_every_job(
    start_supervisor: StartSupervisor, by: str
) -> None:
    supervisor = start_supervisor()
    with supervisor.connect() as peer:
        pids = [peer.launch(f"job-{n}", ["sh", "-c", "trap '' TERM; sleep 1000"])["pid"] for n in range(5)]
        if by == "signal":
            supervisor.process.send_signal(signal.SIGTERM)
        else:
            assert peer.call({"op": "shutdown", "if_idle": False})["op"] == "done"
        records = [peer.exited(f"job-{n}") for n in range(5)]
    assert supervisor.process.wait(PATIENCE) == 0
    assert {(record["signal"], record["stop_requested"]) for record in records} == {(9, True)}
    assert all((supervisor.job_directory(f"job-{n}") / "exit").exists() for n in range(5))
    assert not [pid for pid in pids if processes.alive(pid)]
    assert processes.cgroups_of(supervisor.state) == []


@needs_root
def test_no_job_is_launched_during_a_shutdown_which_waits_for_output_to_be_stored(
    small_disk: Path, start_supervisor: StartSupervisor
) -> None:
    supervisor = start_supervisor(state=small_disk / "state")
    with supervisor.connect() as peer:
        filler = small_disk / "filler"
        filler.write_bytes(bytes(512 * 1024))
        peer.launch("job", ["yes"])
        peer.receive(lambda message: message.get("event") == "storage")
        supervisor.process.send_signal(signal.SIGTERM)
        wait_for_output(supervisor.state / "supervisor.log", b"shutting down")
        assert peer.launch("late", ["true"])["error"] == "busy"
        filler.unlink()
        assert peer.exited("job")["stop_requested"]
    assert supervisor.process.wait(PATIENCE) == 0
    assert supervisor.job_directory("job").joinpath("exit").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGPIPE])
def test_other_signals_are_ignored(start_supervisor: StartSupervisor, number: int) -> None:
    supervisor = start_supervisor()
    supervisor.process.send_signal(number)
    with supervisor.connect() as peer:
        assert peer.run("job", ["true"])["exit_code"] == 0
