"""Controllers of cgroup v1, for hosts that have cpu, memory, pids or blkio there: limits and counters.

Each hierarchy gets a directory of its own for the job, which the child joins through `tasks` before exec (never
through `cgroup.procs`, whose write takes a kernel-wide lock of milliseconds). Entry, kill and "is it empty" are
cgroup2's business and not known here. Source: Documentation/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import contextlib
import os

from jobworker.supervisor import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.messages import Usage

NAMES = {"cpu": "cpu", "memory": "memory", "pids": "pids", "io": "blkio"}  # ours → v1's
_PERIOD_USEC = 100_000


def create(base_fd: int, leaf: str) -> int:
    """Makes the job's directory; the descriptor through which its child joins."""
    os.mkdir(leaf, 0o755, dir_fd=base_fd)
    return os.open(leaf + "/tasks", os.O_WRONLY | os.O_CLOEXEC, dir_fd=base_fd)


def set_cpus(base_fd: int, leaf: str, cpus: float) -> float:
    """Limits cpu time to `cpus` seconds a second; the limit in force. The kernel refuses less than 0.01."""
    cgroupfs.write(base_fd, leaf + "/cpu.cfs_period_us", str(_PERIOD_USEC))
    cgroupfs.write(base_fd, leaf + "/cpu.cfs_quota_us", str(round(cpus * _PERIOD_USEC)))
    quota = int(cgroupfs.read(base_fd, leaf + "/cpu.cfs_quota_us"))
    return quota / int(cgroupfs.read(base_fd, leaf + "/cpu.cfs_period_us"))


def set_memory(base_fd: int, leaf: str, size: int) -> int:
    """Limits memory, swap included where the kernel counts it, to `size` bytes; the limit in force, in whole pages."""
    cgroupfs.write(base_fd, leaf + "/memory.limit_in_bytes", str(size))
    with contextlib.suppress(FileNotFoundError):  # swap is not accounted on this host
        cgroupfs.write(base_fd, leaf + "/memory.memsw.limit_in_bytes", str(size))
    return int(cgroupfs.read(base_fd, leaf + "/memory.limit_in_bytes"))


def set_pids(base_fd: int, leaf: str, count: int) -> int:
    """Limits the number of tasks; the limit in force."""
    cgroupfs.write(base_fd, leaf + "/pids.max", str(count))
    return int(cgroupfs.read(base_fd, leaf + "/pids.max"))


def add_usage(controller: str, base_fd: int, leaf: str, usage: Usage, *, ended: bool) -> None:
    """Fills in what this controller counts; for a job that has ended, only what outlives its processes."""
    if controller == "memory":
        usage["memory_peak_bytes"] = cgroupfs.read_int(base_fd, leaf + "/memory.max_usage_in_bytes")
        if not ended:
            usage["memory_bytes"] = cgroupfs.read_int(base_fd, leaf + "/memory.usage_in_bytes")
    elif controller == "pids":
        usage["pids_peak"] = cgroupfs.read_int(base_fd, leaf + "/pids.peak")
        if not ended:
            usage["pids"] = cgroupfs.read_int(base_fd, leaf + "/pids.current")
    elif controller == "io":
        usage["io_read_bytes"], usage["io_write_bytes"] = _io_bytes(base_fd, leaf)


def count_oom_kills(base_fd: int, leaf: str) -> int:
    """How many of the job's processes the kernel killed for its memory limit."""
    return cgroupfs.read_keyed(base_fd, leaf + "/memory.oom_control").get("oom_kill", 0)


def _io_bytes(base_fd: int, leaf: str) -> tuple[int, int]:
    read = written = 0
    for line in cgroupfs.read(base_fd, leaf + "/blkio.throttle.io_service_bytes").splitlines():
        words = line.split()  # "8:0 Read 4096", …, at last "Total 4096"
        if len(words) == 3 and words[1] == "Read":
            read += int(words[2])
        elif len(words) == 3 and words[1] == "Write":
            written += int(words[2])
    return read, written
