"""A supervisor in a part of the tree that was given to it: as an ordinary user, and as root under a manager like systemd."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import probes
from tests.supervisor.conftest import StartSupervisor
from tests.supervisor.peer import CHECKOUT, Peer, Supervisor, wait_for_output
from tests.supervisor.test_unprivileged import CHECK, PYTHON, USER

MIB = 1024 * 1024
GIVEN = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")  # cgroup-v2.rst, "Model of Delegation"
SWITCHED_ON = (
    set((probes.MOUNTS["v2"] / "cgroup.subtree_control").read_text().split())
    if "v2" in probes.MOUNTS
    else set()
)

pytestmark = [
    probes.needs_root,
    pytest.mark.skipif(
        not {"cpu", "io", "memory", "pids"} <= SWITCHED_ON,
        reason="needs a cgroup2 whose top hands on cpu, io, memory and pids",
    ),
]


@pytest.fixture
def part() -> Iterator[Path]:
    """A cgroup to be given away; it must be as it was in the end."""
    path = probes.MOUNTS["v2"] / f"jobworker-test-{os.getpid()}"
    path.mkdir()
    yield path
    assert [entry.name for entry in path.iterdir() if entry.is_dir()] == []
    assert (path / "cgroup.subtree_control").read_text().split() == []
    path.rmdir()


@pytest.fixture(params=["user", "root"])
def delegated(
    request: pytest.FixtureRequest, part: Path, directory: Path, start_supervisor: StartSupervisor
) -> Supervisor:
    """One that was started in the cgroup, as a manager would."""
    state = directory / f"state-{len(os.listdir(directory))}"

    enter = ["sh", "-c", 'echo 0 >"$0"; exec "$@"', str(part / "cgroup.procs")]
    if request.param == "root":
        os.setxattr(part, "trusted.delegate", b"1")  # as systemd marks it
        return start_supervisor(state=state, wrap=enter)
    for path in (part, *(part / name for name in GIVEN)):
        os.chown(path, USER, USER)
    done = subprocess.run(
        [PYTHON or "python3", "-S", "-E", "-s", "-c", CHECK], cwd=CHECKOUT, user=USER, check=False
    )
    if done.returncode:
        pytest.skip(f"user {USER} has no Python 3.11 here that can read the checkout")
    state.mkdir()
    os.chown(state, USER, USER)
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    return start_supervisor(state=state, python=PYTHON, wrap=[*enter, *become])


@pytest.fixture
def peer(delegated: Supervisor, part: Path) -> Iterator[Peer]:
    with delegated.connect() as connection:
        assert connection.welcome["cgroup"]["mode"] == "v2", delegated.log
        assert Path(connection.welcome["cgroup"]["root"]).parent == part
        yield connection


def test_it_has_all_controllers_in_its_own_part_and_leaves_no_trace(
    delegated: Supervisor, peer: Peer, part: Path
) -> None:
    cgroup = peer.welcome["cgroup"]
    assert cgroup["controllers"] == dict.fromkeys(("cpu", "memory", "pids", "io"), "v2")
    assert cgroup["into_cgroup"]
    assert Path(f"/proc/{delegated.pid}/cgroup").read_text() == f"0::/{part.name}/supervisor\n"
    missing = {entry["limit"] for entry in cgroup["unenforced"]}
    assert not missing & {"cpus", "cpu_weight", "memory_bytes", "pids", "io"}
    assert delegated.terminate() == 0
    assert [entry.name for entry in part.iterdir() if entry.is_dir()] == []


def test_limits_hold_and_are_read_back(delegated: Supervisor, peer: Peer, part: Path) -> None:
    limits = {"cpus": 0.5, "memory_bytes": 32 * MIB, "pids": 10, "cpu_weight": 50}
    launched = peer.launch("held", ["sh", "-c", "echo up; exec sleep 1000"], limits=limits)
    assert launched["limits"] == limits
    assert part.name in Path(f"/proc/{launched['pid']}/cgroup").read_text()
    wait_for_output(delegated.job_directory("held") / "output.log", b"up")
    peer.call({"op": "pause", "job": "held"})
    peer.stop("held")
    assert peer.exited("held")["survivors"] == 0
    hog = [shutil.which("python3", path="/usr/bin") or "python3", "-S", "-c", "x = bytearray(200 << 20)"]
    assert peer.run("hog", hog, limits={"memory_bytes": 32 * MIB})["oom_kills"] == 1


def test_the_whole_tree_dies(delegated: Supervisor, peer: Peer) -> None:
    peer.launch(
        "tree", ["sh", "-c", "trap '' TERM; for n in 1 2 3; do setsid sleep 1000 & done; echo up; wait"]
    )
    wait_for_output(delegated.job_directory("tree") / "output.log", b"up")
    peer.stop("tree", grace_ms=0)
    record = peer.exited("tree")
    assert (record["signal"], record["survivors"]) == (9, 0)
