"""The limits of a job: set in an order in which each can be had, read back, and all of them or none.

Decides which controller holds a limit, what a value that was read back is worth, and what becomes of one that this
host cannot enforce: it is refused with the reason, or with best effort set aside and told. What is written into which
file is `cgroup_v1`'s and `cgroup_v2`'s business; how limits of single processes are set, `processlimits`'.
"""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial

from jobworker.supervisor import diskweights, processlimits
from jobworker.supervisor.processlimits import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from jobworker.supervisor.cgroup import Leaf
    from jobworker.supervisor.cgroup_none import Group
    from jobworker.supervisor.jobfacts import IoLimit, Limits, Unenforced

CONTROLLERS = {
    "cpus": "cpu",
    "cpu_weight": "cpu",
    "memory_bytes": "memory",
    "swap_bytes": "memory",
    "pids": "pids",
    "io": "io",
    "io_weight": "io",
}
RATES = (
    "read_bytes_per_second",
    "write_bytes_per_second",
    "read_operations_per_second",
    "write_operations_per_second",
)
_SIMPLE = ("cpus", "cpu_weight", "pids", "io_weight")
_MEMORY = ("memory_bytes", "swap_bytes")
_OF_EACH = {"nice": processlimits.set_nice, "oom_score_adj": processlimits.set_oom_score_adj}


class LimitError(Exception):
    """A limit cannot be had; `errno` 0 when no system call failed."""

    def __init__(self, errno: int, detail: str) -> None:
        super().__init__(detail)
        self.errno = errno
        self.detail = detail


class Limited:
    """What a job has: `in_force` as read back, and what was asked for and is not enforced."""

    __slots__ = ("in_force", "unenforced")

    def __init__(self, in_force: Limits, unenforced: list[Unenforced]) -> None:
        self.in_force = in_force
        self.unenforced = unenforced


def apply(
    leaf: Leaf | Group, pid: int, asked: Limits, *, unenforced: list[Unenforced], best_effort: bool
) -> Limited:
    """Limits a job whose one process waits for its order; LimitError names the first that cannot be had.

    `unenforced` are those of which that is known before.
    """
    if not asked:
        return Limited({}, unenforced)
    return _Change(leaf, Limited({}, unenforced), lambda: [pid], best_effort=best_effort).make(asked, lift=[])


def update(
    leaf: Leaf | Group,
    before: Limited,
    asked: Limits,
    *,
    lift: list[str],
    unenforced: list[Unenforced],
    best_effort: bool,
) -> Limited:
    """Limits a running job anew, absent ones stay; LimitError when one cannot be had: then all is as it was."""
    change = _Change(leaf, before, leaf.processes, best_effort=best_effort)
    try:
        limited = change.make(asked, lift=lift)
    except LimitError:
        change.undo()
        raise
    limited.unenforced += unenforced
    return limited


class _Change:
    """One change of a job's limits, and the way back."""

    __slots__ = ("_best_effort", "_leaf", "_limited", "_now", "_pids", "_undo")

    def __init__(
        self, leaf: Leaf | Group, before: Limited, pids: Callable[[], list[int]], *, best_effort: bool
    ) -> None:
        self._leaf = leaf
        self._pids = pids
        self._best_effort = best_effort
        self._undo: list[Callable[[], object]] = []
        self._now: dict[str, Any] = {**before.in_force}
        self._limited = Limited(self._now, list(before.unenforced))  # type: ignore[arg-type]  # by its keys

    def make(self, asked: Limits, *, lift: list[str]) -> Limited:
        told: dict[str, Any] = {**dict.fromkeys(lift), **asked}
        self._forget(told)
        for name in _SIMPLE:
            if name in told:
                self._set_simple(name, told[name])
        if memory := {name: told[name] for name in _MEMORY if name in told}:
            self._set_memory(memory)
        if "io" in lift:
            self._set_io([{"path": io["path"], "device": io["device"]} for io in self._now.get("io", ())])
        self._set_io(asked.get("io", []))
        for name, set_one in _OF_EACH.items():
            if name in told and self._set_each(name, set_one, told[name]):
                self._now[name] = told[name]
        for name, pair in told.get("rlimits", {}).items():
            if self._set_each(f"rlimits.{name}", partial(_set_rlimit, name), pair):
                self._now["rlimits"] = {**self._now.get("rlimits", {}), name: pair}
        return self._limited

    def undo(self) -> None:
        """Puts back what was changed, the last first, as far as the kernel takes it."""
        for step in reversed(self._undo):
            # the others need not be lost for one
            with contextlib.suppress(OSError, ValueError, RefusedError):
                step()

    def _forget(self, told: dict[str, Any]) -> None:
        """What is asked for anew was not refused yet."""
        names = {*told, *(f"rlimits.{name}" for name in told.get("rlimits", {}))}
        self._limited.unenforced = [
            entry
            for entry in self._limited.unenforced
            if entry["limit"] not in names and (entry["limit"].partition(".")[0] != "io" or "io" not in names)
        ]

    def _refuse(self, limit: str, reason: str, number: int = 0) -> None:
        if not self._best_effort:
            raise LimitError(number, f"{limit}: {reason}")
        self._limited.unenforced.append({"limit": limit, "reason": reason})

    def _judge(self, name: str, asked: float | None, in_force: float | None) -> None:
        """Whether what was read back is what was asked for."""
        if asked is None:
            self._now.pop(name, None)
        elif in_force is None:
            self._refuse(name, "the kernel does not have it in force")
        elif not _is_met(name, asked, in_force):
            self._refuse(name, f"{asked} was asked, {in_force} is what the kernel has in force")
        else:
            self._now[name] = in_force

    def _set_simple(self, name: str, asked: float | None) -> None:
        found = self._leaf.controller(CONTROLLERS[name])
        reason = self._leaf.why_not(CONTROLLERS[name]) if found is None else ""
        if name == "io_weight":
            reason = reason or diskweights.why_not()
        if reason or found is None:
            self._refuse(name, reason)
            return
        base_fd, files = found
        setter = partial(getattr(files, f"set_{name}"), base_fd, self._leaf.name)
        self._undo.append(partial(setter, self._now.get(name)))
        try:
            in_force = setter(asked)
        except (OSError, ValueError) as error:
            self._refuse(name, _explain(name, asked, error), _number(error))
        else:
            self._judge(name, asked, in_force)

    def _set_memory(self, told: dict[str, int | None]) -> None:
        """Memory and swap, which the kernel ties together: with limited memory goes no swap, unless it is said how much."""
        last = list(told)[-1]
        found = self._leaf.controller("memory")
        if found is None:
            for name in told:
                self._refuse(name, self._leaf.why_not("memory"))
            return
        base_fd, files = found
        wanted = {**self._now, **told}
        memory, swap = (wanted.get(name) for name in _MEMORY)
        if memory is None and swap is not None and not files.SWAP_ALONE:
            self._refuse(last, "cgroup v1 counts swap together with memory: limit both, or none")
            return
        setter = partial(files.set_memory, base_fd, self._leaf.name)
        before = self._now.get("memory_bytes"), self._now.get("swap_bytes")
        self._undo.append(lambda: setter(before[0], _swap(*before)))
        try:
            in_force = setter(memory, _swap(memory, swap))
        except (OSError, ValueError) as error:
            self._refuse(next(iter(told)), _explain(*next(iter(told.items())), error), _number(error))
            return
        for name, asked, value in zip(_MEMORY, (memory, swap), in_force, strict=True):
            if name in told:
                self._judge(name, asked, value)

    def _set_io(self, asked: list[IoLimit]) -> None:
        found = self._leaf.controller("io")
        if found is None:
            if asked:
                self._refuse("io", self._leaf.why_not("io"))
            return
        base_fd, files = found
        for entry in asked:
            setter = partial(files.set_io, base_fd, self._leaf.name, entry["device"])
            rates = _rates(entry)
            for rate in rates:
                if reason := files.unenforced_rate(rate, filesystem=entry.get("filesystem", "")):
                    self._refuse(f"io.{rate}", f"{entry['path']}: {reason}")
            before = [io for io in self._now.get("io", ()) if io["device"] == entry["device"]]
            self._undo.append(partial(setter, _rates(before[0]) if before else {}))
            try:
                in_force = setter(rates)
            except OSError as error:
                self._refuse("io", f"{entry['path']}: {_words(error)}", _number(error))
                continue
            if in_force != rates:
                self._refuse("io", f"{entry['path']}: {rates} was asked, {in_force} is in force")
            self._keep_io(entry, in_force)

    def _keep_io(self, entry: IoLimit, in_force: dict[str, int]) -> None:
        others = [io for io in self._now.pop("io", ()) if io["device"] != entry["device"]]
        if in_force:
            others.append({"path": entry["path"], "device": entry["device"], **in_force})
        if others:
            self._now["io"] = others

    def _set_each(self, limit: str, set_one: Callable[[int, Any], Any], value: Any) -> bool:
        """Sets a limit of every process; whether it holds now."""

        def act(pid: int) -> None:
            before = set_one(pid, value)
            self._undo.append(partial(set_one, pid, before))

        try:
            count = processlimits.for_each(self._pids, act)
        except RefusedError as error:
            self._refuse(limit, error.reason, error.errno)
            return False
        if not count:
            self._refuse(limit, "which processes the job has is not known")
        return bool(count)


def _set_rlimit(name: str, pid: int, pair: Any) -> Any:
    return processlimits.set_rlimit(pid, name, pair)


def _swap(memory: int | None, swap: int | None) -> int | None:
    return 0 if memory is not None and swap is None else swap


def _rates(entry: IoLimit) -> dict[str, int]:
    return {rate: entry[rate] for rate in RATES if rate in entry}  # type: ignore[literal-required]  # its keys


def _is_met(name: str, asked: float, in_force: float) -> bool:
    if name == "cpus":
        return abs(asked - in_force) <= 1e-4  # whole microseconds of a period of 100 ms
    if name in _MEMORY:
        return 0 <= asked - in_force < os.sysconf("SC_PAGESIZE") and (in_force > 0 or name == "swap_bytes")
    return asked == in_force


def _explain(name: str, asked: float | None, error: Exception) -> str:
    if name == "memory_bytes" and _number(error) == errno.EBUSY:
        return f"the job uses more than {asked}, and the kernel could not take it back"
    return f"{asked} was refused by the kernel: {_words(error)}"


def _words(error: Exception) -> str:
    number = _number(error)
    return os.strerror(number).lower() if number else str(error)


def _number(error: Exception) -> int:
    return error.errno or 0 if isinstance(error, OSError) else 0
