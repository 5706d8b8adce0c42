"""Controllers of cgroup v1, for hosts that have cpu, memory, pids or blkio there: limits and counters.

Each hierarchy gets a directory of its own for the job, which the child joins through `tasks` before exec (never
through `cgroup.procs`, whose write takes a kernel-wide lock of milliseconds). Entry, kill and "is it empty" are
cgroup2's business and not known here. A limit of None is lifted. Source: Documentation/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import os

from jobworker.supervisor import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.jobfacts import Usage

NAMES = {"cpu": "cpu", "memory": "memory", "pids": "pids", "io": "blkio"}  # ours → v1's
SWAP_ALONE = False  # whether swap is counted by itself, not as a part of memory and swap
_PERIOD_USEC = 100_000
_WEIGHT = 100  # of cgroup2; as many shares as a cgroup has by itself
_SHARES = 1024
_UNLIMITED = 2**62  # the kernel reads "-1" back as the largest number of whole pages
_RATES = {  # ours → the file's
    "read_bytes_per_second": "read_bps",
    "write_bytes_per_second": "write_bps",
    "read_operations_per_second": "read_iops",
    "write_operations_per_second": "write_iops",
}


def create(base_fd: int, leaf: str) -> int:
    """Makes the job's directory; the descriptor through which its child joins."""
    os.mkdir(leaf, 0o755, dir_fd=base_fd)
    return os.open(leaf + "/tasks", os.O_WRONLY | os.O_CLOEXEC, dir_fd=base_fd)


def set_cpus(base_fd: int, leaf: str, cpus: float | None) -> float | None:
    """Limits cpu time to `cpus` seconds a second; the limit in force. The kernel refuses less than 0.01."""
    cgroupfs.write(base_fd, leaf + "/cpu.cfs_period_us", str(_PERIOD_USEC))
    quota = -1 if cpus is None else round(cpus * _PERIOD_USEC)
    cgroupfs.write(base_fd, leaf + "/cpu.cfs_quota_us", str(quota))
    quota = int(cgroupfs.read(base_fd, leaf + "/cpu.cfs_quota_us"))
    return None if quota < 0 else quota / int(cgroupfs.read(base_fd, leaf + "/cpu.cfs_period_us"))


def set_cpu_weight(base_fd: int, leaf: str, weight: int | None) -> int:
    """Sets the share of the processors; the weight in force."""
    cgroupfs.write(base_fd, leaf + "/cpu.shares", str(round((weight or _WEIGHT) * _SHARES / _WEIGHT)))
    return round(int(cgroupfs.read(base_fd, leaf + "/cpu.shares")) * _WEIGHT / _SHARES)


def set_memory(
    base_fd: int, leaf: str, memory: int | None, swap: int | None
) -> tuple[int | None, int | None]:
    """Limits memory and swap in bytes; both in force, in whole pages. The second is None where swap is not counted.

    The kernel counts both together, and wants that sum to be no less than memory at any moment.
    """
    both = None if memory is None or swap is None else memory + swap
    counted = cgroupfs.read_int(base_fd, leaf + "/memory.memsw.limit_in_bytes")
    steps = [("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", both)]
    if counted is None:
        del steps[1]
    elif both is None or both > counted:
        steps.reverse()
    for name, value in steps:
        cgroupfs.write(base_fd, f"{leaf}/{name}", "-1" if value is None else str(value))
    limit = int(cgroupfs.read(base_fd, leaf + "/memory.limit_in_bytes"))
    total = cgroupfs.read_int(base_fd, leaf + "/memory.memsw.limit_in_bytes")
    if total is None or total >= _UNLIMITED:
        return (None if limit >= _UNLIMITED else limit), None
    return limit, total - limit


def set_pids(base_fd: int, leaf: str, count: int | None) -> int | None:
    """Limits the number of tasks; the limit in force."""
    cgroupfs.write(base_fd, leaf + "/pids.max", "max" if count is None else str(count))
    return cgroupfs.read_int(base_fd, leaf + "/pids.max")


def set_io(base_fd: int, leaf: str, device: str, rates: dict[str, int]) -> dict[str, int]:
    """Limits the device's rates to exactly these; those in force."""
    in_force = {}
    for ours, theirs in _RATES.items():
        path = f"{leaf}/blkio.throttle.{theirs}_device"
        cgroupfs.write(base_fd, path, f"{device} {rates.get(ours, 0)}")  # 0 is none
        lines = dict(line.split() for line in cgroupfs.read(base_fd, path).splitlines())
        if device in lines:
            in_force[ours] = int(lines[device])
    return in_force


def unenforced_rate(rate: str, *, filesystem: str) -> str:
    """Why a rate holds for a part of what it says only; "" when it holds."""
    if rate.startswith("write"):
        return "cgroup v1 does not tell whose a buffered write is: only direct and synced ones are held back"
    return ""


def set_io_weight(base_fd: int, leaf: str, weight: int | None) -> int:
    """Sets the share of disk time; the weight in force. FileNotFoundError where no kind of weight is known."""
    cgroupfs.write(base_fd, leaf + "/blkio.bfq.weight", str(weight or _WEIGHT))
    return int(cgroupfs.read(base_fd, leaf + "/blkio.bfq.weight").split()[-1])


def add_usage(controller: str, base_fd: int, leaf: str, usage: Usage, *, ended: bool) -> None:
    """Fills in what this controller counts; for a job that has ended, only what outlives its processes."""
    if controller == "memory":
        usage["memory_peak_bytes"] = cgroupfs.read_int(base_fd, leaf + "/memory.max_usage_in_bytes")
        if not ended:
            usage["memory_bytes"] = cgroupfs.read_int(base_fd, leaf + "/memory.usage_in_bytes")
        usage["oom_kills"] = cgroupfs.read_keyed(base_fd, leaf + "/memory.oom_control").get("oom_kill", 0)
    elif controller == "pids":
        usage["pids_peak"] = cgroupfs.read_int(base_fd, leaf + "/pids.peak")
        if not ended:
            usage["pids"] = cgroupfs.read_int(base_fd, leaf + "/pids.current")
    elif controller == "io":
        usage["io_read_bytes"], usage["io_write_bytes"] = _io(base_fd, leaf, "io_service_bytes")
        usage["io_read_operations"], usage["io_write_operations"] = _io(base_fd, leaf, "io_serviced")
    elif controller == "cpu":
        throttled_ns = cgroupfs.read_keyed(base_fd, leaf + "/cpu.stat").get("throttled_time", 0)
        usage["cpu_throttled_usec"] = throttled_ns // 1000


def _io(base_fd: int, leaf: str, counter: str) -> tuple[int, int]:
    read = written = 0
    for line in cgroupfs.read(base_fd, f"{leaf}/blkio.throttle.{counter}").splitlines():
        words = line.split()  # "8:0 Read 4096", …, at last "Total 4096"
        if len(words) == 3 and words[1] == "Read":
            read += int(words[2])
        elif len(words) == 3 and words[1] == "Write":
            written += int(words[2])
    return read, written
