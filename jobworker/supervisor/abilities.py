"""Which limits cannot be enforced on this host, found out by trying each in a cgroup made for it.

Decides what is tried, and with which value. Runs before the first job; what it made is gone afterwards.
"""

from __future__ import annotations

import contextlib
import os

from jobworker.supervisor import limits
from jobworker.supervisor.cgroup_none import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.cgroup import Tree
    from jobworker.supervisor.jobfacts import Limits, Unenforced

_LEAF = ".abilities"  # no job's name begins with a dot
# the limits that need a capability (capabilities(7)) for some values: its number and name
_PRIVILEGED = {"nice": (23, "CAP_SYS_NICE"), "oom_score_adj": (24, "CAP_SYS_RESOURCE")}


def missing(tree: Tree | None) -> list[Unenforced]:
    """The limits that cannot be enforced, each with its reason; empty where all can."""
    leaf = Group() if tree is None else tree.new_leaf(_LEAF)
    try:
        leaf.create()
        tried = limits.apply(leaf, os.getpid(), _harmless(), unenforced=[], best_effort=True).unenforced
    except OSError as error:
        reason = f"no cgroup can be made: {os.strerror(error.errno or 0).lower()}"
        tried = [{"limit": name, "reason": reason} for name in limits.CONTROLLERS]
    finally:
        with contextlib.suppress(OSError):
            leaf.remove()
    return [*tried, *_without_capability()]


def _harmless() -> Limits:
    asked: Limits = {
        "cpus": 1.0,
        "cpu_weight": 50,
        "memory_bytes": 1 << 30,
        "swap_bytes": 1 << 30,
        "pids": 1000,
        "io_weight": 50,
    }
    if (disk := _some_disk()) is not None:
        name, device = disk
        rates = dict.fromkeys(limits.RATES, 1 << 30)
        asked["io"] = [{"path": f"/dev/{name}", "device": device, **rates}]  # type: ignore[typeddict-item]  # its keys
    return asked


def _some_disk() -> tuple[str, str] | None:
    """Name and number of a disk that holds something."""
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir("/sys/block"), reverse=True):  # loop devices and RAM last
            with open(f"/sys/block/{name}/size") as size, open(f"/sys/block/{name}/dev") as device:
                if int(size.read()):
                    return name, device.read().strip()
    return None


def _without_capability() -> list[Unenforced]:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("CapEff:"))
    ours = int(line.split()[1], 16)
    return [
        {"limit": limit, "reason": f"values below 0 need {name}"}
        for limit, (number, name) in _PRIVILEGED.items()
        if not ours >> number & 1
    ]
