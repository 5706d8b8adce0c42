"""From a launch request to a running program: what it finds around itself, and how many may come at once."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.harness.probes import needs_root
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.peer import Peer, Supervisor, launch_request

LOOK_AROUND = """
import json, os, resource, signal, sys
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "argv": sys.argv[1:], "environ": dict(os.environ), "cwd": os.getcwd(), "umask": os.umask(0),
    "fds": fds[:-1], "stdin": os.readlink("/proc/self/fd/0"), "sid": os.getsid(0), "pgid": os.getpgrp(), "pid": os.getpid(),
    "no_new_privs": status["NoNewPrivs"], "blocked": status["SigBlk"], "ignored": int(status["SigIgn"], 16),
    "pending": status["SigPnd"], "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "oom": open("/proc/self/oom_score_adj").read(), "cgroups": open("/proc/self/cgroup").read(),
}))
"""
PYTHON_IGNORES = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1  # done by the job's own interpreter


def look_around(supervisor: Supervisor, peer: Peer, job: str, **fields: object) -> dict[str, object]:
    argv = [sys.executable, "-S", "-E", "-s", "-c", LOOK_AROUND, "an argument", "", "é\n"]
    record = peer.run(job, argv, **fields)
    assert record["exit_code"] == 0, supervisor.output(job)
    seen: dict[str, object] = json.loads(supervisor.output(job))
    return seen


def test_a_program_finds_what_was_asked_for_and_nothing_else(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    seen = look_around(supervisor, peer, job, env={"A": "1", "B": "é = x"}, workdir="/usr")
    assert seen["argv"] == ["an argument", "", "é\n"]
    assert seen["environ"] == {"A": "1", "B": "é = x", "LC_CTYPE": "C.UTF-8"}  # Python coerces the C locale
    assert seen["cwd"] == "/usr"
    assert seen["umask"] == 0o022
    assert seen["fds"] == [0, 1, 2]
    assert seen["stdin"] == "/dev/null"
    assert seen["sid"] == seen["pgid"] == seen["pid"]
    assert seen["no_new_privs"] == "1"
    assert int(str(seen["blocked"]), 16) == int(str(seen["pending"]), 16) == 0
    assert seen["ignored"] == PYTHON_IGNORES
    assert seen["ids"] == [list(os.getresuid()), list(os.getresgid()), os.getgroups()]


def test_signals_are_at_their_defaults(supervisor: Supervisor, peer: Peer, job: str) -> None:
    peer.run(job, ["cat", "/proc/self/status"])
    status = dict(line.split(b":", 1) for line in supervisor.output(job).splitlines())
    assert {status[name].strip() for name in (b"SigBlk", b"SigIgn", b"SigCgt")} == {b"0" * 16}


def test_resource_limits_and_oom_score_are_those_the_supervisor_was_started_with(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    seen = look_around(supervisor, peer, job)
    assert seen["oom"] == Path("/proc/self/oom_score_adj").read_text()
    limits = [
        line
        for line in Path("/proc/self/limits").read_text().splitlines()
        if line.startswith("Max open files")
    ]
    assert seen["nofile"] == [int(word) for word in limits[0].split()[3:5]]


# keyctl(2), request_key(2) and add_key(2) by their numbers
KEYS = """
import ctypes, os, sys
call = ctypes.CDLL(None, use_errno=True).syscall
keyctl, request, add = (250, 249, 248) if os.uname().machine == "x86_64" else (219, 218, 217)
JOIN_SESSION_KEYRING, SESSION_KEYRING = 1, -3
"""
AS_SYSTEMD = KEYS + "call(keyctl, JOIN_SESSION_KEYRING, None)\nos.execvp(sys.argv[1], sys.argv[1:])"
PUT = KEYS + "sys.exit(call(add, b'user', b'a name', b'secret', 6, SESSION_KEYRING) < 0)"
FIND = KEYS + "sys.exit(call(request, b'user', b'a name', None, 0) < 0)"


@needs_root
def test_no_job_finds_the_keys_of_another(start_supervisor: StartSupervisor) -> None:
    """Of session-keyring(7): a service manager gives a service one, and it is inherited."""
    supervisor = start_supervisor(wrap=[sys.executable, "-c", AS_SYSTEMD])
    with supervisor.connect() as peer:
        both = peer.run("both", ["python3", "-c", PUT.replace("sys.exit", "") + FIND])
        if both["exit_code"]:
            pytest.skip("this kernel keeps no keys, or may not be asked for them here")
        assert peer.run("put", ["python3", "-c", PUT], uid=61190, gid=61190)["exit_code"] == 0
        assert peer.run("find", ["python3", "-c", FIND], uid=61191, gid=61191)["exit_code"] == 1


@needs_root
def test_a_program_runs_as_the_user_asked_for_in_its_own_scratch_directory(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    scratch = supervisor.state.parent / f"scratch-{job}"
    peer.run(
        job,
        ["sh", "-c", "id -u; id -g; id -G; pwd; touch here; umask"],
        uid=61234,
        gid=61235,
        scratch=str(scratch),
    )
    assert supervisor.output(job).decode().splitlines() == ["61234", "61235", "61235", str(scratch), "0022"]
    assert (scratch / "here").exists()
    status = scratch.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o700, 61234, 61235)


@needs_root
def test_an_unprivileged_program_cannot_gain_privileges_or_see_the_state(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    script = f"grep CapEff /proc/self/status; ls {supervisor.state}/jobs; cat {supervisor.job_directory(job)}/output.log"
    record = peer.run(job, ["sh", "-c", script], uid=61234, gid=61234)
    assert record["exit_code"] != 0
    assert b"CapEff:\t0000000000000000" in supervisor.output(job)
    assert supervisor.output(job).count(b"Permission denied") == 2


def test_a_program_is_in_a_cgroup_of_its_own(supervisor: Supervisor, peer: Peer, job: str) -> None:
    tree = peer.welcome["cgroup"]
    if tree["mode"] == "none":
        pytest.skip("the supervisor has no cgroups here")
    launched = peer.launch(job, ["sleep", "60"])
    unified = [
        line.split(":", 2)[2]
        for line in Path(f"/proc/{launched['pid']}/cgroup").read_text().splitlines()
        if line.startswith("0::") or any(f":{name}:" in line for name in ("cpu", "memory", "pids", "blkio"))
    ]
    assert len(unified) == 1 + len([version for version in tree["controllers"].values() if version == "v1"])
    assert {Path(path).parent.name for path in unified} == {Path(tree["root"]).name}
    assert len({Path(path).name for path in unified}) == 1
    peer.stop(job)
    assert peer.exited(job)["signal"] == signal.SIGTERM


def test_a_name_without_slash_is_looked_up_along_the_jobs_path(
    supervisor: Supervisor, peer: Peer, job: str, tmp_path: Path
) -> None:
    for name, mode, text in (("denied", 0o644, "denied"), ("found", 0o755, "found")):
        (tmp_path / name).mkdir(mode=0o755)
        (tmp_path / name / "program").write_text(f"#!/bin/sh\necho {text}\n")
        (tmp_path / name / "program").chmod(mode)
    path = f"{tmp_path}/nowhere:/etc/passwd:{tmp_path}/denied:{tmp_path}/found"
    assert peer.run(job, ["program"], env={"PATH": path})["exit_code"] == 0
    assert supervisor.output(job) == b"found\n"


def test_a_name_with_a_slash_is_relative_to_the_working_directory(
    supervisor: Supervisor, peer: Peer, job: str, tmp_path: Path
) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\npwd\n")
    (tmp_path / "program").chmod(0o755)
    assert peer.run(job, ["./program"], workdir=str(tmp_path))["exit_code"] == 0
    assert supervisor.output(job).decode() == f"{tmp_path}\n"


def test_arguments_that_are_no_text_arrive_as_they_were(supervisor: Supervisor, peer: Peer, job: str) -> None:
    peer.run(job, ["printf", "%s", b"caf\xe9 \xff".decode("utf-8", "surrogateescape")])
    assert supervisor.output(job) == b"caf\xe9 \xff"


def test_two_hundred_launches_at_once_all_run_and_all_end(supervisor: Supervisor, peer: Peer) -> None:
    jobs = [f"many-{number}" for number in range(200)]
    numbers = {peer.send(launch_request(job, ["sh", "-c", f"echo {job}"])): job for job in jobs}
    for _ in jobs:
        answer = peer.receive(lambda message: message.get("seq") in numbers)
        assert answer["op"] == "launched", answer
        assert numbers.pop(answer["seq"]) == answer["job"]
    assert [peer.exited(job)["exit_code"] for job in jobs] == [0] * 200
    assert [supervisor.output(job).decode() for job in jobs] == [f"{job}\n" for job in jobs]
    assert peer.jobs() == []


def test_a_job_id_is_launched_once_only(supervisor: Supervisor, peer: Peer, job: str) -> None:
    peer.run(job, ["true"])
    again = peer.launch(job, ["true"])
    assert (again["op"], again["error"]) == ("error", "exists")
    assert job in again["detail"]
    assert supervisor.job_directory(job).joinpath("exit").exists()
