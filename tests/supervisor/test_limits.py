"""Limits: in force as the kernel says, held against a job that tries, or the start is refused."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.harness import probes, processes
from tests.supervisor.peer import Peer, Supervisor, wait_for_output

PYTHON = [sys.executable, "-S", "-E", "-s", "-c"]
MIB = 1024 * 1024
PERIOD = 0.1  # seconds after which a job has its whole share of the processors again


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


def test_memory_too_little_to_execute_anything_is_a_typed_failure(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    failed = peer.launch(job, ["true"], limits={"memory_bytes": 64 * 1024})
    assert (failed["op"], failed["stage"]) == ("failed", "limit"), failed
    assert failed["detail"].startswith("memory_bytes: ")
    assert os.listdir(supervisor.job_directory(job)) == ["exit"]
    with supervisor.connect() as later:  # which is not taken for the kernel killing whatever is cloned
        assert later.welcome["cgroup"]["into_cgroup"] == peer.welcome["cgroup"]["into_cgroup"]


def test_a_kill_of_a_child_only_is_counted_too(peer: Peer, job: str) -> None:
    hog = f"{sys.executable} -S -c 'x = bytearray(300 << 20)'"
    record = peer.run(job, ["sh", "-c", f"{hog}; exit 0"], limits={"memory_bytes": 48 * MIB})
    assert (record["exit_code"], record["oom_kills"]) == (0, 1)


@pytest.mark.parametrize("cpus", [0.1, 0.25])
def test_a_burner_gets_the_cpu_time_it_may_have_within_five_percent(
    supervisor: Supervisor, peer: Peer, job: str, cpus: float
) -> None:
    """Not more; and not less in any period in which it was held back: in others the processor may not have been free."""
    script = (
        "import time\n"
        "began, used = time.monotonic(), time.process_time()\n"
        "while (passed := time.monotonic() - began) < 4: pass\n"
        "print(passed, time.process_time() - used, time.process_time(), flush=True)\n"
        "time.sleep(1000)"
    )
    launched = peer.launch(job, [*PYTHON, script], limits={"cpus": cpus})
    wait_for_output(supervisor.job_directory(job) / "output.log", b"\n")
    passed, used, used_in_all = map(float, supervisor.output(job).split())
    lines = cgroup_file(launched, "cpu", "cpu.stat", "cpu.stat").splitlines()
    held_back = {key: int(value) for key, value in map(str.split, lines)}["nr_throttled"]
    assert used < 1.05 * cpus * passed
    assert used_in_all > 0.95 * cpus * PERIOD * held_back
    assert held_back > 5
    peer.stop(job)
    assert peer.exited(job)["usage"]["cpu_throttled_usec"] > 5 * PERIOD * 1e6 / 4


def test_a_fork_bomb_is_held_and_dies_whole(supervisor: Supervisor, peer: Peer, job: str) -> None:
    script = "import os\nwhile True:\n  try: os.fork()\n  except OSError: print('held', flush=True)"
    launched = peer.launch(job, [*PYTHON, script], limits={"pids": 40})
    wait_for_output(supervisor.job_directory(job) / "output.log", b"held")
    assert peer.call({"op": "usage", "job": job})["usage"]["pids"] <= 40
    peer.stop(job, grace_ms=0)
    record = peer.exited(job)
    assert (record["survivors"], record["usage"]["pids_peak"]) == (0, 40)
    assert not processes.alive(launched["pid"])


def test_weights_and_swap_are_read_back(peer: Peer, job: str) -> None:
    limits = {"cpu_weight": 333, "memory_bytes": 64 * MIB, "swap_bytes": 16 * MIB}
    launched = peer.launch(job, ["sleep", "1000"], limits=limits)
    assert launched["limits"] == limits
    shares = round(333 * 1024 / 100)
    assert int(cgroup_file(launched, "cpu", "cpu.shares", "cpu.weight")) in (333, shares)
    swap = int(cgroup_file(launched, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max"))
    assert swap in (16 * MIB, (64 + 16) * MIB)
    peer.stop(job)
    peer.exited(job)


def test_swap_by_itself_needs_a_kernel_that_counts_it_so(peer: Peer, job: str) -> None:
    reply = peer.launch(job, ["true"], limits={"swap_bytes": 0})
    if peer.welcome["cgroup"]["controllers"]["memory"] == "v1":
        assert "swap_bytes: cgroup v1 counts swap together with memory" in reply["detail"]
    else:
        assert reply["limits"] == {"swap_bytes": 0}
        peer.exited(job)


def test_a_weight_that_means_nothing_here_is_refused_or_told(peer: Peer, job: str) -> None:
    missing = [entry["limit"] for entry in peer.welcome["cgroup"]["unenforced"]]
    if "io_weight" not in missing:
        pytest.skip("a disk of this machine shares its time by weight")
    failed = peer.launch(job, ["true"], limits={"io_weight": 50})
    assert failed["detail"].startswith("io_weight: no disk shares its time by weight")
    launched = peer.launch(job + "-b", ["true"], limits={"io_weight": 50, "pids": 9}, best_effort=True)
    assert launched["limits"] == {"pids": 9}
    assert [entry["limit"] for entry in launched["unenforced"]] == ["io_weight"]
    peer.exited(job + "-b")


def test_what_was_found_missing_is_what_is_refused(peer: Peer, job: str) -> None:
    values = {"cpus": 1, "cpu_weight": 50, "memory_bytes": 1 << 30, "pids": 1000, "io_weight": 50}
    missing = {entry["limit"] for entry in peer.welcome["cgroup"]["unenforced"]}
    for name, value in values.items():
        reply = peer.launch(f"{job}-{name}", ["true"], limits={name: value})
        assert (reply["op"] == "failed") == (name in missing), reply
        if reply["op"] == "launched":
            peer.exited(f"{job}-{name}")


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
