"""What this machine can do. Each probe is a pytest mark that skips, for one reason, a test which needs more."""

import os
from pathlib import Path

import pytest


def cgroup_mounts() -> dict[str, Path]:
    """Mounted hierarchies that can be written: "v2" for cgroup2, else the name of each v1 controller."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if not os.access(place, os.W_OK):  # as in most containers
            continue
        if kind == "cgroup2":
            found["v2"] = Path(place)
        elif kind == "cgroup":
            found |= {option: Path(place) for option in options.split(",") if "=" not in option}
    return found


MOUNTS = cgroup_mounts()
ROOT = os.geteuid() == 0


def controllers() -> set[str]:
    """Controllers of the cgroup2 hierarchy."""
    return set((MOUNTS["v2"] / "cgroup.controllers").read_text().split()) if "v2" in MOUNTS else set()


def has_capability(number: int) -> bool:
    """Whether we have a capability of this number (capabilities(7))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return bool(int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16) >> number & 1)


MAY_HURRY = has_capability(23)  # CAP_SYS_NICE
PURE_V2 = {"cpu", "memory", "pids"} <= controllers()
V1 = {"cpu", "memory", "pids"} <= MOUNTS.keys()
UML = Path("/proc/cpuinfo").read_text().find("User Mode Linux") >= 0

needs_root = pytest.mark.skipif(not ROOT, reason="needs root")
needs_no_root = pytest.mark.skipif(ROOT, reason="needs an ordinary user")
needs_cgroup2 = pytest.mark.skipif(
    "v2" not in MOUNTS, reason="no cgroup2 hierarchy is mounted that can be written"
)
needs_limits = pytest.mark.skipif(
    not (ROOT and (PURE_V2 or V1)), reason="needs root and the cpu, memory and pids controllers"
)
needs_full_device = pytest.mark.skipif(
    not os.access("/dev/full", os.W_OK), reason="needs a /dev/full that may be written"
)
needs_fast_processes = pytest.mark.skipif(UML, reason="takes minutes in User Mode Linux")
