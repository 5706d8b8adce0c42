"""Launches that come to nothing: each says at which step and why, and leaves no more than its exit record."""

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.harness import processes
from tests.harness.probes import needs_cgroup2, needs_root
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.outliving import insert
from tests.supervisor.peer import PATIENCE, Message, Peer, Supervisor, launch_request


def fail(
    supervisor: Supervisor, peer: Peer, job: str, argv: list[str], **fields: object
) -> tuple[str, int, str]:
    """Launches what cannot start, and checks that nothing is left of it."""
    failed = peer.launch(job, argv, **fields)
    assert failed["op"] == "failed", failed
    failure = {key: failed[key] for key in ("stage", "errno", "detail")}
    record = json.loads((supervisor.job_directory(job) / "exit").read_text())
    assert record["start_failure"] == failure
    assert (record["started_ns"], record["exit_code"], record["signal"]) == (None, None, None)
    assert os.listdir(supervisor.job_directory(job)) == ["exit"]
    assert peer.jobs() == []
    return failed["stage"], failed["errno"], failed["detail"]


def make_program(path: Path, text: str, *, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_no_such_program(supervisor: Supervisor, peer: Peer, job: str) -> None:
    stage, number, detail = fail(supervisor, peer, job, ["no-such-program"], env={"PATH": "/usr/bin:/bin"})
    assert (stage, number, detail) == ("exec", errno.ENOENT, "not found in PATH=/usr/bin:/bin")


@pytest.mark.parametrize("env", [{}, {"PATH": ""}], ids=["unset", "empty"])
def test_without_a_path_nothing_is_searched(
    supervisor: Supervisor, peer: Peer, job: str, env: dict[str, str]
) -> None:
    assert fail(supervisor, peer, job, ["sh"], env=env, workdir="/bin")[:2] == ("exec", errno.ENOENT)


def test_no_such_file(supervisor: Supervisor, peer: Peer, job: str) -> None:
    assert fail(supervisor, peer, job, ["/no/such"]) == ("exec", errno.ENOENT, "not found")


def test_not_executable(supervisor: Supervisor, peer: Peer, job: str, tmp_path: Path) -> None:
    program = make_program(tmp_path / "program", "#!/bin/sh\n", mode=0o644)
    assert fail(supervisor, peer, job, [program]) == ("exec", errno.EACCES, "not executable")
    found = fail(supervisor, peer, job + "-searched", ["program"], env={"PATH": f"{tmp_path}:/usr/bin"})
    assert found == ("exec", errno.EACCES, "not executable")


def test_a_directory(supervisor: Supervisor, peer: Peer, job: str) -> None:
    assert fail(supervisor, peer, job, ["/usr"]) == ("exec", errno.EACCES, "is a directory")


def test_a_script_whose_interpreter_is_missing(
    supervisor: Supervisor, peer: Peer, job: str, tmp_path: Path
) -> None:
    program = make_program(tmp_path / "program", "#!/no/such -x\n")
    expected = ("exec", errno.ENOENT, "interpreter '/no/such' not found")
    assert fail(supervisor, peer, job, [program]) == expected
    assert (
        fail(supervisor, peer, job + "-searched", ["program"], env={"PATH": f"{tmp_path}:/bin"}) == expected
    )


def test_a_binary_whose_loader_is_missing(
    supervisor: Supervisor, peer: Peer, job: str, tmp_path: Path
) -> None:
    binary = Path("/bin/true").read_bytes()
    loader = subprocess.run(
        ["readelf", "-l", "/bin/true"], capture_output=True, text=True, check=False
    ).stdout
    if "interpreter: " not in loader:
        pytest.skip("readelf does not tell the loader of /bin/true")
    name = loader.split("interpreter: ")[1].split("]")[0].encode()
    program = tmp_path / "program"
    program.write_bytes(binary.replace(name, b"/no" + name[3:]))
    program.chmod(0o755)
    stage, number, detail = fail(supervisor, peer, job, [str(program)])
    assert (stage, number) == ("exec", errno.ENOENT)
    assert detail == f"interpreter '/no{name[3:].decode()}' not found"


def test_neither_script_nor_binary(supervisor: Supervisor, peer: Peer, job: str, tmp_path: Path) -> None:
    stage, number, detail = fail(supervisor, peer, job, [make_program(tmp_path / "program", "echo hi\n")])
    assert (stage, number) == ("exec", errno.ENOEXEC)
    assert "#! line" in detail


@pytest.mark.parametrize(
    "argv",
    [["true", "x" * 1024 * 1024], ["true", *["y" * 100_000] * 60]],
    ids=["one argument", "all together"],
)
def test_arguments_too_long_for_the_kernel(
    supervisor: Supervisor, peer: Peer, job: str, argv: list[str]
) -> None:
    stage, number, detail = fail(supervisor, peer, job, argv)
    assert (stage, number) == ("exec", errno.E2BIG)
    assert detail == "the arguments and the environment are too long"


def test_missing_working_directory(supervisor: Supervisor, peer: Peer, job: str) -> None:
    stage, number, detail = fail(supervisor, peer, job, ["true"], workdir="/no/such/place")
    assert (stage, number) == ("workdir", errno.ENOENT)
    assert detail == "working directory '/no/such/place': no such file or directory"


@needs_root
def test_a_working_directory_that_is_closed_to_the_jobs_user(
    supervisor: Supervisor, peer: Peer, job: str, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    workdir = str(tmp_path / "closed")
    assert fail(supervisor, peer, job, ["true"], uid=61234, gid=61234, workdir=workdir)[:2] == (
        "workdir",
        errno.EACCES,
    )


def test_a_scratch_directory_that_cannot_be_made(
    supervisor: Supervisor, peer: Peer, job: str, tmp_path: Path
) -> None:
    stage, number, detail = fail(supervisor, peer, job, ["true"], scratch=str(tmp_path / "no" / "such"))
    assert (stage, number) == ("setup", errno.ENOENT)
    assert "no/such" in detail


def test_a_scratch_directory_that_is_there_already_is_not_taken_over_nor_removed(
    supervisor: Supervisor, peer: Peer, job: str, tmp_path: Path
) -> None:
    assert fail(supervisor, peer, job, ["true"], scratch=str(tmp_path))[:2] == ("setup", errno.EEXIST)
    assert tmp_path.is_dir()


def test_a_failed_launch_removes_the_scratch_directory_it_made(
    supervisor: Supervisor, peer: Peer, job: str, tmp_path: Path
) -> None:
    fail(supervisor, peer, job, ["no-such-program"], scratch=str(tmp_path / "scratch"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
def test_a_child_killed_between_clone_and_exec_is_a_failed_start(
    supervisor: Supervisor, peer: Peer, job: str, number: int
) -> None:
    """Deterministic: the child is stopped before it gets its order, and killed after."""
    child = supervisor.waiting_child(peer)
    os.kill(child, signal.SIGSTOP)
    seq = peer.send(launch_request(job + "-killed", ["true"]))
    assert [listed["started_ns"] for listed in peer.jobs()] == [None]
    os.kill(child, number)
    with contextlib.suppress(ProcessLookupError):  # a killed process need not be continued to die
        os.kill(child, signal.SIGCONT)
    failed = peer.receive(lambda message: message.get("seq") == seq)
    assert (failed["op"], failed["stage"], failed["errno"]) == ("failed", "setup", 0)
    assert failed["detail"] == f"the child was killed by signal {int(number)} before exec"
    assert os.listdir(supervisor.job_directory(job + "-killed")) == ["exit"]
    assert peer.run(job + "-after", ["true"])["exit_code"] == 0


def test_a_waiting_child_that_was_killed_is_replaced(supervisor: Supervisor, peer: Peer, job: str) -> None:
    child = supervisor.waiting_child(peer)
    os.kill(child, signal.SIGKILL)
    assert processes.wait_gone(child, seconds=PATIENCE)
    assert peer.run(job, ["true"])["exit_code"] == 0


def test_a_nurse_that_was_killed_is_replaced(start_supervisor: StartSupervisor) -> None:
    supervisor = start_supervisor()
    with supervisor.connect() as peer:
        supervisor.descriptors(peer)  # a child was made and taken in
        nurse = supervisor.nurse()
        os.kill(nurse, signal.SIGKILL)
        assert processes.wait_gone(nurse, seconds=PATIENCE)
        assert [outcome(peer, f"job-{number}") for number in range(4)] == [0] * 4
        assert supervisor.nurse() != nurse
        supervisor.waiting_child(peer)


def test_a_nurse_is_replaced_while_more_is_open_than_jobs_may_open(start_supervisor: StartSupervisor) -> None:
    supervisor = start_supervisor(wrap=["prlimit", "--nofile=64:4096"])
    with supervisor.connect() as peer:
        names = [f"job-{number}" for number in range(20)]
        assert {peer.launch(name, ["sleep", "1000"])["op"] for name in names} == {"launched"}
        for number in range(3):
            supervisor.descriptors(peer)  # a child was made and taken in
            os.kill(supervisor.nurse(), signal.SIGKILL)
            assert [outcome(peer, f"after-{number}-{each}") for each in range(3)] == [0] * 3
        for name in names:
            peer.stop(name)
            peer.exited(name)
    assert "Error" not in supervisor.log


@needs_cgroup2
def test_nothing_is_left_of_a_child_that_dies_with_its_nurse(
    start_supervisor: StartSupervisor, code: Path, tmp_path: Path
) -> None:
    """Before she has told of it: our copy of her code kills both there, once."""
    once = str(tmp_path / "once")
    kills = f"""
            if not os.path.exists({once!r}):
                os.mkdir({once!r})
                os.kill(pid, 9)
                while open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0] != "Z":
                    pass
                os.kill(os.getpid(), 9)
"""
    insert(
        code / "jobworker/supervisor/nurse.py",
        "            self._give_into_custody(pid, fds[_KEPT])\n",
        kills,
    )
    supervisor = start_supervisor(code=code)
    with supervisor.connect() as peer:
        assert peer.run("job", ["true"])["exit_code"] == 0
        waiting = supervisor.waiting_child(peer)
        assert set(supervisor.children()) == {supervisor.nurse(), waiting}
    assert "another one is hired" in supervisor.log


def test_a_start_that_fails_when_all_but_the_order_is_there_has_run_nothing_and_leaves_nothing(
    start_supervisor: StartSupervisor, code: Path, tmp_path: Path
) -> None:
    """The kernel refuses to watch one more pipe: our copy of the code says so, once."""
    once, ran = tmp_path / "once", tmp_path / "ran"
    refuses = f"""
            if not os.path.exists({str(once)!r}):
                os.mkdir({str(once)!r})
                raise OSError({errno.ENOSPC}, "")
"""
    watch = (
        "            self._loop.watch(fd, READ, self._on_stdout if stream == STDOUT else self._on_stderr)\n"
    )
    insert(code / "jobworker/supervisor/capture.py", watch, refuses)
    supervisor = start_supervisor(code=code)
    with supervisor.connect() as peer:
        once.mkdir()
        peer.run("before", ["true"])
        before = supervisor.descriptors(peer)
        once.rmdir()
        child = supervisor.waiting_child(peer)
        failed = peer.launch("job", ["touch", str(ran)])
        assert (failed["op"], failed["stage"], failed["errno"]) == ("failed", "setup", errno.ENOSPC)
        assert processes.wait_gone(child, seconds=PATIENCE)
        assert not ran.exists()
        assert os.listdir(supervisor.job_directory("job")) == ["exit"]
        assert [outcome(peer, f"after-{number}") for number in range(3)] == [0] * 3
        assert supervisor.descriptors(peer) == before
    assert "Error" not in supervisor.log


def answer(peer: Peer, seq: int) -> Message:
    return peer.receive(lambda message: message.get("seq") == seq)


def two_children(supervisor: Supervisor, peer: Peer) -> list[int]:
    """Children that wait: for two launches of one job, when the other begins before the next child is there."""
    nurse = supervisor.nurse()
    for number in range(100):
        supervisor.waiting_child(peer)
        os.kill(nurse, signal.SIGSTOP)
        first, second = (peer.send(launch_request(f"job-{number}", ["true"])) for _ in range(2))
        os.kill(nurse, signal.SIGCONT)
        assert answer(peer, first)["op"] == "launched"
        assert answer(peer, second)["error"] == "exists"
        peer.exited(f"job-{number}")
        for _ in range(500):  # turns of the loop
            with contextlib.suppress(ProcessLookupError):
                if len(waiting := supervisor.waiting_children(peer)) == 2:
                    return waiting
    raise AssertionError("no two children were made ready")


def test_all_children_that_wait_may_be_killed(start_supervisor: StartSupervisor) -> None:
    supervisor = start_supervisor()
    with supervisor.connect() as peer:
        nurse = supervisor.nurse()
        for child in two_children(supervisor, peer):
            os.kill(child, signal.SIGKILL)
            assert processes.wait_gone(child, seconds=PATIENCE)
        assert peer.run("after", ["true"])["exit_code"] == 0
        assert supervisor.nurse() == nurse


def test_without_descriptors_left_starts_fail_and_everything_else_goes_on(
    start_supervisor: StartSupervisor,
) -> None:
    supervisor = start_supervisor()
    with supervisor.connect() as peer:
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (100, 100))
        answers = {
            job: peer.launch(job, ["sleep", "1000"]) for job in (f"job-{number}" for number in range(20))
        }
        failed = [answer for answer in answers.values() if answer["op"] == "failed"]
        assert {(answer["stage"], answer["errno"]) for answer in failed} == {("setup", errno.EMFILE)}
        running = [listed["job"] for listed in peer.jobs()]
        assert 0 < len(running) == 20 - len(failed) < 20
        for job in running:
            assert peer.stop(job)["op"] == "done"
            assert peer.exited(job)["signal"] == signal.SIGTERM
        assert peer.run("after", ["true"])["exit_code"] == 0


def test_as_many_jobs_as_are_started_can_be_taken_over(start_supervisor: StartSupervisor) -> None:
    supervisor = start_supervisor(wrap=["prlimit", "--nofile=256:256"])
    with supervisor.connect() as peer:
        names = [f"job-{number}" for number in range(50)]
        answers = [peer.launch(name, ["sleep", "1000"]) for name in names]
        failed = [answer for answer in answers if answer["op"] == "failed"]
        assert {(answer["stage"], answer["errno"]) for answer in failed} == {("setup", errno.EMFILE)}
        started = sorted(answer["job"] for answer in answers if answer["op"] == "launched")
    supervisor.kill_supervisor()
    with supervisor.connect() as peer:
        assert sorted(listed["job"] for listed in peer.jobs()) == started
        assert peer.upgrade()["op"] == "done"
    with supervisor.connect() as peer:
        assert sorted(listed["job"] for listed in peer.jobs()) == started
        for job in started:
            peer.stop(job)
            assert peer.exited(job)["signal"] == signal.SIGTERM


def test_other_peers_hear_of_a_failed_launch_as_an_end(supervisor: Supervisor, peer: Peer, job: str) -> None:
    with supervisor.connect() as other:
        peer.launch(job, ["/no/such"])
        assert other.exited(job)["start_failure"]["stage"] == "exec"


def test_a_launch_that_hangs_in_exec_holds_up_nobody_and_can_be_killed(
    start_supervisor: StartSupervisor,
) -> None:
    supervisor = start_supervisor()  # one that has made a single child
    with supervisor.connect() as peer:
        child = supervisor.waiting_child(peer)
        os.kill(child, signal.SIGSTOP)
        seq = peer.send(launch_request("job", ["true"]))
        assert peer.run("other", ["true"])["exit_code"] == 0
        assert peer.stop("job", grace_ms=0)["op"] == "done"
        failed = peer.receive(lambda message: message.get("seq") == seq)
        assert (failed["op"], failed["stage"]) == ("failed", "setup")


@needs_root
@needs_cgroup2
def test_a_supervisor_whose_own_cgroup_was_killed_goes_on_launching(
    start_supervisor: StartSupervisor,
) -> None:
    """The kernel then kills whatever is cloned into a fresh leaf, at birth; the children join by themselves instead."""
    supervisor = start_supervisor()
    with supervisor.connect() as peer:
        assert peer.welcome["cgroup"]["into_cgroup"]
        killed = Path(peer.welcome["cgroup"]["root"]).parent / f"jobworker-test-{os.getpid()}"
        killed.mkdir()
        try:
            (killed / "cgroup.kill").write_text("1")
            (killed / "cgroup.procs").write_text(str(supervisor.nurse()))
            assert [outcome(peer, f"job-{number}") for number in range(6)][-2:] == [0, 0]
            with supervisor.connect() as later:
                assert not later.welcome["cgroup"]["into_cgroup"]
            assert supervisor.terminate() == 0
        finally:
            supervisor.kill()
            killed.rmdir()


def outcome(peer: Peer, job: str) -> Any:
    """The exit code, or the stage of the failed start."""
    answer = peer.launch(job, ["true"])
    return peer.exited(job)["exit_code"] if answer["op"] == "launched" else answer["stage"]
