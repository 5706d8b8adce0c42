"""A supervisor of an ordinary user, to whom the host gives no cgroups: what still holds, and what is refused."""

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.probes import needs_root
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.peer import CHECKOUT, PATIENCE, Peer, Supervisor, wait_until

USER = 65534
PYTHON = shutil.which("python3", path="/usr/bin:/bin")
CHECK = "import sys, jobworker.supervisor.__main__; sys.exit(sys.version_info < (3, 11))"

pytestmark = needs_root


@pytest.fixture
def unprivileged(directory: Path, start_supervisor: StartSupervisor) -> Supervisor:
    """One that runs as another user; skips where no interpreter is open to that user."""
    command = [PYTHON or "python3", "-S", "-E", "-s", "-c", CHECK]
    try:
        subprocess.run(
            command, cwd=CHECKOUT, user=USER, group=USER, extra_groups=[], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"user {USER} has no Python 3.11 here that can read the checkout: {error}")
    state = directory / f"state-{len(os.listdir(directory))}"
    return start_supervisor(state=state, python=PYTHON, user=USER)


@pytest.fixture
def peer(unprivileged: Supervisor) -> Iterator[Peer]:
    with unprivileged.connect() as connection:
        if connection.welcome["cgroup"]["mode"] != "none":
            pytest.skip("the host gives this user cgroups")
        yield connection


def test_jobs_run_as_its_own_user_and_are_recorded(unprivileged: Supervisor, peer: Peer) -> None:
    record = peer.run("job", ["sh", "-c", "id -u; echo err >&2; exit 3"])
    assert record["exit_code"] == 3
    assert sorted(unprivileged.output("job").split()) == [b"65534", b"err"]
    assert record["usage"]["memory_peak_bytes"] > 0


@pytest.mark.parametrize("limits", [{"cpus": 1}, {"memory_bytes": 1 << 30}, {"pids": 10}], ids=str)
def test_limits_are_refused(peer: Peer, limits: dict[str, float]) -> None:
    failed = peer.launch("job", ["true"], limits=limits)
    assert (failed["op"], failed["stage"]) == ("failed", "limit")
    assert next(iter(limits)) in failed["detail"]


def test_another_user_is_refused(peer: Peer) -> None:
    failed = peer.launch("job", ["true"], uid=1, gid=1)
    assert (failed["op"], failed["stage"], failed["errno"]) == ("failed", "user", errno.EPERM)


def test_a_stop_reaches_all_its_processes(unprivileged: Supervisor, peer: Peer) -> None:
    peer.launch(
        "job", ["sh", "-c", "trap '' TERM; sh -c 'echo $$; exec sleep 1000' & while :; do sleep 1000; done"]
    )
    log = unprivileged.job_directory("job") / "output.log"
    child = int(wait_until(log, lambda content: content.endswith(b"\n")))
    peer.stop("job", grace_ms=100)
    record = peer.exited("job")
    assert (record["signal"], record["grace_expired"]) == (signal.SIGKILL, True)
    assert processes.wait_gone(child, seconds=PATIENCE)


def test_they_die_with_the_main_process(unprivileged: Supervisor, peer: Peer) -> None:
    peer.run("job", ["sh", "-c", "setsid sleep 1000 & echo $!; exit 0"])
    assert processes.wait_gone(int(unprivileged.output("job")), seconds=PATIENCE)


def test_a_start_that_fails_leaves_its_record_only(unprivileged: Supervisor, peer: Peer) -> None:
    assert peer.launch("job", ["/no/such"])["stage"] == "exec"
    assert os.listdir(unprivileged.job_directory("job")) == ["exit"]


def test_nothing_is_paused_and_only_limits_of_processes_are_changed(
    unprivileged: Supervisor, peer: Peer
) -> None:
    launched = peer.launch("job", ["sleep", "1000"], limits={"nice": 3, "rlimits": {"nofile": [64, 64]}})
    assert launched["limits"] == {"nice": 3, "rlimits": {"nofile": [64, 64]}}
    refused = peer.call({"op": "pause", "job": "job"})
    assert (refused["op"], refused["detail"]) == (
        "error",
        "this host gives the worker no cgroups, and nothing else can pause",
    )
    request = {"op": "update", "job": "job", "lift": [], "best_effort": False}
    assert peer.call({**request, "limits": {"nice": 4}})["limits"]["nice"] == 4
    assert os.getpriority(os.PRIO_PROCESS, launched["pid"]) == 4
    assert peer.call({**request, "limits": {"nice": 1}})["detail"].startswith("nice: ")
    assert peer.call({**request, "limits": {"pids": 9}})["detail"].startswith("pids: ")
    assert not peer.jobs()[0]["paused"]
    peer.stop("job")
    peer.exited("job")
