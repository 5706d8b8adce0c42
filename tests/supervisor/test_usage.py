"""What a job is said to use: the kernel's own figures while it runs, and what wait4(2) and the program itself say of it.

Bounds: of a job that stands still, equal to the kernel's files; of one that has ended, processor time within 20 ms and
5 % of what the program counted, wall time between what the program and what its client counted.
"""

import sys
import time
from collections.abc import Iterator

import pytest

from tests.supervisor.peer import Message, Peer, Supervisor, wait_for_output
from tests.supervisor.test_limits import cgroup_file
from tests.supervisor.test_update import leaf_of, wait_frozen

PYTHON = [sys.executable, "-S", "-E", "-s", "-c"]
MIB = 1024 * 1024
Still = tuple[Message, Message]


def keyed(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


@pytest.fixture
def still(supervisor: Supervisor, peer: Peer, job: str) -> Iterator[Still]:
    """A job that has done something and stands still: its launch, and what is said of it."""
    if not {"cpu", "memory", "pids"} <= peer.welcome["cgroup"]["controllers"].keys():
        pytest.skip("the supervisor has no cpu, memory and pids controller here")
    script = "sleep 1000 & sleep 1000 & i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; echo up; wait"
    launched = peer.launch(job, ["sh", "-c", script], limits={"cpus": 0.5, "pids": 20})
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
    peer.call({"op": "pause", "job": job})
    wait_frozen(leaf_of(peer, launched["pid"]))
    yield launched, peer.call({"op": "usage", "job": job})["usage"]
    peer.stop(job, grace_ms=0)
    peer.exited(job)


def memory(peer: Peer, job: str, launched: Message) -> tuple[int, int]:
    """What is said and what the kernel says, while it does not take back what it had charged in advance."""
    file = (launched, "memory", "memory.usage_in_bytes", "memory.current")
    while True:
        before = cgroup_file(*file)
        told: int = peer.call({"op": "usage", "job": job})["usage"]["memory_bytes"]
        if cgroup_file(*file) == before:
            return told, int(before)


def test_a_job_that_stands_still_uses_what_the_kernels_files_say(peer: Peer, job: str, still: Still) -> None:
    launched, usage = still
    leaf = leaf_of(peer, launched["pid"])
    cpu = keyed((leaf / "cpu.stat").read_text())
    assert (usage["cpu_user_usec"], usage["cpu_system_usec"]) == (cpu["user_usec"], cpu["system_usec"])
    told, kernels = memory(peer, job, launched)
    assert told == kernels
    assert (
        usage["pids"]
        == usage["pids_peak"]
        == int(cgroup_file(launched, "pids", "pids.current", "pids.current"))
        == 3
    )
    if "throttled_usec" in cpu:
        throttled = cpu["throttled_usec"]
    else:
        throttled = keyed(cgroup_file(launched, "cpu", "cpu.stat", "cpu.stat"))["throttled_time"] // 1000
    assert usage["cpu_throttled_usec"] == throttled
    assert usage["oom_kills"] == 0


def test_pressure_is_the_kernels_where_it_has_it(peer: Peer, job: str, still: Still) -> None:
    launched, usage = still
    leaf = leaf_of(peer, launched["pid"])
    for name in ("cpu", "memory", "io"):
        told, file = usage[f"{name}_pressure"], leaf / f"{name}.pressure"
        if file.exists():
            lines = {line.split()[0]: line.split("total=")[1] for line in file.read_text().splitlines()}
            assert told["some_usec"] <= int(lines["some"])
            assert told["full_usec"] <= told["some_usec"]
            assert 0 <= told["full_avg10"] <= 100
        else:
            assert told is None


def test_processor_and_wall_time_are_what_the_program_counts(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    script = (
        "import os, resource as r, time\n"
        "begin = time.monotonic()\n"
        "if os.fork() == 0:\n"
        "    while time.process_time() < 0.3: pass\n"
        "    os._exit(0)\n"
        "while time.process_time() < 0.3: time.time()\n"
        "os.wait()\n"
        "both = [r.getrusage(who) for who in (r.RUSAGE_SELF, r.RUSAGE_CHILDREN)]\n"
        "print(sum(use.ru_utime + use.ru_stime for use in both), time.monotonic() - begin)"
    )
    before = time.monotonic()
    peer.launch(job, [*PYTHON, script])
    usage = peer.exited(job)["usage"]
    passed = time.monotonic() - before
    counted, ran = map(float, supervisor.output(job).split())
    told = (usage["cpu_user_usec"] + usage["cpu_system_usec"]) / 1e6
    # the cgroup has also seen the child on its way to the program, which takes a tenth of a second on a slow machine,
    # and the program's end, which takes what else does not run meanwhile
    assert 0.95 * counted - 0.02 < told < 1.05 * counted + 0.15 + (passed - ran)
    assert ran < usage["wall_usec"] / 1e6 <= passed


def test_the_most_memory_it_held_is_what_it_filled(peer: Peer, job: str) -> None:
    if "memory" not in peer.welcome["cgroup"]["controllers"]:
        pytest.skip("the supervisor has no memory controller here")
    record = peer.run(job, [*PYTHON, f"x = b'x' * {64 * MIB}"])
    assert 64 * MIB <= record["usage"]["memory_peak_bytes"] < 96 * MIB
    assert record["usage"]["memory_bytes"] is None
