"""Hundreds of jobs with every limit, started and ended in every way, leave the supervisor and the host as they were."""

import itertools
import os
import signal

from tests.harness import processes
from tests.supervisor.peer import Message, Peer, Supervisor

MIB = 1024 * 1024


def counts(supervisor: Supervisor, peer: Peer) -> Message:
    """What must not grow. One leaf is for the child that waits for the next launch."""
    descriptors = supervisor.descriptors(peer)
    return {
        "descriptors": descriptors,
        "cgroups": sorted(leaf.parent.name for leaf in processes.leaves_of(supervisor.state)),
        "threads": len(os.listdir(f"/proc/{supervisor.pid}/task")),
        "children": len(supervisor.children()),
        "jobs": peer.jobs(),
    }


def limits_of(peer: Peer) -> Message:
    limits = {"cpus": 0.5, "cpu_weight": 50, "memory_bytes": 64 * MIB, "swap_bytes": 0, "pids": 20}
    missing = {entry["limit"] for entry in peer.welcome["cgroup"]["unenforced"]}
    found: Message = {name: value for name, value in limits.items() if name not in missing}
    return {**found, "rlimits": {"nofile": [64, 64], "core": [0, 0]}, "nice": 1, "oom_score_adj": 100}


def test_300_starts_and_stops_leave_everything_where_it_was(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    limits = limits_of(peer)
    has_freezer = peer.welcome["cgroup"]["mode"] != "none"
    peer.run(f"{job}-before", ["true"], limits=limits)
    before = counts(supervisor, peer)
    ways = itertools.cycle(["stop", "kill", "exit", "pause", "timeout", "refused"])
    for number, way in zip(range(300), ways, strict=False):
        name = f"{job}-{number}"
        if way == "refused":
            failed = peer.launch(name, ["true"], limits={**limits, "rlimits": {"nofile": [2, 1]}})
            assert failed["stage"] == "limit"
            continue
        argv = ["sh", "-c", "setsid sleep 1000 & exit 3"] if way == "exit" else ["sleep", "1000"]
        launched = peer.launch(name, argv, limits=limits, timeout_ms=1 if way == "timeout" else None)
        assert launched["op"] == "launched", launched
        if way == "pause" and has_freezer:
            peer.call({"op": "pause", "job": name})
        if way in ("stop", "pause"):
            peer.stop(name)
        elif way == "kill":
            peer.signal(name, signal.SIGKILL, tree=True)
        peer.exited(name)
    assert counts(supervisor, peer) == before


def test_a_failed_start_leaves_its_record_alone(supervisor: Supervisor, peer: Peer, job: str) -> None:
    scratch = supervisor.state / f"scratch-{job}"
    before = counts(supervisor, peer)
    failed = peer.launch(job, ["true"], scratch=str(scratch), limits={"nice": 3, "pids": 2**62})
    assert failed["stage"] == "limit"
    assert os.listdir(supervisor.job_directory(job)) == ["exit"]
    assert not scratch.exists()
    assert counts(supervisor, peer) == before
