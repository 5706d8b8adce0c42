"""Who descends from whom, by what /proc tells: how a job's processes are found where there are no cgroups.

Decides how far to look. A process that is a subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)) is the one to whom the orphans
among its descendants fall, so none of them is lost as long as it lives. A list read here may be out of date when it
is used: who must have all of them stops those it has found, and looks again until there are no new ones.

Source: proc_pid_task(5), children; proc_pid_stat(5)
"""

from __future__ import annotations

import contextlib
import os

# of processes that are gone, or not shown to us (hidepid, proc(5)); that there are no descriptors left to look with is told
_UNSEEN = (FileNotFoundError, ProcessLookupError, PermissionError)


def children(pid: int) -> list[int]:
    """The pids of a process's children, zombies included; none for one that is gone."""
    found: list[int] = []
    with contextlib.suppress(*_UNSEEN):
        for thread in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    found += map(int, file.read().split())
            except ProcessLookupError:
                continue
            except FileNotFoundError:
                if not _has_children_files():
                    return _children_by_stat(pid)
    return found


def descendants(pid: int) -> list[int]:
    """Its children, their children, and so on."""
    found = children(pid)
    for each in found:  # which grows meanwhile
        found += children(each)
    return found


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is not a zombie."""
    with contextlib.suppress(*_UNSEEN):
        return _stat(pid)[0] not in (b"Z", b"X")
    return False


def _has_children_files() -> bool:
    """Whether this kernel has them (CONFIG_PROC_CHILDREN)."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _children_by_stat(parent: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(*_UNSEEN):
                if int(_stat(int(name))[1]) == parent:
                    found.append(int(name))
    return found


def _stat(pid: int) -> list[bytes]:
    """State, parent, and what follows; a process's name may hold anything, parentheses too."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()
