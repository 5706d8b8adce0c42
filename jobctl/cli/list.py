"""`jobctl list`: jobs, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobctl import types
from jobctl.cli import parse, render
from jobctl.cli.describe import job_facts, word
from jobctl.cli.session import DEFAULT, Session, read, read_all, show
from jobctl.ending import (
    EXITED,
    LOST,
    OOM_KILLED,
    START_FAILED,
    STOPPED,
    TIMED_OUT,
    parse_ending,
    signal_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobctl.types import JobRecord

HEAD = ("ID", "NAME", "STATE", "OWNER", "AGE", "RESULT", "COMMAND")


async def list(  # noqa: A001 - the verb
    *,
    state: tuple[str, ...] = (),
    label: tuple[str, ...] = (),
    name: str = "",
    owner: str = "",
    limit: Annotated[str | None, Parameter(name=["--limit", "-n"])] = None,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"])] = False,
    session: Session = DEFAULT,
) -> int:
    """List jobs, newest first.

    Parameters
    ----------
    state
        Only jobs that are starting, running, stopping or ended; may be repeated.
    label
        Only jobs with this KEY=VALUE; may be repeated, then all must be there.
    name
        Only jobs of this name.
    owner
        Only jobs of this client.
    limit
        At most so many.
    quiet
        Print ids only.
    """
    most = None if limit is None else read("--limit", parse.count, limit)
    states = [read("--state", _state, text) for text in state]
    labels = read_all("--label", parse.pairs, label)
    records = []
    async with session.client() as client:
        async for job in client.list(
            states=states,
            labels=labels,
            name=name,
            owner=owner,
            limit=most,
            page_size=1000,
        ):
            if session.as_json:
                session.emit(job_facts(job.record))
            elif quiet:
                show(job.id)
            else:
                records.append(job.record)
    if not session.as_json and not quiet:
        _print(records)
    return 0


def _state(text: str) -> types.JobState:
    known = [state for state in types.JobState if state]
    for state in known:
        if (state.name or "").lower() == text.lower():
            return types.JobState(state)
    raise ValueError(f"'{text}' is no state: {', '.join((state.name or '').lower() for state in known)}")


def _print(records: Sequence[JobRecord]) -> None:
    ids = render.short_ids([record.job_id for record in records])
    rows = [
        (
            short,
            record.spec.name,
            "paused" if record.paused else word(record.state),
            record.owner,
            render.age(record.created_at),
            result(record),
            _cut(render.command(record.spec.argv)),
        )
        for short, record in zip(ids, records, strict=True)
    ]
    for line in render.table(HEAD, rows, colours=[_colour(record) for record in records]):
        show(line)


def result(record: JobRecord) -> str:
    """How it ended in a word or two; empty while it runs."""
    if record.termination is None:
        return ""
    ending = parse_ending(bytes(record.termination))
    reasons = {
        STOPPED: "stopped",
        TIMED_OUT: "timed out",
        OOM_KILLED: "out of memory",
        START_FAILED: "not started",
        LOST: "lost",
    }
    if ending.reason in reasons:
        return reasons[ending.reason]
    if ending.reason == EXITED:
        return f"exit {ending.exit_code or 0}"
    return f"signal {signal_name(ending.signal or 0)}"


def _colour(record: JobRecord) -> str | None:
    if record.termination is None:
        return "green"
    return None if parse_ending(bytes(record.termination)).ok else "red"


def _cut(text: str) -> str:
    return text if len(text) <= 60 or not render.on_terminal() else text[:59] + "…"
