"""Requests to the worker, encoded without the generated classes: what they are made of, and how.

A request is built once and read by nobody here, and constructing messages costs more than all the rest of a
call; so the fields are written straight to the wire. tests/client/test_requests.py holds every one of them to the
generated classes. Pure; what is not in the API's terms (an argv that is one string) is InvalidArgument here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from jobctl.errors import InvalidArgument
from jobwire.wire import field_bytes, field_varint, varint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta

    from generated.jobworker.v1 import OutputCap
    from jobctl.types import Limits

    Argument = str | os.PathLike[str]
    Seconds = float | timedelta

JOBS = "/jobworker.v1.JobService/"
WORKER = "/jobworker.v1.WorkerService/"
CLIENTS = "/jobworker.v1.ClientService/"

FOLLOW = field_varint(3, 1)  # of a StreamOutputRequest: on to the job's end


class JobOptions(TypedDict, total=False):
    """All that can be said of a job beside its argv; everything has a default.

    Times are seconds or timedeltas. `timeout` is the job's own: the worker kills its whole tree after it.
    """

    name: str
    labels: Mapping[str, str]
    env: Mapping[str, str]
    workdir: str | os.PathLike[str]
    user: str
    limits: Limits
    best_effort_limits: bool
    timeout: Seconds
    wait_for_tree: bool
    stop_signal: int
    stop_grace: Seconds
    output_cap: OutputCap


def spec(argv: Sequence[Argument], **options: Unpack[JobOptions]) -> bytes:
    """A JobSpec; raises InvalidArgument where a value cannot be sent, TypeError for an option that there is not."""
    if unknown := options.keys() - JobOptions.__annotations__.keys():
        raise TypeError(f"no option of a job: {', '.join(sorted(unknown))}")
    if isinstance(argv, (str, bytes)):
        raise InvalidArgument(
            "argv is a list of arguments, not one string",
            field="spec.argv",
            hint="for a shell: ['sh', '-c', …]",
        )
    out = [_text(1, os.fspath(argument), "spec.argv") for argument in argv]
    if name := options.get("name"):
        out.append(_text(2, name, "spec.name"))
    out += _map(3, options.get("labels"), "spec.labels")
    out += _map(4, options.get("env"), "spec.env")
    if (workdir := options.get("workdir")) is not None:
        out.append(_text(5, os.fspath(workdir), "spec.workdir"))
    if (user := options.get("user")) is not None:
        out.append(_text(6, user, "spec.user"))
    if (limits := options.get("limits")) is not None:
        out.append(field_bytes(7, _limits(limits, "spec.limits")))
    if (timeout := options.get("timeout")) is not None:
        out.append(field_bytes(8, duration(timeout, "spec.timeout")))
    if options.get("wait_for_tree"):
        out.append(field_varint(9, 1))
    if (stop_signal := options.get("stop_signal")) is not None:
        out.append(field_varint(10, whole(stop_signal, "spec.stop_signal")))
    if (stop_grace := options.get("stop_grace")) is not None:
        out.append(field_bytes(11, duration(stop_grace, "spec.stop_grace")))
    if (cap := options.get("output_cap")) is not None:
        whole(cap.max_bytes or 0, "spec.output_cap.max_bytes")
        out.append(field_bytes(12, bytes(cap)))
    if options.get("best_effort_limits"):
        out.append(field_varint(13, 1))
    return b"".join(out)


def start(job_spec: bytes, *, request_id: str, job_id: str | None = None) -> bytes:
    """A StartJobRequest, and a RunJobRequest: they are alike."""
    out = field_bytes(1, job_spec) + _text(2, request_id, "request_id")
    return out if job_id is None else out + _text(3, job_id, "job_id")


def new_request_id() -> str:
    """128 random bits in hexadecimal: what makes a repeated start the same start."""
    return os.urandom(16).hex()


def job(job_id: str) -> bytes:
    """The requests that name a job and nothing else: get, wait, delete, pause, resume."""
    return _text(1, job_id, "job_id")


def stop(job_id: str, *, signal: int | None = None, grace: Seconds | None = None) -> bytes:
    """A StopJobRequest."""
    out = job(job_id)
    if signal is not None:
        out += field_varint(2, whole(signal, "signal"))
    return out if grace is None else out + field_bytes(3, duration(grace, "grace"))


def signal_job(job_id: str, signal: int, *, tree: bool = False) -> bytes:
    """A SignalJobRequest."""
    return job(job_id) + field_varint(2, whole(signal, "signal")) + (field_varint(3, 1) if tree else b"")


def update(
    job_id: str, limits: Limits | None, *, lift: Iterable[str] = (), best_effort: bool = False
) -> bytes:
    """An UpdateJobRequest."""
    out = job(job_id)
    if limits is not None:
        out += field_bytes(2, _limits(limits, "limits"))
    if best_effort:
        out += field_varint(3, 1)
    return out + b"".join(_text(4, name, "lift") for name in lift)


def output(job_id: str, *, offset: int = 0, rest: bytes = b"") -> bytes:
    """A StreamOutputRequest; `rest` is its other fields, encoded: see `span`."""
    return job(job_id) + (field_varint(2, offset) if offset else b"") + rest


def listing(
    *,
    states: Iterable[int] = (),
    labels: Mapping[str, str] | None = None,
    owner: str = "",
    name: str = "",
    id_prefix: str = "",
    page_size: int = 0,
    page_token: str = "",
) -> bytes:
    """A ListJobsRequest."""
    chosen = b"".join(varint(whole(state, "filter.states")) for state in states)
    selection = [field_bytes(1, chosen)] if chosen else []
    selection += _map(2, labels, "filter.labels")
    for number, text in ((3, owner), (4, name), (5, id_prefix)):
        if text:
            selection.append(_text(number, text, "filter"))
    out = field_bytes(1, b"".join(selection))
    if page_size:
        out += field_varint(2, whole(page_size, "page_size"))
    return out + _text(3, page_token, "page_token") if page_token else out


def register(client_id: str, *, role: int, certificate: bytes, unix_user: str | None = None) -> bytes:
    """A RegisterClientRequest."""
    out = _text(1, client_id, "client_id") + field_varint(2, role) + field_bytes(3, certificate)
    return out if unix_user is None else out + _text(4, unix_user, "unix_user")


def client(client_id: str) -> bytes:
    """A RevokeClientRequest."""
    return _text(1, client_id, "client_id")


def duration(length: Seconds, field: str) -> bytes:
    """A google.protobuf.Duration; raises InvalidArgument unless the length is zero or more and finite."""
    seconds = length if isinstance(length, (int, float)) else getattr(length, "total_seconds", lambda: -1)()
    if not 0 <= seconds < 315_576_000_001:
        raise InvalidArgument(
            f"{field} is no length of time: {length!r}", field=field, hint="seconds from 0 on, or a timedelta"
        )
    micros = round(seconds * 1_000_000)
    whole, rest = divmod(micros, 1_000_000)
    return (field_varint(1, whole) if whole else b"") + (field_varint(2, rest * 1000) if rest else b"")


def timestamp(unix_nano: int) -> bytes:
    """A google.protobuf.Timestamp."""
    seconds, nanos = divmod(unix_nano, 1_000_000_000)
    return (field_varint(1, seconds) if seconds else b"") + (field_varint(2, nanos) if nanos else b"")


def whole(number: int, field: str) -> int:
    """The number, as a uint64 field takes it; raises InvalidArgument."""
    if not isinstance(number, int) or not 0 <= number < 1 << 64:
        raise InvalidArgument(f"{field} is no whole number from 0 on: {number!r}", field=field)
    return number


def _limits(limits: Limits, field: str) -> bytes:
    _check(limits, field)
    return bytes(limits)


def _check(message: Any, field: str) -> None:
    """Raises InvalidArgument for a number in a message that would arrive as another one, or not at all."""
    for name, meta in message._betterproto.meta_by_field_name.items():
        value, where = getattr(message, name), f"{field}.{name}"
        if meta.proto_type.startswith("uint") and value is not None:
            whole(value, where)
        elif meta.proto_type == "double" and not isinstance(value, (int, float, type(None))):
            raise InvalidArgument(f"{where} is no number: {value!r}", field=where)
        elif meta.proto_type == "message":
            for at, part in enumerate(value):
                _check(part, f"{where}[{at}]")
        elif meta.proto_type == "map":
            for key, part in value.items():
                _check(part, f"{where}[{key!r}]")


def _text(number: int, text: str, field: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidArgument(f"{field} is no text: {text!r:.60}", field=field)
    try:
        return field_bytes(number, text.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(f"{field} is not valid UTF-8: {text!r:.60}", field=field) from None


def _map(number: int, entries: Mapping[str, str] | None, field: str) -> list[bytes]:
    return [
        field_bytes(number, _text(1, key, field) + _text(2, value, field))
        for key, value in (entries or {}).items()
    ]
