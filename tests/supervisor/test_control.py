"""The control socket: who may use it, what malformed messages do, and that no peer can hold up another."""

import os
import select
import signal
import socket
import struct
from pathlib import Path

import pytest

from jobworker.supervisor.protocol import pack
from tests.harness import processes
from tests.harness.probes import needs_root
from tests.supervisor.peer import PATIENCE, Message, Peer, Supervisor, launch_request, wait_for_output


def test_hello_tells_who_is_there(supervisor: Supervisor, peer: Peer) -> None:
    welcome = peer.welcome
    assert (welcome["op"], welcome["protocol"], welcome["pid"]) == ("welcome", 1, supervisor.pid)
    assert welcome["cgroup"]["mode"] in ("v2", "hybrid", "none")
    tree = (
        f"jobworker-{processes.state_hash(supervisor.state)}" if welcome["cgroup"]["mode"] != "none" else ""
    )
    assert Path(welcome["cgroup"]["root"]).name == tree
    assert (supervisor.state / "supervisor.lock").read_text() == f"{supervisor.pid}\n"


def test_another_protocol_is_refused(supervisor: Supervisor) -> None:
    with Peer(supervisor.state, hello=False) as peer:
        refused = peer.call({"op": "hello", "protocol": 2})
        assert (refused["error"], "'protocol'" in refused["detail"]) == ("bad_request", True)


GOOD = launch_request("never", ["true"])


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({}, "op"),
        ({"op": "dance"}, "op"),
        ({"op": ["launch"]}, "op"),
        ({"op": "hello"}, "protocol"),
        ({"op": "hello", "protocol": "1"}, "protocol"),
        (GOOD | {"job": "../x"}, "job"),
        (GOOD | {"job": ".hidden"}, "job"),
        (GOOD | {"job": ""}, "job"),
        (GOOD | {"job": "x" * 129}, "job"),
        (GOOD | {"job": "new\nline"}, "job"),
        (GOOD | {"job": None}, "job"),
        (GOOD | {"argv": []}, "argv"),
        (GOOD | {"argv": [""]}, "argv"),
        (GOOD | {"argv": "true"}, "argv"),
        (GOOD | {"argv": ["true", 1]}, "argv"),
        (GOOD | {"argv": ["true", "nul\0byte"]}, "argv"),
        (GOOD | {"argv": ["true", "\ud800"]}, "argv"),
        (GOOD | {"env": None}, "env"),
        (GOOD | {"env": {"A=B": "c"}}, "env"),
        (GOOD | {"env": {"": "c"}}, "env"),
        (GOOD | {"env": {"A": 1}}, "env"),
        (GOOD | {"env": {"A": "\0"}}, "env"),
        (GOOD | {"workdir": "relative"}, "workdir"),
        (GOOD | {"workdir": 7}, "workdir"),
        (GOOD | {"scratch": "relative"}, "scratch"),
        (GOOD | {"uid": -1, "gid": 1}, "uid"),
        (GOOD | {"uid": 2**32 - 1, "gid": 1}, "uid"),
        (GOOD | {"uid": True, "gid": 1}, "uid"),
        (GOOD | {"uid": 1.5, "gid": 1}, "uid"),
        (GOOD | {"uid": 1}, "gid"),
        (GOOD | {"gid": 1}, "gid"),
        (GOOD | {"limits": None}, "limits"),
        (GOOD | {"limits": {"memory": 1}}, "memory"),
        (GOOD | {"limits": {"memory_bytes": 1.5}}, "memory_bytes"),
        (GOOD | {"limits": {"memory_bytes": 0}}, "memory_bytes"),
        (GOOD | {"limits": {"pids": -1}}, "pids"),
        (GOOD | {"limits": {"cpus": "1"}}, "cpus"),
        (GOOD | {"limits": {"cpus": float("nan")}}, "cpus"),
        (GOOD | {"timeout_ms": 0}, "timeout_ms"),
        (GOOD | {"timeout_ms": "soon"}, "timeout_ms"),
        (GOOD | {"wait_for_tree": None}, "wait_for_tree"),
        ({"op": "stop"}, "job"),
        ({"op": "shutdown", "if_idle": 1}, "if_idle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_field_is_named(supervisor: Supervisor, peer: Peer, request_: Message, field: str) -> None:
    answer = peer.call(request_)
    assert (answer["op"], answer["error"]) == ("error", "bad_request")
    assert field in answer["detail"]
    assert not supervisor.job_directory("never").exists()


@pytest.mark.parametrize("number", [0, 65, -1, "TERM", None, True])
def test_a_signal_that_is_none_is_named(supervisor: Supervisor, peer: Peer, job: str, number: object) -> None:
    peer.launch(job, ["sleep", "1000"])
    for request in ({"op": "stop", "grace_ms": 0}, {"op": "signal", "tree": True}):
        answer = peer.call(request | {"job": job, "signal": number})
        assert (answer["error"], "'signal'" in answer["detail"]) == ("bad_request", True)
    peer.stop(job, grace_ms=0)
    peer.exited(job)


@pytest.mark.parametrize("operation", ["stop", "signal", "usage"])
def test_an_unknown_job_is_told(peer: Peer, operation: str) -> None:
    request = {"op": operation, "job": "unknown", "signal": 15, "grace_ms": 0, "tree": True}
    assert peer.call(request)["error"] == "no_such_job"


@pytest.mark.parametrize(
    "data",
    [struct.pack("<I", 3) + b"xyz", struct.pack("<I", 2) + b"[]", struct.pack("<I", 17 << 20), b"\xff" * 64],
    ids=["no-json", "no-object", "too-long", "garbage"],
)
def test_a_broken_frame_ends_its_own_connection_only(supervisor: Supervisor, peer: Peer, data: bytes) -> None:
    with Peer(supervisor.state, hello=False) as broken:
        broken.socket.sendall(data)
        assert broken.socket.recv(100) == b""
    assert peer.jobs() == []


def test_an_unfinished_frame_waits_for_its_rest(supervisor: Supervisor) -> None:
    with Peer(supervisor.state, hello=False) as peer:
        frame = pack({"op": "list", "seq": 7})
        for byte in frame[:-1]:
            peer.socket.sendall(bytes([byte]))
        assert not select.select([peer.socket], [], [], 0.05)[0]
        peer.socket.sendall(frame[-1:])
        assert peer.receive(lambda message: message["seq"] == 7)["jobs"] == []


def test_every_subscriber_hears_of_every_beginning_and_end_and_others_hear_nothing(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    with supervisor.connect() as other, Peer(supervisor.state, hello=False) as silent:
        launched = peer.launch(job, ["true"])
        record = peer.exited(job)
        told = other.receive(lambda message: message.get("event") == "launched")
        assert {key: told[key] for key in ("job", "pid", "started_ns", "limits")} == {
            key: launched[key] for key in ("job", "pid", "started_ns", "limits")
        }
        assert other.exited(job) == record
        assert all(message.get("event") != "launched" for message in peer._received)
        assert silent.jobs() == []
        assert silent._received == []


def test_jobs_go_on_when_the_peer_that_launched_them_is_gone(supervisor: Supervisor, job: str) -> None:
    with supervisor.connect() as first:
        launched = first.launch(
            job, ["sh", "-c", "trap 'exit 8' USR1; echo up; while :; do sleep 0.02; done"]
        )
        unanswered = job + "-unanswered"
        first.send(launch_request(unanswered, ["sleep", "1000"]))
    with supervisor.connect() as second:
        listed = {entry["job"]: entry for entry in second.jobs()}
        assert listed[job]["pid"] == launched["pid"]
        assert listed[job]["started_ns"] == launched["started_ns"]
        assert listed[job]["stopping"] is False
        second.stop(unanswered, grace_ms=0)
        second.exited(unanswered)
        wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
        second.signal(job, signal.SIGUSR1, tree=False)
        assert second.exited(job)["exit_code"] == 8


def test_a_peer_that_does_not_read_is_dropped_and_holds_up_nobody(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    jobs = [f"{job}-{number}" for number in range(50)]
    for name in jobs:
        peer.launch(name, ["sleep", "1000"])
    with supervisor.connect() as deaf:
        requests = pack({"op": "list", "seq": 1}) * 100  # about 5 KiB of answer each
        while send_all(deaf, requests):
            assert len(peer.jobs()) == 50
    assert "its peer does not read" in supervisor.log
    for name in jobs:
        peer.stop(name, grace_ms=0)
    for name in jobs:
        peer.exited(name)


def send_all(peer: Peer, data: bytes) -> bool:
    """False when the connection is gone."""
    try:
        peer.socket.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def test_the_socket_is_for_its_owner_only(supervisor: Supervisor) -> None:
    path = supervisor.state / "supervisor.sock"
    assert path.stat().st_mode & 0o777 == 0o600


@needs_root
def test_another_user_is_turned_away_even_when_the_mode_lets_it_in(supervisor: Supervisor) -> None:
    path = supervisor.state / "supervisor.sock"
    path.chmod(0o666)
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(path))
            stranger.settimeout(PATIENCE)
            os._exit(0 if stranger.recv(1) == b"" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    path.chmod(0o600)
    assert "refused: uid 65534" in supervisor.log
