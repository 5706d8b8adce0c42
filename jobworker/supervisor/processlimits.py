"""Limits that the kernel keeps for each process by itself: resource limits, niceness, badness when memory runs out.

Each is set for a process that is not us, read back, and inherited by what the process forks from then on. Decides
nothing about jobs. Sources: getrlimit(2), setpriority(2), proc(5).
"""

from __future__ import annotations

import contextlib
import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[int | None, int | None]

# by the name that setrlimit(2) has for it, without RLIMIT_ and in lower case; "ofile" is another word for "nofile"
RLIMITS = {
    name[7:].lower(): number
    for name, number in vars(resource).items()
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}
_PASSES = 64  # over the list of processes, until no new one has appeared


class RefusedError(Exception):
    """The kernel did not take the value; `errno` 0 when it took another one."""

    def __init__(self, errno: int, reason: str) -> None:
        super().__init__(reason)
        self.errno = errno
        self.reason = reason


def set_rlimit(pid: int, name: str, pair: Pair) -> Pair:
    """Sets a resource limit, soft and hard, None for unlimited; the one there was. RefusedError, ProcessLookupError."""
    number = RLIMITS[name]
    wanted = tuple(resource.RLIM_INFINITY if value is None else value for value in pair)
    before = _prlimit(pid, number)
    try:
        resource.prlimit(pid, number, wanted)  # type: ignore[arg-type]  # two of them
        in_force = _prlimit(pid, number)
    except ValueError as error:
        raise RefusedError(0, _first_words(error)) from error
    except PermissionError as error:
        reason = f"the worker may not raise the hard limit above {_bytes(before[1])}"
        raise RefusedError(error.errno or 0, reason) from error
    if in_force != wanted:
        raise RefusedError(0, f"{pair} was asked, {in_force} is what the kernel has in force")
    return _pair(before)


def set_nice(pid: int, value: int) -> int:
    """Sets the niceness of all threads; the first one's of before. RefusedError, ProcessLookupError."""
    before = os.getpriority(os.PRIO_PROCESS, pid)
    try:
        for thread in _threads(pid):
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, thread, value)
    except PermissionError as error:
        raise RefusedError(error.errno or 0, f"below {before} needs CAP_SYS_NICE") from error
    in_force = os.getpriority(os.PRIO_PROCESS, pid)
    if in_force != value:
        raise RefusedError(0, f"{value} was asked, {in_force} is what the kernel has in force")
    return before


def set_oom_score_adj(pid: int, value: int) -> int:
    """Sets what badness is raised by; what it was before. RefusedError, ProcessLookupError."""
    path = f"/proc/{pid}/oom_score_adj"
    try:
        before = _read(path)
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))
        in_force = _read(path)
    except PermissionError as error:
        raise RefusedError(error.errno or 0, f"below {before} needs CAP_SYS_RESOURCE") from error
    except FileNotFoundError:
        raise ProcessLookupError from None
    if in_force != value:
        raise RefusedError(0, f"{value} was asked, {in_force} is what the kernel has in force")
    return before


def for_each(pids: Callable[[], list[int]], act: Callable[[int], None]) -> int:
    """Acts on every process, those forked meanwhile included; on how many it did."""
    done: set[int] = set()
    count = 0
    for _ in range(_PASSES):
        fresh = [pid for pid in pids() if pid not in done]
        if not fresh:
            break
        for pid in fresh:
            with contextlib.suppress(ProcessLookupError):
                act(pid)
                count += 1
        done.update(fresh)
    return count


def _prlimit(pid: int, number: int) -> tuple[int, int]:
    try:
        return resource.prlimit(pid, number)
    except PermissionError as error:  # it is asked before it is set
        reason = "to reach a process of another user, the worker needs CAP_SYS_RESOURCE"
        raise RefusedError(error.errno or 0, reason) from error


def _read(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except FileNotFoundError:
        raise ProcessLookupError from None


def _pair(limits: tuple[int, int]) -> Pair:
    soft, hard = (None if value == resource.RLIM_INFINITY else value for value in limits)
    return soft, hard


def _bytes(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _first_words(error: ValueError) -> str:
    return str(error).lower() or "not a limit that the kernel takes"
