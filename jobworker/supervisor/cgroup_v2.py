"""Controllers of cgroup2: limits and counters, in the job's directory of the one tree.

The counterpart of `cgroup_v1`, function by function; which of the two a controller is on is decided
elsewhere, and what a value that comes back is worth too. A limit of None is lifted.
Source: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib

from jobworker.supervisor import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.jobfacts import Usage

SWAP_ALONE = True  # whether swap is counted by itself, not as a part of memory and swap
_PERIOD_USEC = 100_000
_WEIGHT = 100  # what a cgroup has by itself
_RATES = {  # ours → io.max's
    "read_bytes_per_second": "rbps",
    "write_bytes_per_second": "wbps",
    "read_operations_per_second": "riops",
    "write_operations_per_second": "wiops",
}
# file systems that tell whose a buffered write is ("Writeback" in the document above, and fs/*/super.c: SB_I_CGROUPWB)
_OWNED_WRITES = ("btrfs", "ext2", "ext4", "f2fs", "xfs")
_COUNTERS = ("rbytes", "wbytes", "rios", "wios")


def set_cpus(base_fd: int, leaf: str, cpus: float | None) -> float | None:
    """Limits cpu time to `cpus` seconds a second; the limit in force. The kernel refuses less than 0.01."""
    quota = "max" if cpus is None else str(round(cpus * _PERIOD_USEC))
    cgroupfs.write(base_fd, leaf + "/cpu.max", f"{quota} {_PERIOD_USEC}")
    quota, period = cgroupfs.read(base_fd, leaf + "/cpu.max").split()
    return None if quota == "max" else int(quota) / int(period)


def set_cpu_weight(base_fd: int, leaf: str, weight: int | None) -> int:
    """Sets the share of the processors; the weight in force."""
    cgroupfs.write(base_fd, leaf + "/cpu.weight", str(weight or _WEIGHT))
    return int(cgroupfs.read(base_fd, leaf + "/cpu.weight"))


def set_memory(
    base_fd: int, leaf: str, memory: int | None, swap: int | None
) -> tuple[int | None, int | None]:
    """Limits memory and swap in bytes; both in force, in whole pages. The second is None where swap is not counted."""
    cgroupfs.write(base_fd, leaf + "/memory.max", _number(memory))
    with contextlib.suppress(FileNotFoundError):
        cgroupfs.write(base_fd, leaf + "/memory.swap.max", _number(swap))
    return (
        cgroupfs.read_int(base_fd, leaf + "/memory.max"),
        cgroupfs.read_int(base_fd, leaf + "/memory.swap.max"),
    )


def set_pids(base_fd: int, leaf: str, count: int | None) -> int | None:
    """Limits the number of tasks; the limit in force."""
    cgroupfs.write(base_fd, leaf + "/pids.max", _number(count))
    return cgroupfs.read_int(base_fd, leaf + "/pids.max")


def set_io(base_fd: int, leaf: str, device: str, rates: dict[str, int]) -> dict[str, int]:
    """Limits the device's rates to exactly these; those in force."""
    told = " ".join(f"{theirs}={rates.get(ours, 'max')}" for ours, theirs in _RATES.items())
    cgroupfs.write(base_fd, leaf + "/io.max", f"{device} {told}")
    for line in cgroupfs.read(base_fd, leaf + "/io.max").splitlines():
        number, *pairs = line.split()
        if number == device:
            values = dict(pair.split("=") for pair in pairs)
            return {ours: int(values[theirs]) for ours, theirs in _RATES.items() if values[theirs] != "max"}
    return {}


def unenforced_rate(rate: str, *, filesystem: str) -> str:
    """Why a rate holds for a part of what it says only; "" when it holds. `filesystem` is "" for a device itself."""
    if rate.startswith("write") and filesystem and filesystem not in _OWNED_WRITES:
        return f"{filesystem} does not tell whose a buffered write is: only direct ones are held back"
    return ""


def set_io_weight(base_fd: int, leaf: str, weight: int | None) -> int:
    """Sets the share of disk time; the weight in force. FileNotFoundError where no kind of weight is known."""
    name = "io.weight" if cgroupfs.exists(base_fd, leaf + "/io.weight") else "io.bfq.weight"
    cgroupfs.write(base_fd, f"{leaf}/{name}", f"default {weight or _WEIGHT}")
    return int(cgroupfs.read(base_fd, f"{leaf}/{name}").split()[1])


def add_usage(controller: str, base_fd: int, leaf: str, usage: Usage, *, ended: bool) -> None:
    """Fills in what this controller counts; for a job that has ended, only what outlives its processes."""
    if controller == "memory":
        usage["memory_peak_bytes"] = cgroupfs.read_int(base_fd, leaf + "/memory.peak")
        if not ended:
            usage["memory_bytes"] = cgroupfs.read_int(base_fd, leaf + "/memory.current")
        usage["oom_kills"] = cgroupfs.read_keyed(base_fd, leaf + "/memory.events").get("oom_kill", 0)
    elif controller == "pids":
        usage["pids_peak"] = cgroupfs.read_int(base_fd, leaf + "/pids.peak")
        if not ended:
            usage["pids"] = cgroupfs.read_int(base_fd, leaf + "/pids.current")
    elif controller == "io":
        counted = _io(base_fd, leaf)
        usage["io_read_bytes"], usage["io_write_bytes"] = counted["rbytes"], counted["wbytes"]
        usage["io_read_operations"], usage["io_write_operations"] = counted["rios"], counted["wios"]


def add_cpu(base_fd: int, leaf: str, usage: Usage) -> None:
    """Fills in cpu time, which cgroup2 counts with no controller at all, and what the controller adds to it."""
    stat = cgroupfs.read_keyed(base_fd, leaf + "/cpu.stat")
    usage["cpu_user_usec"] = stat.get("user_usec", 0)
    usage["cpu_system_usec"] = stat.get("system_usec", 0)
    usage["cpu_throttled_usec"] = stat.get("throttled_usec")


def add_pressure(base_fd: int, leaf: str, usage: Usage) -> None:
    """Fills in how long the job's processes waited, where the kernel counts it (Documentation/accounting/psi.rst)."""
    for name in ("cpu", "memory", "io"):
        with contextlib.suppress(OSError, ValueError):
            text = cgroupfs.read(base_fd, f"{leaf}/{name}.pressure")
            lines = {words[0]: dict(word.split("=") for word in words[1:]) for words in _words(text)}
            none = {"total": "0", "avg10": "0"}  # older kernels have no "full" for cpu
            some, full = lines["some"], lines.get("full", none)
            usage[f"{name}_pressure"] = {  # type: ignore[literal-required]  # one of the three
                "some_usec": int(some["total"]),
                "full_usec": int(full["total"]),
                "some_avg10": float(some["avg10"]),
                "full_avg10": float(full["avg10"]),
            }


def freeze(base_fd: int, leaf: str, *, frozen: bool) -> None:
    """Stops all processes where they are, or lets them go on."""
    cgroupfs.write(base_fd, leaf + "/cgroup.freeze", "1" if frozen else "0")


def _number(value: int | None) -> str:
    return "max" if value is None else str(value)


def _words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def _io(base_fd: int, leaf: str) -> dict[str, int]:
    totals = dict.fromkeys(_COUNTERS, 0)
    for word in cgroupfs.read(base_fd, leaf + "/io.stat").split():  # "8:0 rbytes=4096 wbytes=0 …"
        key, _, value = word.partition("=")
        if key in totals:
            totals[key] += int(value)
    return totals
