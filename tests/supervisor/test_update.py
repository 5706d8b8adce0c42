"""Limits of a running job change, all or none, below what it uses as well; and it is paused and goes on."""

import os
import select
import signal
import sys
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.probes import needs_cgroup2, needs_root
from tests.supervisor.peer import PATIENCE, Message, Peer, Supervisor, wait_for_output, wait_until

PYTHON = [sys.executable, "-S", "-E", "-s", "-c"]
MIB = 1024 * 1024

pytestmark = [needs_root, needs_cgroup2]


@pytest.fixture
def needs_controllers(peer: Peer) -> None:
    missing = {"cpu", "memory", "pids"} - peer.welcome["cgroup"]["controllers"].keys()
    if missing:
        pytest.skip(f"the supervisor has no {', '.join(sorted(missing))} controller here")


def update(peer: Peer, job: str, limits: Message, **how: object) -> Message:
    request = {"op": "update", "job": job, "limits": limits, "lift": [], "best_effort": False}
    return peer.call({**request, "unenforced": [], **how})


def launch_holder(supervisor: Supervisor, peer: Peer, job: str, *, size: int, **limits: float) -> None:
    """A job that holds memory, says so, and dies only when it is told to."""
    script = f"x = bytearray({size})\nfor n in range(0, {size}, 4096): x[n] = 1\nprint('up', flush=True)\nimport os; os.read(os.pipe()[0], 1)"
    peer.launch(job, [*PYTHON, script], limits=limits)
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")


@pytest.mark.usefixtures("needs_controllers")
def test_each_is_set_again_and_lifted(peer: Peer, job: str) -> None:
    first = {"cpus": 0.5, "memory_bytes": 64 * MIB, "pids": 20, "cpu_weight": 50}
    peer.launch(job, ["sleep", "1000"], limits=first)
    second = {"cpus": 1.5, "memory_bytes": 32 * MIB, "swap_bytes": 8 * MIB, "pids": 30, "cpu_weight": 200}
    assert update(peer, job, second)["limits"] == second
    third = {**second, "memory_bytes": 256 * MIB, "swap_bytes": 0}
    assert update(peer, job, {"memory_bytes": 256 * MIB, "swap_bytes": 0})["limits"] == third
    lifted = update(peer, job, {}, lift=["cpus", "memory_bytes", "swap_bytes", "pids", "cpu_weight"])
    assert lifted["limits"] == {}
    assert peer.jobs()[0]["limits"] == {}
    peer.stop(job)
    peer.exited(job)


@pytest.mark.usefixtures("needs_controllers")
def test_fewer_processes_than_there_are_means_no_more(supervisor: Supervisor, peer: Peer, job: str) -> None:
    script = "trap 'sleep 1 & echo forked $?' USR1; sleep 1000 & sleep 1000 & echo up; while :; do wait; done"
    peer.launch(job, ["sh", "-c", script])
    log = supervisor.job_directory(job) / "output.log"
    wait_for_output(log, b"up\n")
    assert update(peer, job, {"pids": 2})["limits"] == {"pids": 2}
    peer.signal(job, signal.SIGUSR1, tree=False)
    record = wait_until(log, lambda content: b"fork" in content.removeprefix(b"up\n"))
    assert b"forked" not in record
    peer.stop(job, grace_ms=0)
    peer.exited(job)


@pytest.mark.usefixtures("needs_controllers")
def test_less_memory_than_is_used_is_refused_on_v1_and_kills_on_v2(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    launch_holder(supervisor, peer, job, size=96 * MIB, memory_bytes=256 * MIB)
    reply = update(peer, job, {"pids": 30, "memory_bytes": 32 * MIB})
    if peer.welcome["cgroup"]["controllers"]["memory"] == "v1":
        assert (reply["op"], reply["error"]) == ("error", "limit")
        assert "memory_bytes: the job uses more than" in reply["detail"]
        assert peer.jobs()[0]["limits"] == {"memory_bytes": 256 * MIB}
        usage = peer.call({"op": "usage", "job": job})["usage"]
        assert usage["memory_bytes"] > 96 * MIB
        peer.stop(job)
    else:
        assert reply["limits"] == {"memory_bytes": 32 * MIB, "pids": 30}
    record = peer.exited(job)
    assert (record["oom_kills"] > 0) == (record["signal"] == signal.SIGKILL)


@pytest.mark.usefixtures("needs_controllers")
def test_more_memory_lets_a_job_live_that_would_have_died(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    script = "print('up', flush=True)\nimport signal; signal.sigwait({signal.SIGUSR1})\nx = bytearray(100 << 20)\nprint(len(x))"
    blocked = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}})\n{script}"
    peer.launch(job, [*PYTHON, blocked], limits={"memory_bytes": 48 * MIB})
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
    update(peer, job, {"memory_bytes": 256 * MIB})
    peer.signal(job, signal.SIGUSR1, tree=False)
    record = peer.exited(job)
    assert (record["exit_code"], record["oom_kills"]) == (0, 0)


@pytest.mark.usefixtures("needs_controllers")
def test_best_effort_sets_what_it_can_and_remembers_the_rest_until_it_is_asked_again(
    peer: Peer, job: str
) -> None:
    peer.launch(job, ["sleep", "1000"])
    known = [{"limit": "io", "reason": "no disk"}]
    done = update(peer, job, {"pids": 9, "rlimits": {"nofile": [2, 1]}}, best_effort=True, unenforced=known)
    assert done["limits"] == {"pids": 9}
    assert [entry["limit"] for entry in done["unenforced"]] == ["rlimits.nofile", "io"]
    done = update(peer, job, {"rlimits": {"nofile": [5, 6]}}, lift=["io"])
    assert (done["limits"], done["unenforced"]) == ({"pids": 9, "rlimits": {"nofile": [5, 6]}}, [])
    peer.stop(job)
    peer.exited(job)


def test_of_a_job_that_is_not_there(peer: Peer, job: str) -> None:
    assert update(peer, job, {"nice": 5})["error"] == "no_such_job"
    for verb in ("pause", "resume"):
        assert peer.call({"op": verb, "job": job})["error"] == "no_such_job"


def leaf_of(peer: Peer, pid: int) -> Path:
    """The directory on cgroup2 that a job's process is in."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    place = next(line[3:] for line in lines if line.startswith("0::"))
    return Path(peer.welcome["cgroup"]["root"]) / Path(place).name


def wait_frozen(leaf: Path) -> None:
    """Returns once the kernel says that no process of the cgroup runs."""
    with (leaf / "cgroup.events").open("rb", buffering=0) as file:
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        while b"frozen 1" not in os.pread(file.fileno(), 256, 0):
            assert poll.poll(PATIENCE * 1000), "it is not frozen"


TICKS = "setsid sh -c 'trap \"\" TERM; while :; do sleep 0.01; echo tock; done' & while :; do sleep 0.01; echo tick; done"


def test_nothing_of_a_paused_tree_runs_until_it_is_resumed(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    launched = peer.launch(job, ["sh", "-c", TICKS])
    log = supervisor.job_directory(job) / "output.log"
    wait_until(log, lambda content: b"tick" in content and b"tock" in content)
    for _ in range(2):  # again is no mistake
        assert peer.call({"op": "pause", "job": job})["op"] == "done"
    wait_frozen(leaf_of(peer, launched["pid"]))
    assert peer.jobs()[0]["paused"]
    used = peer.call({"op": "usage", "job": job})["usage"]["cpu_user_usec"]
    before = peer.call({"op": "usage", "job": job})
    assert not select.select([peer.socket], [], [], 0.2)[
        0
    ]  # time in which it would have written twenty times
    after = peer.call({"op": "usage", "job": job})
    assert after["usage"]["cpu_user_usec"] == used
    assert after["output"] == before["output"]
    assert after["usage"]["wall_usec"] > before["usage"]["wall_usec"] + 190_000
    for _ in range(2):
        assert peer.call({"op": "resume", "job": job})["op"] == "done"
    assert not peer.jobs()[0]["paused"]
    size = log.stat().st_size
    wait_until(log, lambda content: b"tick" in content[size:] and b"tock" in content[size:])
    peer.stop(job, grace_ms=0)
    peer.exited(job)


def test_a_stop_of_a_paused_job_is_a_stop_like_any_other(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    launched = peer.launch(
        job, ["sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"]
    )
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
    peer.call({"op": "pause", "job": job})
    wait_frozen(leaf_of(peer, launched["pid"]))
    peer.stop(job, grace_ms=60_000)
    assert peer.call({"op": "pause", "job": job}).get("error") in ("busy", "no_such_job")
    record = peer.exited(job)
    assert (record["exit_code"], record["stop_requested"], record["grace_expired"]) == (3, True, False)
    assert supervisor.output(job).endswith(b"bye\n")


@pytest.mark.parametrize("how", ["kill", "timeout", "signal"])
def test_a_paused_tree_is_killed_where_it_is(supervisor: Supervisor, peer: Peer, job: str, how: str) -> None:
    launched = peer.launch(job, ["sh", "-c", TICKS], timeout_ms=3000 if how == "timeout" else None)
    log = supervisor.job_directory(job) / "output.log"
    wait_until(log, lambda content: b"tock" in content)
    peer.call({"op": "pause", "job": job})
    wait_frozen(leaf_of(peer, launched["pid"]))
    if how == "kill":
        peer.stop(job, grace_ms=0)
    elif how == "signal":
        peer.signal(job, signal.SIGKILL, tree=True)
    record = peer.exited(job)
    assert (record["signal"], record["timed_out"], record["survivors"]) == (9, how == "timeout", 0)
    assert not processes.alive(launched["pid"])
