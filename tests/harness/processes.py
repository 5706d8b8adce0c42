"""Processes that are not our children: wait for their end, and find those that a worker should not have left behind."""

import hashlib
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def wait_gone(pid: int, *, seconds: float) -> bool:
    """True as soon as the process has ended, whoever its parent is; False if it lives on after the time given."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(fd)


def wait_reaped(pid: int, *, seconds: float) -> bool:
    """True as soon as its parent, who is another, has taken in that the process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:  # a pidfd tells of it since Linux 6.15 only
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        os.sched_yield()
    return False


def end(pid: int, *, seconds: float) -> bool:
    """SIGTERM, then SIGKILL once the time is over; whether it went on the SIGTERM."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if wait_gone(pid, seconds=seconds):
        return True
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_gone(pid, seconds=5)
    return False


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def keeper(supervisor: int) -> int | None:
    """The keeper above a supervisor; None when one of them is gone."""
    try:
        pid = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
        name = Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid if name == "jobworker-keep\n" else None


def mentioning(text: str) -> dict[int, str]:
    """Living processes whose command line or first environment contains a text, with what they run."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if text.encode() in command + (entry / "environ").read_bytes() and alive(int(entry.name)):
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def state_hash(state: Path) -> str:
    """What the worker's cgroups are named after: 12 hex digits for the real path of the state directory."""
    return hashlib.sha256(os.path.realpath(state).encode()).hexdigest()[:12]


def cgroups_of(state: Path) -> list[Path]:
    """The worker's own directory in each mounted hierarchy, wherever below the mount it is."""
    wanted = f"jobworker-{state_hash(state)}"
    return [found for mount in cgroup_mounts() for found in _directories(mount, wanted)]


def leaves_of(state: Path) -> list[Path]:
    """Cgroups of single jobs that still exist."""
    return [leaf for tree in cgroups_of(state) for leaf in tree.iterdir() if leaf.is_dir()]


def cgroup_mounts() -> list[Path]:
    """Where cgroup hierarchies are mounted, of either version."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(fields[1]) for fields in mounts if fields[2] in ("cgroup", "cgroup2")]


def _directories(top: Path, name: str) -> Iterator[Path]:
    for folder, below, _ in os.walk(top):
        if name in below:
            yield Path(folder) / name
            below.remove(name)
