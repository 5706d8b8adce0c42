"""`jobctl status`: all that is known of a job, for people or for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobctl.cli import render
from jobctl.cli.describe import job_facts, word
from jobctl.cli.session import DEFAULT, Session, show
from jobctl.cli.several import each
from jobctl.ending import parse_ending

if TYPE_CHECKING:
    from jobctl.job import Job
    from jobctl.types import JobRecord


async def status(*jobs: str, session: Session = DEFAULT) -> int:
    """Tell all that is known of a job.

    Parameters
    ----------
    jobs
        Ids, beginnings of ids, or names (the newest job of that name).
    """

    async def tell(job: Job, _: str) -> None:
        record = await job.refresh()
        if session.as_json:
            session.emit(job_facts(record))
        else:
            for line in lines(record, datetime.now(UTC)):
                show(line)

    return await each(jobs, session, tell)


def lines(record: JobRecord, now: datetime) -> list[str]:
    """The record for people."""
    labels = "".join(f", label {key}={value}" for key, value in sorted(record.spec.labels.items()))
    title = f"{record.spec.name} ({record.job_id})" if record.spec.name else record.job_id
    user = "" if record.uid is None else f" as uid {record.uid}"
    rows = [
        ("command", f"{render.command(record.spec.argv)}  in {record.workdir}{user}"),
        ("state", _state(record, now)),
        ("cpu", _cpu(record)),
        ("memory", _memory(record)),
        ("pids", _pids(record)),
        ("io", _io(record)),
        ("output", _output(record)),
    ]
    return [f"{title}, owner {record.owner}{labels}", *(f"  {name:<9} {text}" for name, text in rows if text)]


def _state(record: JobRecord, now: datetime) -> str:
    if record.termination is None or record.ended_at is None:
        since = record.started_at or record.created_at
        stopping = f", stopped by {record.stopped_by}" if record.stopped_by else ""
        return f"{word(record.state)} for {render.span(now - since)}{stopping}"
    begun = record.started_at or record.created_at
    text = f"ended {render.span(now - record.ended_at)} ago after {render.span(record.ended_at - begun)}: "
    return text + parse_ending(bytes(record.termination)).words + _killed(record)


def _killed(record: JobRecord) -> str:
    ending = record.termination
    if ending is None:
        return ""
    text = ", core dumped" if ending.core_dumped else ""
    if ending.oom_kills:
        text += f", {_several(ending.oom_kills, 'process', 'processes')} killed for its memory limit"
    if ending.survivors:
        text += f", {_several(ending.survivors, 'process', 'processes')} could not be killed"
    return text


def _cpu(record: JobRecord) -> str:
    usage, limits = record.usage, record.limits_in_force
    limit = f" (limit {limits.cpus:g} cores)" if limits is not None and limits.cpus is not None else ""
    if usage is None or (usage.cpu_user_usec is None and usage.cpu_system_usec is None):
        return limit.strip(" ()")
    micros = (usage.cpu_user_usec or 0) + (usage.cpu_system_usec or 0)
    return f"{render.span(micros / 1_000_000)}{limit}"


def _memory(record: JobRecord) -> str:
    usage, limits = record.usage, record.limits_in_force
    parts = []
    if usage is not None and usage.memory_bytes is not None and record.termination is None:
        parts.append(render.size(usage.memory_bytes))
    if usage is not None and usage.memory_peak_bytes is not None:
        parts.append(f"peak {render.size(usage.memory_peak_bytes)}")
    limit = limits.memory_bytes if limits is not None else None
    return _with_limit(", ".join(parts), None if limit is None else render.size(limit))


def _pids(record: JobRecord) -> str:
    usage, limits = record.usage, record.limits_in_force
    parts = []
    if usage is not None and usage.pids is not None and record.termination is None:
        parts.append(str(usage.pids))
    if usage is not None and usage.pids_peak is not None:
        parts.append(f"peak {usage.pids_peak}")
    limit = limits.pids if limits is not None else None
    return _with_limit(", ".join(parts), None if limit is None else str(limit))


def _io(record: JobRecord) -> str:
    usage = record.usage
    if usage is None or not (usage.io_read_bytes or usage.io_write_bytes):
        return ""
    return f"read {render.size(usage.io_read_bytes or 0)}, written {render.size(usage.io_write_bytes or 0)}"


def _output(record: JobRecord) -> str:
    output = record.output
    if output is None:
        return ""
    if not (output.head or output.dropped):
        return f"{render.size(output.size)}, kept whole" if output.size else "none"
    lost = [f"the first {render.size(output.head)} are gone"] if output.head else []
    lost += [f"{render.size(output.dropped)} were not stored"] if output.dropped else []
    return ", ".join([render.size(output.size), *lost])


def _with_limit(text: str, limit: str | None) -> str:
    if limit is None:
        return text
    return f"{text} (limit {limit})" if text else f"limit {limit}"


def _several(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
