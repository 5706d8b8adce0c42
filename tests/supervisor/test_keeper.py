"""The keeper killed, alone or together with its supervisor, and what it keeps."""

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

from jobworker import syscalls
from tests.harness import processes
from tests.supervisor.conftest import StartSupervisor, assert_nothing_left
from tests.supervisor.outliving import (
    exit_record,
    grow,
    insert,
    needs_cgroups,
    recorded,
    set_version,
    until_all_have_ended,
    writer,
)
from tests.supervisor.peer import PATIENCE, Supervisor, wait_for_output


@pytest.fixture
def supervisor(start_supervisor: StartSupervisor) -> Supervisor:
    return start_supervisor()


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


def until_another_serves(supervisor: Supervisor, old: int) -> None:
    """Returns once connections are not those of a supervisor that is about to become the keeper."""
    served_by = old
    while served_by == old:
        with (
            contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError),
            supervisor.connect() as peer,
        ):
            served_by = peer.welcome["pid"]
            if served_by == old:
                peer.receive(lambda _: False)


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


def test_the_keeper_may_die_over_an_upgrade(supervisor: Supervisor, tmp_path: Path) -> None:
    with supervisor.connect() as peer:
        end, digest = writer(peer, "job", tmp_path)
    for _ in range(3):
        grow(supervisor, "job")
        with supervisor.connect() as peer:
            peer.send({"op": "upgrade"})
            with pytest.raises(EOFError):
                peer.receive(lambda _: False)
            old = supervisor.pid
            os.kill(keeper(supervisor), signal.SIGKILL)
        until_another_serves(supervisor, old)
        grow(supervisor, "job")
    end.touch()
    with supervisor.connect() as peer:
        until_all_have_ended(peer)
    assert recorded(supervisor, "job") == digest.read_text().strip()
    new = keeper(supervisor)
    os.kill(new, signal.SIGTERM)
    assert processes.wait_gone(new, seconds=PATIENCE)


def test_where_no_version_can_take_over_a_supervisor_goes_on_without_a_keeper_until_one_can(
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
        assert "cannot take over" in peer.upgrade()["detail"]
        second = start_supervisor(code=code)  # is kept out by the lock
        assert f"supervisor {supervisor.pid} already runs" in second.ready
        assert second.process.wait(PATIENCE) == 1
        old = supervisor.pid
        set_version(code, 1)
        assert peer.upgrade()["op"] == "done"
    until_another_serves(supervisor, old)
    assert keeper(supervisor) == old
    with supervisor.connect() as peer:
        peer.stop("job")
        assert peer.exited("job")["signal"] == signal.SIGTERM
        pid = supervisor.pid
        assert peer.call({"op": "shutdown", "if_idle": True})["op"] == "done"
    assert processes.wait_gone(pid, seconds=PATIENCE)
    assert processes.wait_gone(old, seconds=PATIENCE)


def test_a_job_that_ends_while_its_supervisor_becomes_the_keeper_has_its_true_status(
    start_supervisor: StartSupervisor, code: Path, tmp_path: Path
) -> None:
    """Before signals are held for the keeper to read: our copy of its code kills the job there, and waits."""
    supervisor = start_supervisor(code=code)
    with supervisor.connect() as peer:
        pid = peer.launch("job", ["sleep", "1000"])["pid"]
    kills = (
        "    if options.kept_fd >= 0:\n"
        f"        os.kill({pid}, 9)\n"
        f"        os.waitid(os.P_PID, {pid}, os.WEXITED | os.WNOWAIT)\n"
    )
    insert(code / "jobworker/supervisor/__main__.py", "def _keep(options: Options) -> int:\n", kills)
    new = successor_of_keeper(supervisor)
    with supervisor.connect() as peer:
        until_all_have_ended(peer)
    assert exit_record(supervisor, "job")["signal"] == signal.SIGKILL
    os.kill(new, signal.SIGTERM)
    assert processes.wait_gone(new, seconds=PATIENCE)


def test_a_keeper_that_can_start_nothing_tries_again(start_supervisor: StartSupervisor, code: Path) -> None:
    """As while what is installed is being replaced."""
    supervisor = start_supervisor(code=code)
    with supervisor.connect() as peer:
        peer.launch("job", ["sleep", "1000"])
    away = code.rename(code.with_name("away"))
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_for_output(supervisor.state / "supervisor.log", b"no supervisor can be started")
    away.rename(code)
    with supervisor.connect() as peer:
        peer.stop("job")
        assert peer.exited("job")["signal"] == signal.SIGTERM


def test_a_keeper_that_can_start_nothing_can_be_ended(start_supervisor: StartSupervisor, code: Path) -> None:
    supervisor = start_supervisor(code=code)
    away = code.rename(code.with_name("away"))
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_for_output(supervisor.state / "supervisor.log", b"no supervisor can be started")
    assert supervisor.terminate() == 1
    away.rename(code)
    assert start_supervisor(code=code).ready == "ready\n"  # and clears what is left


def test_a_keeper_hears_of_a_signal_and_of_a_hang_up_at_once(
    start_supervisor: StartSupervisor, code: Path, tmp_path: Path
) -> None:
    """From a supervisor that lives on for a moment: our copy of its code does that, once."""
    once = str(tmp_path / "once")
    hangs_up = f"""
    if not os.path.exists({once!r}):
        os.mkdir({once!r})
        parent = os.getppid()
        os.kill(parent, 19)
        while open(f"/proc/{{parent}}/stat").read().rpartition(")")[2].split()[0] != "T":
            pass
        os.close(options.keeper_fd)
        os.kill(parent, 1)
        os.kill(parent, 18)
        told = syscalls.signalfd([1])
        while not syscalls.is_readable(told):
            pass
        os._exit(3)
"""
    startup = code / "jobworker/supervisor/startup.py"
    insert(startup, "def run(options: Options, *, ignored: list[int]) -> int:\n", hangs_up)
    supervisor = start_supervisor(code=code)
    wait_for_output(supervisor.state / "supervisor.log", b": ready")
    assert "the supervisor has ended with status 0x300" in supervisor.log


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


def test_a_job_whose_number_is_that_of_a_thread_by_now_is_known_to_be_gone(
    start_supervisor: StartSupervisor,
) -> None:
    first = start_supervisor()
    with first.connect() as peer:
        needs_cgroups(peer)
        pid = peer.launch("job", ["sleep", "1000"])["pid"]
    first.kill()
    os.kill(pid, signal.SIGKILL)
    assert processes.wait_gone(pid, seconds=PATIENCE)
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait)
    thread.start()
    try:
        path = first.job_directory("job") / "running"
        path.write_text(path.read_text().replace(f'"pid":{pid},', f'"pid":{thread.native_id},', 1))
        second = start_supervisor()
        assert second.ready == "ready\n"
        with second.connect() as peer:
            until_all_have_ended(peer)
        record = exit_record(second, "job")
        assert (record["exit_code"], record["signal"]) == (None, None)
    finally:
        may_end.set()
        thread.join()


def test_without_cgroups_a_job_that_nobody_held_is_given_up_and_nobody_is_signalled(
    start_supervisor: StartSupervisor,
) -> None:
    nowhere = ("--cgroup-root", "/no/such/cgroup")
    first = start_supervisor(*nowhere)
    with first.connect() as peer:
        pid = peer.launch("job", ["sleep", "1000"])["pid"]
    first.kill()
    second = start_supervisor(*nowhere)
    try:
        with second.connect() as peer:
            assert peer.jobs() == []
            assert peer.run("job-2", ["true"])["exit_code"] == 0
        assert "job job: nobody held it" in second.log
        assert processes.alive(pid)  # its number could be another's by now
    finally:
        os.kill(pid, signal.SIGKILL)


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
        assert peer.upgrade()["op"] == "done"
    with (
        supervisor.connect()
    ):  # who served has asked the keeper for all, and been answered after what was said before
        assert held() < 30


def test_nothing_of_a_job_that_was_given_up_is_left_with_the_keeper(supervisor: Supervisor) -> None:
    def held() -> int:
        return len(os.listdir(f"/proc/{supervisor.process.pid}/fd"))

    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        supervisor.descriptors(peer)  # a child was made and taken in
        before = held()
        pid = peer.launch("job", ["sleep", "1000"])["pid"]
    (supervisor.job_directory("job") / "output.idx").write_bytes(b"x" * 100)
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        supervisor.descriptors(peer)
        assert peer.jobs() == []
        assert held() == before
    assert processes.wait_gone(pid, seconds=PATIENCE)
    assert "its output cannot be used" in supervisor.log


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
