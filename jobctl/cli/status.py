"""`jobctl status`: all that is known of a job, for people or for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobctl import types
from jobctl.cli import render, resources
from jobctl.cli.describe import job_facts, word
from jobctl.cli.session import DEFAULT, Session, show
from jobctl.cli.several import each
from jobctl.ending import parse_ending

if TYPE_CHECKING:
    from generated.jobworker.v1 import OutputCap
    from jobctl.job import Job
    from jobctl.types import JobRecord, OutputBlock, OutputInfo


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
        ("command", f"{render.command(record.spec.argv)}  in {render.plain(record.workdir)}{user}"),
        ("state", _state(record, now)),
        *resources.rows(record),
        ("output", "" if record.output is None else output(record.output)),
    ]
    return [f"{title}, owner {record.owner}{labels}", *(f"  {name:<9} {text}" for name, text in rows if text)]


def _state(record: JobRecord, now: datetime) -> str:
    if record.termination is None or record.ended_at is None:
        since = record.started_at or record.created_at
        stopping = f", stopped by {record.stopped_by}" if record.stopped_by else ""
        paused = ", paused" if record.paused else ""
        return f"{word(record.state)} for {render.span(now - since)}{stopping}{paused}"
    begun = record.started_at or record.created_at
    text = f"ended {render.span(now - record.ended_at)} ago after {render.span(record.ended_at - begun)}: "
    return text + parse_ending(bytes(record.termination)).words + _killed(record)


def _killed(record: JobRecord) -> str:
    ending = record.termination
    if ending is None:
        return ""
    text = ", core dumped" if ending.core_dumped else ""
    if ending.oom_kills:
        text += f", {_several(ending.oom_kills, 'process', 'processes')} killed for want of memory"
    if ending.survivors:
        text += f", {_several(ending.survivors, 'process', 'processes')} could not be killed"
    return text


def output(info: OutputInfo) -> str:
    """How much there is of an output, what is kept of it, and whether its job waits."""
    kept, size = info.size - info.head - info.dropped, render.size(info.size)
    if not info.size:
        text = "none"
    elif kept == info.size:
        text = f"{size}, kept whole"
    else:
        which = "oldest" if info.dropped and not info.head else "newest"
        text = f"{which} {render.size(kept)} of {size} kept"
        text += f", {render.size(info.dropped)} not stored" if info.dropped else ""
    if (most := cap(info.cap)) is not None:
        text += f" (cap {most})"
    return text + (f", {render.paint(f'waiting: {blocked(info.blocked)}', 'yellow')}" if info.blocked else "")


def cap(kept: OutputCap | None) -> str | None:
    """How much is kept in words: "512 MiB, newest kept"; None where it is not known or not capped."""
    if kept is None or kept.max_bytes is None:
        return None
    ways = {types.Keep.OLDEST: "oldest kept", types.Keep.ALL: "then it waits"}
    return f"{render.size(kept.max_bytes)}, {ways.get(kept.keep, 'newest kept')}"


def blocked(why: OutputBlock) -> str:
    """Why a job waits in its write."""
    words = {types.OutputBlock.DISK: "disk full", types.OutputBlock.CAP: "cap reached"}
    return words.get(why) or word(why)


def _several(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
