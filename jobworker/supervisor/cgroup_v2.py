"""Controllers of cgroup2: limits and counters, in the job's directory of the one tree.

The counterpart of `cgroup_v1`, function by function; which of the two a controller is on is decided
elsewhere. Source: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib

from jobworker.supervisor import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.messages import Usage

_PERIOD_USEC = 100_000


def set_cpus(base_fd: int, leaf: str, cpus: float) -> float:
    """Limits cpu time to `cpus` seconds a second; the limit in force. The kernel refuses less than 0.01."""
    cgroupfs.write(base_fd, leaf + "/cpu.max", f"{round(cpus * _PERIOD_USEC)} {_PERIOD_USEC}")
    quota, period = cgroupfs.read(base_fd, leaf + "/cpu.max").split()
    return int(quota) / int(period)


def set_memory(base_fd: int, leaf: str, size: int) -> int:
    """Limits memory to `size` bytes and swap to none; the limit in force, in whole pages."""
    cgroupfs.write(base_fd, leaf + "/memory.max", str(size))
    with contextlib.suppress(FileNotFoundError):  # swap is not accounted on this host
        cgroupfs.write(base_fd, leaf + "/memory.swap.max", "0")
    return int(cgroupfs.read(base_fd, leaf + "/memory.max"))


def set_pids(base_fd: int, leaf: str, count: int) -> int:
    """Limits the number of tasks; the limit in force."""
    cgroupfs.write(base_fd, leaf + "/pids.max", str(count))
    return int(cgroupfs.read(base_fd, leaf + "/pids.max"))


def add_usage(controller: str, base_fd: int, leaf: str, usage: Usage, *, ended: bool) -> None:
    """Fills in what this controller counts; for a job that has ended, only what outlives its processes."""
    if controller == "memory":
        usage["memory_peak_bytes"] = cgroupfs.read_int(base_fd, leaf + "/memory.peak")
        if not ended:
            usage["memory_bytes"] = cgroupfs.read_int(base_fd, leaf + "/memory.current")
    elif controller == "pids":
        usage["pids_peak"] = cgroupfs.read_int(base_fd, leaf + "/pids.peak")
        if not ended:
            usage["pids"] = cgroupfs.read_int(base_fd, leaf + "/pids.current")
    elif controller == "io":
        usage["io_read_bytes"], usage["io_write_bytes"] = _io_bytes(base_fd, leaf)


def count_oom_kills(base_fd: int, leaf: str) -> int:
    """How many of the job's processes the kernel killed for its memory limit."""
    return cgroupfs.read_keyed(base_fd, leaf + "/memory.events").get("oom_kill", 0)


def cpu_usec(base_fd: int, leaf: str) -> tuple[int, int]:
    """Cpu time of the tree in user and system mode; cgroup2 counts it with no controller at all."""
    stat = cgroupfs.read_keyed(base_fd, leaf + "/cpu.stat")
    return stat.get("user_usec", 0), stat.get("system_usec", 0)


def _io_bytes(base_fd: int, leaf: str) -> tuple[int, int]:
    totals = {"rbytes": 0, "wbytes": 0}
    for word in cgroupfs.read(base_fd, leaf + "/io.stat").split():  # "8:0 rbytes=4096 wbytes=0 …"
        key, _, value = word.partition("=")
        if key in totals:
            totals[key] += int(value)
    return totals["rbytes"], totals["wbytes"]
