"""A supervisor for the tests of a file, which must leave nothing behind: no job, cgroup, process or descriptor."""

import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness import processes
from tests.supervisor.peer import CHECKOUT, PATIENCE, Peer, Supervisor

StartSupervisor = Callable[..., Supervisor]
_numbers = itertools.count(1)


def assert_nothing_left(supervisor: Supervisor) -> None:
    """After its end: no cgroup of the state directory, and no process that knows it."""
    assert processes.cgroups_of(supervisor.state) == []
    assert processes.mentioning(str(supervisor.state)) == {}


@pytest.fixture
def start_supervisor(tmp_path: Path) -> Iterator[StartSupervisor]:
    """Start supervisors that are the test's own; those that still run are ended, and must then have left nothing."""
    with ExitStack() as stack:

        def start(*options: str, state: Path = tmp_path / "state", **how: Any) -> Supervisor:
            supervisor = Supervisor(state, *options, **how)
            stack.callback(finish, supervisor)
            return supervisor

        yield start


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """An empty file system of 1 MiB, or a skip where none can be mounted."""
    path = tempfile.mkdtemp(prefix="jobworker-disk-")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=711", "tmpfs", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    yield Path(path)
    subprocess.run(["umount", path], check=True)
    Path(path).rmdir()


def finish(supervisor: Supervisor) -> None:
    """Ends it if it runs; one that a test killed has left its cgroups to the next on the same state directory."""
    if supervisor.process.poll() is None:
        assert supervisor.terminate() == 0, supervisor.log
        assert_nothing_left(supervisor)
        return
    for pid, command in processes.mentioning(
        str(supervisor.state)
    ).items():  # what took its place in a test that failed
        if "--kept-fd" in command and "--keeper-fd" not in command:
            processes.end(pid, seconds=PATIENCE)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory that jobs of any user can get through, as pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="jobworker-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def supervisor(directory: Path) -> Iterator[Supervisor]:
    """A supervisor that the tests of a module share."""
    shared = Supervisor(directory / "state")
    shared.state.chmod(0o711)
    try:
        assert shared.ready == "ready\n", shared.log
        with shared.connect() as peer:
            peer.run("warm-up", ["true"])
            before = shared.descriptors(peer)
        yield shared
        with shared.connect() as peer:
            assert peer.jobs() == []
            peer.run("cool-down", ["true"])
            assert shared.descriptors(peer) == before
    finally:
        status = shared.terminate()
    assert status == 0, shared.log
    assert_nothing_left(shared)


@pytest.fixture
def peer(supervisor: Supervisor) -> Iterator[Peer]:
    """A connection of the test's own to the shared supervisor."""
    with supervisor.connect() as connection:
        yield connection


@pytest.fixture
def job() -> str:
    """A job id that was not used before."""
    return f"job-{next(_numbers)}"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of what is installed, to be changed under a running supervisor."""
    copy = tmp_path / "code"
    (copy / "jobworker").mkdir(parents=True)
    for name in ("__init__.py", "outputindex.py", "syscalls.py"):
        shutil.copy(CHECKOUT / "jobworker" / name, copy / "jobworker")
    shutil.copytree(
        CHECKOUT / "jobworker/supervisor",
        copy / "jobworker/supervisor",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return copy
