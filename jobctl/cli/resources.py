"""What a job uses beside what it may use, as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobctl.cli import render

if TYPE_CHECKING:
    from jobctl.types import IoLimit, JobRecord, Limits, Pressure, RLimit, Usage

    Row = tuple[str, str]

_WORTH_TELLING_USEC = 50_000  # less is shown as 0 s
_RATES = (
    ("read_bytes_per_second", "read {}/s", render.size),
    ("write_bytes_per_second", "write {}/s", render.size),
    ("read_operations_per_second", "{} reads/s", str),
    ("write_operations_per_second", "{} writes/s", str),
)


def rows(record: JobRecord) -> list[Row]:
    """Name and text of each line; those that have nothing to say are left out."""
    from jobctl import types  # noqa: PLC0415 - whoever has a record has loaded them

    usage, limits = record.usage or types.Usage(), record.limits_in_force or types.Limits()
    runs = record.termination is None
    found = [
        ("cpu", _cpu(usage, limits)),
        ("memory", _memory(usage, limits, runs=runs)),
        ("pids", _pids(usage, limits, runs=runs)),
        ("io", _io(usage, limits)),
        ("waited", _waited(usage)),
        ("each", _of_each(limits)),
        *(("unlimited", f"{entry.limit}: {entry.reason}") for entry in record.limits_not_in_force),
    ]
    return [(name, render.plain(text)) for name, text in found if text]


def _cpu(usage: Usage, limits: Limits) -> str:
    parts = []
    if usage.cpu_user_usec is not None or usage.cpu_system_usec is not None:
        parts.append(_time((usage.cpu_user_usec or 0) + (usage.cpu_system_usec or 0)))
    told = [] if limits.cpus is None else [f"limit {limits.cpus:g} cores"]
    if limits.cpus is not None and usage.cpu_throttled_usec:
        told.append(f"throttled {_time(usage.cpu_throttled_usec)}")
    if limits.cpu_weight is not None:
        told.append(f"weight {limits.cpu_weight}")
    return _beside(parts, told)


def _memory(usage: Usage, limits: Limits, *, runs: bool) -> str:
    parts = [render.size(usage.memory_bytes)] if runs and usage.memory_bytes is not None else []
    if usage.memory_peak_bytes is not None:
        parts.append(f"peak {render.size(usage.memory_peak_bytes)}")
    told = [] if limits.memory_bytes is None else [f"limit {render.size(limits.memory_bytes)}"]
    if limits.swap_bytes is not None:
        told.append(f"swap {render.size(limits.swap_bytes)}")
    return _beside(parts, told)


def _pids(usage: Usage, limits: Limits, *, runs: bool) -> str:
    parts = [str(usage.pids)] if runs and usage.pids is not None else []
    if usage.pids_peak is not None:
        parts.append(f"peak {usage.pids_peak}")
    return _beside(parts, [] if limits.pids is None else [f"limit {limits.pids}"])


def _io(usage: Usage, limits: Limits) -> str:
    parts = []
    if usage.io_read_bytes or usage.io_write_bytes:
        parts.append(
            f"read {render.size(usage.io_read_bytes or 0)}{_times(usage.io_read_operations, 'read')}"
        )
        parts.append(
            f"written {render.size(usage.io_write_bytes or 0)}{_times(usage.io_write_operations, 'write')}"
        )
    told = [f"limit {_io_limit(entry)}" for entry in limits.io]
    if limits.io_weight is not None:
        told.append(f"weight {limits.io_weight}")
    return _beside(parts, told)


def _io_limit(entry: IoLimit) -> str:
    values = ((text, unit, getattr(entry, name)) for name, text, unit in _RATES)
    rates = [text.format(unit(value)) for text, unit, value in values if value is not None]
    return f"{' and '.join(rates)} on the disk of {entry.path}"


def _waited(usage: Usage) -> str:
    needs = (
        ("a processor", usage.cpu_pressure),
        ("memory", usage.memory_pressure),
        ("disks", usage.io_pressure),
    )
    return ", ".join(
        f"{_time(lost.some_usec)} for {need}" for need, lost in needs if lost and _is_worth(lost)
    )


def _is_worth(pressure: Pressure) -> bool:
    return pressure.some_usec >= _WORTH_TELLING_USEC


def _of_each(limits: Limits) -> str:
    told = [f"{name} {_rlimit(limit)}" for name, limit in sorted(limits.rlimits.items())]
    if limits.nice is not None:
        told.append(f"nice {limits.nice}")
    if limits.oom_score_adj is not None:
        told.append(f"oom score {limits.oom_score_adj:+d}")
    return ("limit " if told else "") + ", ".join(told)


def _rlimit(limit: RLimit) -> str:
    soft, hard = ("unlimited" if value is None else str(value) for value in (limit.soft, limit.hard))
    return soft if soft == hard else f"{soft} (hard {hard})"


def _times(count: int | None, what: str) -> str:
    return "" if not count else f" in {count:,} {what}{'' if count == 1 else 's'}"


def _time(micros: int) -> str:
    return render.span(micros / 1_000_000)


def _beside(use: list[str], limits: list[str]) -> str:
    told = ", ".join(limits)
    if not use:
        return told
    return ", ".join(use) + (f" ({told})" if told else "")
