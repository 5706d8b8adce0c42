"""Job records made and changed: from a request, from the supervisor's answers, from an exit record.

Decides which fact becomes which field, and asks lifecycle whether the state may change so; an illegal move
raises before anything was written. Pure: times are given, in nanoseconds since 1970 UTC. Messages are made
through the codec and filled past betterproto's constructor, which costs more than all the rest.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

import betterproto
from betterproto import PLACEHOLDER

from generated.jobworker.v1 import (
    EndReason,
    JobRecord,
    JobSpec,
    Limits,
    OutputBlock,
    OutputCap,
    OutputInfo,
    Pressure,
    StartFailure,
    StartStage,
    Termination,
    UnenforcedLimit,
    Usage,
)
from jobwire.codec import decode
from jobwire.scalars import EPOCH, MICROSECOND
from jobworker.lifecycle import LOST, START_FAILED, STARTING, STOPPED, Event, advance, end_reason
from jobworker.supervisor import jobfacts

M = TypeVar("M", bound=betterproto.Message)

STAGES: dict[str, StartStage] = {str(stage.name).lower(): StartStage(stage) for stage in StartStage if stage}
PRESSURES = ("cpu_pressure", "memory_pressure", "io_pressure")
SETUP = StartStage(StartStage.SETUP)
NOT_BLOCKED = OutputBlock(OutputBlock.UNSPECIFIED)
BLOCKS = {"disk": OutputBlock(OutputBlock.DISK), "cap": OutputBlock(OutputBlock.CAP)}


def make(cls: type[M], **values: Any) -> M:
    """A message with these fields; the types of the values are not checked."""
    message = decode(cls, b"")
    fields(message).update(values)
    return message


def fields(message: betterproto.Message) -> dict[str, Any]:
    """A message's own dictionary, past betterproto's attribute access, which costs 1 to 40 µs a field."""
    own: dict[str, Any] = object.__getattribute__(message, "__dict__")
    return own


def given(message: betterproto.Message) -> dict[str, Any]:
    """The fields that hold something, by name."""
    return {name: value for name, value in fields(message).items() if value is not PLACEHOLDER}


def moment(unix_nano: int) -> datetime:
    """The time as records hold it, to the microsecond."""
    return EPOCH + timedelta(microseconds=unix_nano // 1000)


def unix_nano(moment: datetime) -> int:
    """The time as indexes and clocks count it: nanoseconds since 1970 UTC."""
    return (moment - EPOCH) // MICROSECOND * 1000


def accept(
    job_id: str, *, owner: str, spec: JobSpec, unix_nano: int, workdir: str, cap: OutputCap | None = None
) -> JobRecord:
    """The record of a job that has just been accepted; `cap` is the one in force."""
    return make(
        JobRecord,
        job_id=job_id,
        owner=owner,
        spec=spec,
        state=STARTING,
        created_at=moment(unix_nano),
        workdir=workdir,
        output=None if cap is None else make(OutputInfo, size=0, head=0, dropped=0, cap=cap),
    )


def launched(record: JobRecord, *, pid: int, started_ns: int) -> None:
    """The program runs."""
    state = advance(fields(record)["state"], Event.LAUNCHED)
    fields(record).update(state=state, pid=pid, started_at=moment(started_ns))


def limited(record: JobRecord, in_force: Limits | None, unenforced: list[UnenforcedLimit]) -> None:
    """The limits as the kernel has them, and those that were asked for and it has not."""
    fields(record).update(limits_in_force=in_force, limits_not_in_force=unenforced)


def paused(record: JobRecord, *, now: bool) -> None:
    """Whether none of the job's processes is to run."""
    fields(record)["paused"] = now


def stop_asked(record: JobRecord, *, by: str | None, unix_nano: int) -> None:
    """Somebody asked for the job's end; the first who did is remembered."""
    state = advance(fields(record)["state"], Event.STOP_ASKED)
    if fields(record)["stopped_at"] is None:
        fields(record).update(stopped_by=by, stopped_at=moment(unix_nano))
    fields(record).update(state=state, paused=False)  # it goes on, to take the signal


def start_failed(record: JobRecord, *, stage: StartStage, errno: int, detail: str, unix_nano: int) -> None:
    """The program was not, and will never be, executed."""
    state = advance(fields(record)["state"], Event.LAUNCH_FAILED)
    failure = make(StartFailure, stage=stage, errno=errno, detail=detail)
    termination = make(Termination, reason=START_FAILED, start_failure=failure)
    fields(record).update(state=state, ended_at=moment(unix_nano), termination=termination)


def finished(record: JobRecord, facts: jobfacts.ExitRecord) -> None:
    """The job has ended as its exit record tells."""
    state = advance(fields(record)["state"], Event.FINISHED)
    reason = end_reason(facts)
    termination = make(
        Termination,
        reason=reason,
        exit_code=facts["exit_code"],
        signal=facts["signal"],
        core_dumped=facts["core_dumped"],
        stopped_by=fields(record)["stopped_by"] if reason == STOPPED else None,
        start_failure=_failure(facts["start_failure"]),
        oom_kills=facts["oom_kills"],
        survivors=facts["survivors"],
    )
    started_ns = facts["started_ns"]
    fields(record).update(
        state=state,
        pid=None,
        started_at=None if started_ns is None else moment(started_ns),
        ended_at=moment(facts["ended_ns"]),
        termination=termination,
        usage=_usage(facts["usage"]),
        paused=False,
        output=recorded(record, _output(facts)),
    )


def lost(record: JobRecord, *, output: jobfacts.Output | None, unix_nano: int) -> None:
    """Nobody can tell any more how the job ended; what is known of its output stays."""
    state = advance(fields(record)["state"], Event.LOST_SIGHT)
    fields(record).update(
        state=state,
        pid=None,
        ended_at=moment(unix_nano),
        termination=make(Termination, reason=LOST),
        output=None if output is None else recorded(record, output),
    )


def running(record: JobRecord, *, usage: jobfacts.Usage | None, output: jobfacts.Output | None) -> None:
    """What a running job has used and written until now."""
    if usage is not None:
        fields(record)["usage"] = _usage(usage)
    if output is not None:
        fields(record)["output"] = recorded(record, output)


def recorded(record: JobRecord, output: jobfacts.Output) -> OutputInfo:
    """What there is of the job's output, with the cap that the record says is in force."""
    blocked = BLOCKS.get(output["blocked"] or "", NOT_BLOCKED)
    size, head, dropped = output["size"], output["head"], output["dropped"]
    before: OutputInfo | None = fields(record)["output"]
    cap = None if before is None else fields(before)["cap"]
    return make(OutputInfo, size=size, head=head, dropped=dropped, cap=cap, blocked=blocked)


def reason_of(record: JobRecord) -> EndReason | None:
    """Why the job ended; None while it has not."""
    termination: Termination | None = fields(record)["termination"]
    return None if termination is None else termination.reason


def _output(facts: jobfacts.ExitRecord) -> jobfacts.Output:
    """Exit records of before there were caps tell the size alone."""
    head, dropped = facts.get("output_head", 0), facts.get("output_dropped", 0)
    return {"size": facts["output_bytes"] + dropped, "head": head, "dropped": dropped, "blocked": None}


def _usage(usage: jobfacts.Usage) -> Usage:
    values: dict[str, object] = {**usage}
    for name in PRESSURES:
        if (pressure := values.get(name)) is not None:
            values[name] = make(Pressure, **cast("dict[str, object]", pressure))
    return make(Usage, **values)


def _failure(failure: jobfacts.StartFailure | None) -> StartFailure | None:
    if failure is None:
        return None
    stage = STAGES.get(failure["stage"], SETUP)
    return make(StartFailure, stage=stage, errno=failure["errno"], detail=failure["detail"])
