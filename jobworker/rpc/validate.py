"""What a well-formed request is: the one border that every request passes after it was decoded.

Decides ranges, syntax, counts and known enum numbers, from the request alone: no clock, no database, no
caller. Wire types, UTF-8 and integer widths were checked while decoding. Each refusal is an
InvalidArgument that names the field as the .proto files spell it ("spec.argv[1]") and says what to do.
A request that the kernel may refuse (an argument over 128 KiB) is not refused here: the kernel's answer
is the truth. Every request class is in `CHECKS`; the door refuses to be built when one is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from betterproto import PLACEHOLDER, Message

from generated.jobworker import v1
from jobworker.rpc import fields
from jobworker.supervisor.limits import CONTROLLERS, RATES

Check = Callable[[str, Any], None]  # the field's name and value; raises InvalidArgument


def _limits(field: str, limits: v1.Limits) -> None:
    _each(limits, _LIMITS, before=f"{field}.")


def _cap(field: str, cap: v1.OutputCap) -> None:
    _each(cap, _CAP, before=f"{field}.")


def _keep(field: str, keep: v1.Keep) -> None:
    fields.known(field, keep, v1.Keep, zero=True)


def _io(field: str, entries: Sequence[v1.IoLimit]) -> None:
    if len(entries) > fields.MAX_ENTRIES:
        fields.refuse(field, f"has {len(entries)} entries", f"use at most {fields.MAX_ENTRIES}")
    for number, entry in enumerate(entries):
        fields.workdir(f"{field}[{number}].path", entry.path)
        _each(entry, _RATES, before=f"{field}[{number}].")
        if not any(getattr(entry, rate) for rate in RATES):
            fields.refuse(f"{field}[{number}]", "has no rate", "give bytes or operations a second")


def _rlimits(field: str, limits: Mapping[str, v1.RLimit]) -> None:
    for name, limit in limits.items():
        fields.rlimit(f"{field}[{name[:80]!r}]", name, soft=limit.soft, hard=limit.hard)


def _lift(field: str, names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        if name not in CONTROLLERS:
            fields.refuse(f"{field}[{number}]", f"is {name[:80]!r}", "use one of " + ", ".join(CONTROLLERS))


def _optional(check: Check) -> Check:
    """For a field of which the empty value means that it is not there."""

    def check_given(field: str, value: Any) -> None:
        if value:
            check(field, value)

    return check_given


_RATES: dict[str, Check] = dict.fromkeys(RATES, partial(fields.count, most=fields.MAX_OFFSET))
_LIMITS: dict[str, Check] = {
    "cpus": fields.cores,
    "memory_bytes": partial(fields.count, most=fields.MAX_OFFSET),
    "pids": partial(fields.count, most=fields.MAX_PIDS),
    "swap_bytes": fields.offset,
    "io": _io,
    "cpu_weight": partial(fields.count, most=fields.MAX_WEIGHT),
    "io_weight": partial(fields.count, most=fields.MAX_WEIGHT),
    "rlimits": _rlimits,
    "nice": partial(fields.within, least=-20, most=19),
    "oom_score_adj": partial(fields.within, least=-1000, most=1000),
}
_CAP: dict[str, Check] = {"max_bytes": partial(fields.count, most=fields.MAX_CAP), "keep": _keep}
_SPEC: dict[str, Check] = {
    "argv": fields.argv,
    "name": _optional(fields.name),
    "labels": fields.labels,
    "env": fields.environment,
    "workdir": fields.workdir,
    "user": fields.user,
    "limits": _limits,
    "timeout": partial(fields.span, shortest=timedelta(milliseconds=1)),
    "stop_signal": fields.signal,
    "stop_grace": partial(fields.span, shortest=timedelta(0)),
    "output_cap": _cap,
}


def _each(message: Message, checks: Mapping[str, Check], *, before: str = "") -> None:
    """Checks the fields that were sent; past betterproto's way to an attribute, which costs microseconds each."""
    for name, value in object.__getattribute__(message, "__dict__").items():
        if name in checks and value is not None and value is not PLACEHOLDER:
            checks[name](before + name, value)


def _spec(spec: v1.JobSpec) -> None:
    if not spec.argv:
        fields.argv("spec.argv", [])
    _each(spec, _SPEC, before="spec.")


def _states(field: str, states: Sequence[v1.JobState]) -> None:
    fields.all_known(field, states, v1.JobState, zero=False)


def _streams(field: str, streams: Sequence[v1.Stream]) -> None:
    fields.all_known(field, streams, v1.Stream, zero=True)


_UPDATE: dict[str, Check] = {"limits": _limits, "lift": _lift}
_START: dict[str, Check] = {"request_id": fields.short_text, "job_id": fields.new_job_id}
_STOP: dict[str, Check] = {"signal": fields.signal, "grace": partial(fields.span, shortest=timedelta(0))}
_FILTER: dict[str, Check] = {
    "states": _states,
    "labels": fields.labels,
    "owner": _optional(fields.client_id),
    "name": _optional(fields.name),
    "id_prefix": _optional(fields.id_prefix),
}
_OUTPUT: dict[str, Check] = {
    "offset": fields.offset,
    "streams": _streams,
    "tail_lines": fields.offset,
    "tail_bytes": fields.offset,
    "until_offset": fields.offset,
}


def _start(request: v1.StartJobRequest | v1.RunJobRequest) -> None:
    _spec(request.spec)
    _each(request, _START)


def _of_job(request: Any) -> None:
    fields.job_id("job_id", request.job_id)


def _stop(request: v1.StopJobRequest) -> None:
    _of_job(request)
    _each(request, _STOP)


def _signal_job(request: v1.SignalJobRequest) -> None:
    _of_job(request)
    fields.signal("signal", request.signal)


def _update(request: v1.UpdateJobRequest) -> None:
    _of_job(request)
    _each(request, _UPDATE)
    if not (request.lift or (request.limits is not None and bytes(request.limits))):
        fields.refuse("limits", "is empty", "say which limits are to be changed")


def _list(request: v1.ListJobsRequest) -> None:
    fields.short_text("page_token", request.page_token)
    if (selection := request.filter) is not None:
        _each(selection, _FILTER, before="filter.")


def _stream(request: v1.StreamOutputRequest) -> None:
    _of_job(request)
    _each(request, _OUTPUT)
    if (end := request.until_offset) is not None:
        fields.not_before("until_offset", end, start=request.offset, start_field="offset")
    if (until := request.until) is not None and (since := request.since) is not None:
        fields.not_before("until", until, start=since, start_field="since")


def _register(request: v1.RegisterClientRequest) -> None:
    fields.client_id("client_id", request.client_id)
    fields.known("role", request.role, v1.Role, zero=False)
    fields.certificate("certificate", request.certificate)
    if (user := request.unix_user) is not None:
        fields.user("unix_user", user)


def _revoke(request: v1.RevokeClientRequest) -> None:
    fields.client_id("client_id", request.client_id)


def _nothing(request: object) -> None:
    """A request without fields."""


CHECKS: dict[type[Any], Callable[[Any], None]] = {
    v1.StartJobRequest: _start,
    v1.RunJobRequest: _start,
    v1.StopJobRequest: _stop,
    v1.SignalJobRequest: _signal_job,
    v1.PauseJobRequest: _of_job,
    v1.ResumeJobRequest: _of_job,
    v1.UpdateJobRequest: _update,
    v1.GetJobRequest: _of_job,
    v1.ListJobsRequest: _list,
    v1.WaitJobRequest: _of_job,
    v1.StreamOutputRequest: _stream,
    v1.DeleteJobRequest: _of_job,
    v1.GetWorkerRequest: _nothing,
    v1.RegisterClientRequest: _register,
    v1.ListClientsRequest: _nothing,
    v1.RevokeClientRequest: _revoke,
}


def check(request: Any) -> None:
    """Raises InvalidArgument when the request is not well-formed; knows every request class."""
    CHECKS[type(request)](request)
