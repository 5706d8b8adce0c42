"""What a well-formed request is: the one border that every request passes after it was decoded.

Decides ranges, syntax, counts and known enum numbers, from the request alone: no clock, no database, no
caller. Wire types, UTF-8 and integer widths were checked while decoding. Each refusal is an
InvalidArgument that names the field as the .proto files spell it ("spec.argv[1]") and says what to do.
A request that the kernel may refuse (an argument over 128 KiB) is not refused here: the kernel's answer
is the truth. Every request class is in `CHECKS`; the door refuses to be built when one is missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NoReturn

from generated.jobworker import v1
from jobworker.errors import InvalidArgument

MAX_ENTRIES = 64  # labels of a job or a filter
MAX_VARIABLES = 4096
MAX_TEXT = 256  # characters of a label's value or a request id
MAX_PATH = 4095  # bytes, PATH_MAX without its NUL
MAX_SIGNAL = 64
MAX_SPAN = timedelta(days=3653)  # ten years: a deadline further away is a mistake
MAX_PIDS = 4_194_304  # the kernel's PID_MAX_LIMIT; pids.max refuses more
MAX_CORES = 65_536
MAX_OFFSET = 2**63 - 1  # of a file
MAX_CERTIFICATE = 64 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")
_JOB_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _refuse(field: str, reason: str, hint: str) -> NoReturn:
    raise InvalidArgument(f"{field} {reason}", field=field, hint=hint)


def _match(field: str, text: str, pattern: re.Pattern[str], hint: str) -> None:
    if not text:
        _refuse(field, "is missing", hint)
    if not pattern.fullmatch(text):
        _refuse(field, f"is not valid: {text[:80]!r}", hint)


def _name(field: str, text: str) -> None:
    _match(field, text, _NAME, "use up to 128 letters, digits, '.', '_' and '-', a letter or digit first")


def _client_id(field: str, text: str) -> None:
    _match(
        field, text, _CLIENT, "use up to 64 letters, digits, '.', '_', '-' and '@', a letter or digit first"
    )


def _user(field: str, text: str) -> None:
    _match(field, text, _USER, "give the name of a Unix user")


def _job_id(field: str, text: str) -> None:
    _match(field, text, _JOB_ID, "give the job's whole id")


def _new_job_id(field: str, text: str) -> None:
    _match(field, text, _UUID, "give a UUID in lower case, or leave it out")


def _short_text(field: str, text: str) -> None:
    if len(text) > MAX_TEXT:
        _refuse(field, f"has {len(text)} characters", f"use at most {MAX_TEXT}")
    if _CONTROL.search(text):
        _refuse(field, "holds a control character", "use printable characters only")


def _no_nul(field: str, text: str) -> None:
    if "\0" in text:
        _refuse(field, "holds a NUL byte", "no program can be given one; pass such data in a file")


def _labels(field: str, labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_ENTRIES:
        _refuse(field, f"has {len(labels)} entries", f"use at most {MAX_ENTRIES}")
    for key, value in labels.items():
        entry = f"{field}[{key[:80]!r}]"
        if not _LABEL.fullmatch(key):
            _refuse(
                entry, "has a key that is not valid", "use letters, digits, '.', '_', '-' and '/' in keys"
            )
        _short_text(entry, value)


def _environment(field: str, env: Mapping[str, str]) -> None:
    if len(env) > MAX_VARIABLES:
        _refuse(field, f"has {len(env)} entries", f"use at most {MAX_VARIABLES}")
    for key, value in env.items():
        entry = f"{field}[{key[:80]!r}]"
        if not key or "=" in key or "\0" in key:
            _refuse(entry, "has a name that is not valid", "a variable's name is not empty and has no '='")
        _no_nul(entry, value)


def _argv(field: str, argv: list[str]) -> None:
    if not argv:
        _refuse(field, "is empty", "give the program to run and its arguments")
    if not argv[0]:
        _refuse(f"{field}[0]", "is empty", "it is the program to run")
    for number, argument in enumerate(argv):
        if "\0" in argument:
            _no_nul(f"{field}[{number}]", argument)


def _workdir(field: str, path: str) -> None:
    _no_nul(field, path)
    if not path.startswith("/"):
        _refuse(field, "is not an absolute path", "begin it with '/', or leave it out")
    if len(path.encode()) > MAX_PATH:
        _refuse(field, "is too long", f"a path has at most {MAX_PATH} bytes")


def _signal(field: str, number: int) -> None:
    if not 1 <= number <= MAX_SIGNAL:
        _refuse(field, f"is {number}", f"give a signal from 1 to {MAX_SIGNAL}; 15 is SIGTERM")


def _span(field: str, span: timedelta, *, shortest: timedelta) -> None:
    if span < shortest:
        _refuse(field, f"is {span.total_seconds():g} seconds", f"give at least {shortest.total_seconds():g}")
    if span > MAX_SPAN:
        _refuse(field, f"is {span.total_seconds():g} seconds", "give ten years at most")


def _count(field: str, number: int, *, most: int) -> None:
    if not 1 <= number <= most:
        _refuse(field, f"is {number}", f"give 1 to {most}, or leave it out")


def _limits(field: str, limits: v1.Limits) -> None:
    if (cpus := limits.cpus) is not None and not (math.isfinite(cpus) and 0 < cpus <= MAX_CORES):
        _refuse(f"{field}.cpus", f"is {cpus:g}", f"give cores, above 0 and up to {MAX_CORES}")
    if (memory := limits.memory_bytes) is not None:
        _count(f"{field}.memory_bytes", memory, most=MAX_OFFSET)
    if (pids := limits.pids) is not None:
        _count(f"{field}.pids", pids, most=MAX_PIDS)


def _given(field: str, value: Any, check: Callable[[str, Any], None]) -> None:
    """Checks an optional field that is there."""
    if value is not None:
        check(field, value)


def _spec(spec: v1.JobSpec) -> None:
    _argv("spec.argv", spec.argv)
    if name := spec.name:
        _name("spec.name", name)
    _labels("spec.labels", spec.labels)
    _environment("spec.env", spec.env)
    _given("spec.workdir", spec.workdir, _workdir)
    _given("spec.user", spec.user, _user)
    _given("spec.limits", spec.limits, _limits)
    if (timeout := spec.timeout) is not None:
        _span("spec.timeout", timeout, shortest=timedelta(milliseconds=1))
    _given("spec.stop_signal", spec.stop_signal, _signal)
    if (grace := spec.stop_grace) is not None:
        _span("spec.stop_grace", grace, shortest=timedelta(0))


def _known(field: str, number: int, known: type[Any], *, zero: bool) -> None:
    """`zero`: whether UNSPECIFIED, which is 0 in every enum, may be asked for."""
    if number not in _NUMBERS[known] or (number == 0 and not zero):
        _refuse(field, f"is {int(number)}", "use one of " + _names_of(known, zero=zero))


_NUMBERS = {cls: {int(member) for member in cls} for cls in (v1.JobState, v1.Stream, v1.Role)}


def _names_of(cls: Any, *, zero: bool) -> str:
    return ", ".join(f"{member.name} ({int(member)})" for member in cls if zero or int(member))


def _start(request: v1.StartJobRequest | v1.RunJobRequest) -> None:
    _spec(request.spec)
    _short_text("request_id", request.request_id)
    _given("job_id", request.job_id, _new_job_id)


def _stop(request: v1.StopJobRequest) -> None:
    _job_id("job_id", request.job_id)
    _given("signal", request.signal, _signal)
    if (grace := request.grace) is not None:
        _span("grace", grace, shortest=timedelta(0))


def _signal_job(request: v1.SignalJobRequest) -> None:
    _job_id("job_id", request.job_id)
    _signal("signal", request.signal)


def _of_job(request: Any) -> None:
    _job_id("job_id", request.job_id)


def _list(request: v1.ListJobsRequest) -> None:
    _short_text("page_token", request.page_token)
    selection = request.filter
    if selection is None:
        return
    for number, state in enumerate(selection.states):
        _known(f"filter.states[{number}]", state, v1.JobState, zero=False)
    _labels("filter.labels", selection.labels)
    if owner := selection.owner:
        _client_id("filter.owner", owner)
    if name := selection.name:
        _name("filter.name", name)
    if prefix := selection.id_prefix:
        _match("filter.id_prefix", prefix, _JOB_ID, "give the beginning of a job's id")


def _stream(request: v1.StreamOutputRequest) -> None:
    _job_id("job_id", request.job_id)
    if (offset := request.offset) > MAX_OFFSET:
        _refuse("offset", f"is {offset}", f"give at most {MAX_OFFSET}")
    for number, stream in enumerate(request.streams):
        _known(f"streams[{number}]", stream, v1.Stream, zero=True)


def _register(request: v1.RegisterClientRequest) -> None:
    _client_id("client_id", request.client_id)
    _known("role", request.role, v1.Role, zero=False)
    if not (size := len(request.certificate)):
        _refuse("certificate", "is missing", "send the client's certificate, DER or PEM")
    if size > MAX_CERTIFICATE:
        _refuse("certificate", f"has {size} bytes", f"a certificate has at most {MAX_CERTIFICATE}")
    _given("unix_user", request.unix_user, _user)


def _revoke(request: v1.RevokeClientRequest) -> None:
    _client_id("client_id", request.client_id)


def _nothing(request: object) -> None:
    """A request without fields."""


CHECKS: dict[type[Any], Callable[[Any], None]] = {
    v1.StartJobRequest: _start,
    v1.RunJobRequest: _start,
    v1.StopJobRequest: _stop,
    v1.SignalJobRequest: _signal_job,
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
