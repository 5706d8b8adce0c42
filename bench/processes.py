"""What the kernel says that processes have used, all threads of each: CPU time, context switches, memory.

Source: proc(5); https://docs.kernel.org/scheduler/sched-stats.html
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def parent(pid: int) -> int:
    """Its parent's pid."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def name(pid: int) -> str:
    """Its main thread's name, as set by itself."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def children(pid: int) -> list[int]:
    """Pids of its children."""
    return [child for child, its_parent in _parents().items() if its_parent == pid]


def tree(pid: int) -> list[int]:
    """It and all of its descendants."""
    parents = _parents()
    found = [pid]
    for each in found:
        found += [child for child, its_parent in parents.items() if its_parent == each]
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Time on a CPU until now: exact where /proc/PID/stat counts ticks of 10 ms."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in _tasks(pids)) / 1e9


def switches(pids: Iterable[int]) -> int:
    """How often they were put on a CPU and taken from it again, voluntarily or not."""
    lines = (line for task in _tasks(pids) for line in (task / "status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def memory_kib(pids: Iterable[int]) -> int:
    """Resident memory, pages that several processes share divided among them (Pss)."""
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _tasks(pids: Iterable[int]) -> Iterator[Path]:
    return (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())


def _parents() -> dict[int, int]:
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            found[int(entry)] = parent(int(entry))
    return found
