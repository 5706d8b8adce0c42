"""The supervisor as a process: what it loads, how little it takes, and that nothing piles up in it."""

import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.probes import needs_cgroup2
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.peer import (
    CHECKOUT,
    PATIENCE,
    TRACED,
    Peer,
    Supervisor,
    launch_request,
    wait_for_output,
)

OURS = {
    "jobworker",
    "jobworker.outputindex",
    "jobworker.supervisor",
    "jobworker.supervisor.__main__",
    "jobworker.supervisor.abilities",
    "jobworker.supervisor.cap",
    "jobworker.supervisor.capture",
    "jobworker.supervisor.cgroup",
    "jobworker.supervisor.cgroup_none",
    "jobworker.supervisor.cgroup_setup",
    "jobworker.supervisor.cgroup_v1",
    "jobworker.supervisor.cgroup_v2",
    "jobworker.supervisor.cgroupfs",
    "jobworker.supervisor.child",
    "jobworker.supervisor.control",
    "jobworker.supervisor.custody",
    "jobworker.supervisor.disk",
    "jobworker.supervisor.diskweights",
    "jobworker.supervisor.engine",
    "jobworker.supervisor.execution",
    "jobworker.supervisor.exitrecord",
    "jobworker.supervisor.family",
    "jobworker.supervisor.job",
    "jobworker.supervisor.jobfiles",
    "jobworker.supervisor.journal",
    "jobworker.supervisor.keeper",
    "jobworker.supervisor.launch",
    "jobworker.supervisor.limitrequests",
    "jobworker.supervisor.limits",
    "jobworker.supervisor.loop",
    "jobworker.supervisor.mainprocess",
    "jobworker.supervisor.nurse",
    "jobworker.supervisor.nursery",
    "jobworker.supervisor.options",
    "jobworker.supervisor.peers",
    "jobworker.supervisor.processlimits",
    "jobworker.supervisor.protocol",
    "jobworker.supervisor.recording",
    "jobworker.supervisor.remains",
    "jobworker.supervisor.rehearsal",
    "jobworker.supervisor.requests",
    "jobworker.supervisor.runstate",
    "jobworker.supervisor.seat",
    "jobworker.supervisor.serve",
    "jobworker.supervisor.startup",
    "jobworker.supervisor.succession",
    "jobworker.supervisor.takeover",
    "jobworker.syscalls",
}
STANDARD = {
    "__future__",
    "array",
    "bisect",
    "collections",
    "contextlib",
    "copyreg",
    "ctypes",
    "enum",
    "errno",
    "fcntl",
    "functools",
    "gc",
    "genericpath",
    "heapq",
    "importlib",
    "itertools",
    "json",
    "keyword",
    "marshal",
    "math",
    "operator",
    "os",
    "posixpath",
    "re",
    "reprlib",
    "resource",
    "runpy",
    "select",
    "selectors",
    "signal",
    "socket",
    "stat",
    "struct",
    "types",
    "zlib",
}
LIST_MODULES = """
import sys
started_with = set(sys.modules)
import jobworker.supervisor.{module}
print(*sorted(set(sys.modules) - started_with))
"""


def loaded_modules(module: str) -> set[str]:
    """What importing a part of the supervisor brings into an interpreter started as it is."""
    command = [sys.executable, "-S", "-E", "-s", "-c", LIST_MODULES.format(module=module)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=True)
    return set(done.stdout.split())


def test_it_loads_its_own_modules_and_a_known_few_of_the_standard_library() -> None:
    loaded = loaded_modules("__main__") | loaded_modules("startup") | loaded_modules("serve")
    assert {name for name in loaded if name.startswith("job")} == OURS
    foreign = {name.split(".")[0] for name in loaded if not name.startswith(("job", "_"))}
    assert foreign <= STANDARD


def test_what_is_loaded_before_the_nurse_is_cloned_is_less_still() -> None:
    loaded = loaded_modules("__main__") | loaded_modules("startup")
    assert not loaded & {"json", "re", "enum", "socket", "signal", "selectors", "jobworker.supervisor.serve"}


def test_the_live_process_has_mapped_no_library_beyond_those(supervisor: Supervisor) -> None:
    maps = Path(f"/proc/{supervisor.pid}/maps").read_text()
    for name in ("_asyncio", "_ssl", "libssl", "libcrypto", "_sqlite3", "_hashlib", "site-packages"):
        assert name not in maps


def resident_kb(supervisor: Supervisor) -> int:
    lines = Path(f"/proc/{supervisor.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def test_it_stays_small(supervisor: Supervisor) -> None:
    assert resident_kb(supervisor) < 16 * 1024


def test_a_hundred_jobs_leave_no_descriptor_no_process_and_hardly_any_memory(
    supervisor: Supervisor, peer: Peer
) -> None:
    peer.run("before", ["echo", "hi"])
    descriptors, memory = supervisor.descriptors(peer), resident_kb(supervisor)
    for number in range(100):
        kind = number % 4
        if kind == 0:
            peer.run(f"leak-{number}", ["sh", "-c", "echo hi; setsid sleep 1000 & exit 0"])
        elif kind == 1:
            assert peer.launch(f"leak-{number}", ["/no/such"])["op"] == "failed"
        elif kind == 2:
            peer.launch(f"leak-{number}", ["sleep", "1000"], timeout_ms=600_000)
            peer.stop(f"leak-{number}")
            peer.exited(f"leak-{number}")
        else:
            peer.launch(f"leak-{number}", ["true"], limits={"pids": 2**62})
            if peer.jobs():
                peer.exited(f"leak-{number}")
    assert supervisor.descriptors(peer) == descriptors
    assert set(supervisor.children()) == {supervisor.nurse(), supervisor.waiting_child(peer)}
    assert resident_kb(supervisor) < memory + 1024


def test_connections_leave_no_descriptor(supervisor: Supervisor, peer: Peer) -> None:
    descriptors = supervisor.descriptors(peer)
    for _ in range(50):
        with supervisor.connect() as other:
            other.send(launch_request("never", []))
    assert supervisor.descriptors(peer) == descriptors


def wake_ups(supervisor: Supervisor) -> int:
    lines = Path(f"/proc/{supervisor.pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def test_it_sleeps_while_nothing_happens(supervisor: Supervisor, peer: Peer, job: str) -> None:
    names = [f"{job}-{number}" for number in range(10)]
    for name in names:
        peer.launch(name, ["sleep", "1000"], timeout_ms=600_000)
    supervisor.descriptors(peer)  # by then all that a launch brings about has come
    assert not select.select([peer.socket], [], [], 0.1)[0]  # for it to have gone to sleep
    before = wake_ups(supervisor)
    assert not select.select([peer.socket], [], [], 0.5)[0]
    assert wake_ups(supervisor) == before
    for name in names:
        peer.stop(name)
    for name in names:
        peer.exited(name)


@needs_cgroup2
def test_it_sleeps_while_an_end_is_withheld_by_a_tracer(supervisor: Supervisor, peer: Peer, job: str) -> None:
    pid = peer.launch(job, ["python3", "-c", TRACED], wait_for_tree=True)["pid"]
    wait_for_output(supervisor.job_directory(job) / "output.log", b"\n")
    if b"traced" not in supervisor.output(job):
        pytest.skip(f"this host lets no child trace its parent: {supervisor.output(job).decode()}")
    assert processes.wait_gone(pid, seconds=PATIENCE)
    supervisor.descriptors(peer)
    assert not select.select([peer.socket], [], [], 0.1)[0]
    before = wake_ups(supervisor)
    assert not select.select([peer.socket], [], [], 0.5)[0]
    assert wake_ups(supervisor) == before
    peer.signal(job, signal.SIGUSR1, tree=True)
    assert peer.exited(job)["exit_code"] == 3


@pytest.mark.parametrize("jobs", [0, 1])
def test_an_idle_supervisor_ends_at_once(start_supervisor: StartSupervisor, jobs: int) -> None:
    supervisor = start_supervisor()
    for number in range(jobs):
        with supervisor.connect() as peer:
            peer.run(f"job-{number}", ["true"])
    assert supervisor.terminate() == 0
    assert sorted(entry.name for entry in supervisor.state.iterdir()) == [
        "jobs",
        "supervisor.lock",
        "supervisor.log",
    ]
    assert len(list((supervisor.state / "jobs").iterdir())) == jobs
