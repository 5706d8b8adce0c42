"""A supervisor that becomes another version of itself in place, and one that is kept from it."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.harness import processes
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.outliving import exit_record, grow, recorded, set_version, until_all_have_ended, writer
from tests.supervisor.peer import PATIENCE, Supervisor


@pytest.fixture
def supervisor(start_supervisor: StartSupervisor) -> Supervisor:
    return start_supervisor()


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
    assert time.monotonic() - begin > 2.9
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
    assert [line for line in supervisor.log.splitlines() if line.endswith(": ")] == []


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_a_request_to_end_that_comes_with_the_last_of_an_upgrade_is_not_lost(
    start_supervisor: StartSupervisor, code: Path, tmp_path: Path
) -> None:
    """Our copy of the next version waits at a gate, so that both are there when the supervisor looks."""
    supervisor = start_supervisor(code=code)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with (code / "jobworker/supervisor/takeover.py").open("a") as file:
        file.write(f"import sys\nif '--can-take-over' in sys.argv:\n    open({str(gate)!r}).read()\n")
    with supervisor.connect() as peer:
        peer.launch("job", ["sleep", "1000"])
        peer.send({"op": "upgrade"})
        with gate.open("w"):
            asked = next(pid for pid in supervisor.children() if "--can-take-over" in command_of(pid))
            os.kill(supervisor.pid, signal.SIGSTOP)
        assert processes.wait_gone(asked, seconds=PATIENCE)
        os.kill(supervisor.pid, signal.SIGTERM)
        os.kill(supervisor.pid, signal.SIGCONT)
    assert supervisor.process.wait(PATIENCE) == 0
    assert exit_record(supervisor, "job")["stop_requested"]


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
