"""Limits: in force as the kernel says, held against a job that tries, or the start is refused."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.harness import probes
from tests.supervisor.peer import Peer, Supervisor, wait_for_output

PYTHON = [sys.executable, "-S", "-E", "-s", "-c"]
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _needs_controllers(supervisor: Supervisor) -> None:
    with supervisor.connect() as peer:
        missing = {"cpu", "memory", "pids"} - peer.welcome["cgroup"]["controllers"].keys()
    if missing:
        pytest.skip(f"the supervisor has no {', '.join(sorted(missing))} controller here")


def cgroup_file(launched: dict[str, object], controller: str, v1_name: str, v2_name: str) -> str:
    """What the kernel has in the job's own cgroup, found by way of /proc."""
    for line in Path(f"/proc/{launched['pid']}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return (Path(probes.MOUNTS[controller]) / path.lstrip("/") / v1_name).read_text()
    unified = next(
        line[3:]
        for line in Path(f"/proc/{launched['pid']}/cgroup").read_text().splitlines()
        if line[:3] == "0::"
    )
    return (probes.MOUNTS["v2"] / unified.lstrip("/") / v2_name).read_text()


def test_limits_are_in_force_and_read_back(peer: Peer, job: str) -> None:
    launched = peer.launch(
        job, ["sleep", "1000"], limits={"cpus": 1.5, "memory_bytes": 64 * MIB + 1, "pids": 7}
    )
    assert launched["limits"] == {"cpus": 1.5, "memory_bytes": 64 * MIB, "pids": 7}
    assert int(cgroup_file(launched, "memory", "memory.limit_in_bytes", "memory.max")) == 64 * MIB
    assert int(cgroup_file(launched, "pids", "pids.max", "pids.max")) == 7
    assert cgroup_file(launched, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "150000"
    assert peer.jobs()[0]["limits"] == launched["limits"]
    peer.stop(job)
    peer.exited(job)


def test_without_limits_none_are_in_force(peer: Peer, job: str) -> None:
    launched = peer.launch(job, ["sleep", "1000"])
    assert launched["limits"] == {}
    assert cgroup_file(launched, "pids", "pids.max", "pids.max") == "max\n"
    peer.stop(job)
    peer.exited(job)


@pytest.mark.parametrize(
    "limits",
    [{"cpus": 0.001}, {"cpus": 1e12}, {"memory_bytes": 1}, {"pids": 2**62}, {"pids": 10, "cpus": 0.0001}],
    ids=str,
)
def test_a_limit_that_cannot_be_had_fails_the_start_and_is_named(
    supervisor: Supervisor, peer: Peer, job: str, limits: dict[str, float]
) -> None:
    failed = peer.launch(job, ["true"], limits=limits)
    assert (failed["op"], failed["stage"]) == ("failed", "limit")
    assert list(limits)[-1] in failed["detail"]
    assert os.listdir(supervisor.job_directory(job)) == ["exit"]


def test_a_pids_limit_holds(supervisor: Supervisor, peer: Peer, job: str) -> None:
    script = "import os\nfor n in range(50):\n  if os.fork() == 0: os.read(os.pipe()[0], 1)\n"
    record = peer.run(job, [*PYTHON, script], limits={"pids": 10})
    assert record["exit_code"] == 1
    assert b"Resource temporarily unavailable" in supervisor.output(job)
    assert record["usage"]["pids_peak"] == 10


def test_a_memory_limit_kills_and_the_kill_is_counted(peer: Peer, job: str) -> None:
    record = peer.run(job, [*PYTHON, "x = bytearray(300 << 20)"], limits={"memory_bytes": 48 * MIB})
    assert (record["signal"], record["oom_kills"]) == (signal.SIGKILL, 1)
    assert not record["stop_requested"]
    assert 40 * MIB < record["usage"]["memory_peak_bytes"] <= 48 * MIB


def test_a_kill_of_a_child_only_is_counted_too(peer: Peer, job: str) -> None:
    hog = f"{sys.executable} -S -c 'x = bytearray(300 << 20)'"
    record = peer.run(job, ["sh", "-c", f"{hog}; exit 0"], limits={"memory_bytes": 48 * MIB})
    assert (record["exit_code"], record["oom_kills"]) == (0, 1)


def test_a_cpu_limit_holds(supervisor: Supervisor, peer: Peer, job: str) -> None:
    script = (
        "import time\nuntil = time.process_time() + 0.3\nbegan = time.monotonic()\n"
        "while time.process_time() < until: pass\nprint(time.monotonic() - began)"
    )
    peer.run(job, [*PYTHON, script], limits={"cpus": 0.25})
    assert float(supervisor.output(job)) > 0.8


def test_limits_of_one_job_are_not_those_of_another(supervisor: Supervisor, peer: Peer, job: str) -> None:
    peer.launch(job, ["sh", "-c", "echo up; sleep 1000"], limits={"pids": 3})
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
    record = peer.run(job + "-free", ["sh", "-c", "for n in 1 2 3 4 5 6; do sleep 0.1 & done; wait"])
    assert record["exit_code"] == 0
    peer.stop(job)
    record = peer.exited(job)
    assert (
        json.loads((supervisor.job_directory(job) / "exit").read_text())["oom_kills"]
        == record["oom_kills"]
        == 0
    )
