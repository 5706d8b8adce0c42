"""Records as JSON for programs and as text for people: what `status`, `list`, `wait` and `-o json` print.

One place for the names and forms that programs rely on: snake_case, states and reasons in lower case, times in RFC 3339,
sizes in bytes; what is not known is left out.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from jobctl import types
from jobctl.answers import message
from jobctl.cli.failure import note
from jobctl.ending import parse_ending, signal_name
from jobctl.events import Chunk, End, Event, Gap, Position, Started

if TYPE_CHECKING:
    import betterproto

    from generated.jobworker.v1 import OutputCap
    from jobctl.errors import Unavailable

Facts = dict[str, object]


def job_facts(record: types.JobRecord) -> Facts:
    """A record for programs."""
    spec = record.spec
    return without_none(
        {
            "id": record.job_id,
            "name": spec.name or None,
            "state": word(record.state),
            "owner": record.owner,
            "argv": list(spec.argv),
            "labels": dict(spec.labels),
            "workdir": record.workdir or None,
            "uid": record.uid,
            "pid": record.pid,
            "created_at": time(record.created_at),
            "started_at": time(record.started_at),
            "ended_at": time(record.ended_at),
            "stopped_by": record.stopped_by,
            "stopped_at": time(record.stopped_at),
            "timeout_seconds": spec.timeout.total_seconds() if spec.timeout is not None else None,
            "result": ending_facts(record.termination) if record.termination is not None else None,
            "usage": numbers(record.usage),
            "limits": numbers(spec.limits),
            "limits_in_force": numbers(record.limits_in_force),
            "limits_not_in_force": [numbers(entry) for entry in record.limits_not_in_force] or None,
            "paused": record.paused or None,
            "output_cap": cap_facts(spec.output_cap),
            "output": output_facts(record.output),
        }
    )


def ending_facts(termination: types.Termination) -> Facts:
    """The end of a job for programs; `exit_status` is what a shell would say."""
    failure = termination.start_failure
    return without_none(
        {
            "reason": word(termination.reason),
            "exit_code": termination.exit_code,
            "signal": None if termination.signal is None else signal_name(termination.signal),
            "core_dumped": termination.core_dumped or None,
            "stopped_by": termination.stopped_by,
            "oom_kills": termination.oom_kills or None,
            "survivors": termination.survivors or None,
            "exit_status": parse_ending(bytes(termination)).status,
            "start_failure": None
            if failure is None
            else {"stage": word(failure.stage), "errno": failure.errno, "detail": failure.detail},
        }
    )


def cap_facts(cap: OutputCap | None) -> Facts | None:
    """How much of an output is kept, for programs; no `max_bytes`: all of it."""
    if cap is None:
        return None
    return without_none({"max_bytes": cap.max_bytes, "keep": word(types.Keep(cap.keep or types.Keep.NEWEST))})


def output_facts(output: types.OutputInfo | None) -> Facts | None:
    """What is recorded of an output, for programs; `blocked` only while the job waits for it: "disk" or "cap"."""
    if output is None:
        return None
    return without_none(
        {
            "size": output.size,
            "head": output.head,
            "dropped": output.dropped,
            "cap": cap_facts(output.cap),
            "blocked": word(output.blocked) if output.blocked else None,
        }
    )


def storage_facts(storage: types.Storage | None) -> Facts | None:
    """Where output is stored, for programs; limits that there are not are left out."""
    if storage is None:
        return None
    kept = storage.retention
    return without_none(
        {
            "ended_bytes": storage.ended_bytes,
            "free_bytes": storage.free_bytes,
            "blocked_jobs": storage.blocked_jobs,
            "retention": without_none(
                {
                    "max_bytes": kept.max_bytes,
                    "max_age_seconds": None if kept.max_age is None else kept.max_age.total_seconds(),
                    "max_jobs": kept.max_jobs,
                }
            ),
            "default_cap": cap_facts(storage.default_cap),
        }
    )


def client_facts(record: types.ClientRecord) -> Facts:
    """A registered client for programs."""
    return without_none(
        {
            "id": record.client_id,
            "role": word(record.role),
            "public_key_sha256": record.public_key_sha256.hex(),
            "registered_at": time(record.registered_at),
            "revoked_at": time(record.revoked_at),
            "unix_user": record.unix_user,
            "uid": record.uid,
        }
    )


def numbers(part: types.Usage | types.Limits | types.UnenforcedLimit | None) -> Facts | None:
    """The fields of a message of numbers and words, those that are set; messages inside it alike."""
    if part is None:
        return None
    values = {name: _value(getattr(part, name)) for name in type(part).__dataclass_fields__}
    return without_none({name: value for name, value in values.items() if value not in ([], {}, "")})


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, dict):
        return {key: _value(each) for key, each in value.items()}
    return numbers(value) if hasattr(value, "__dataclass_fields__") else value


def word(value: betterproto.Enum) -> str:
    """An enum's value in lower case; its number when it is newer than this client."""
    return (value.name or str(int(value))).lower()


def time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def without_none(facts: Facts) -> Facts:
    """What is known."""
    return {name: value for name, value in facts.items() if value is not None}


class JsonLines:
    """Events as JSON objects, one a line; bytes in base64, for output is not always text."""

    def __init__(self, out: TextIO, *, verbose: bool = False) -> None:
        self._out = out
        self._verbose = verbose

    async def show(self, event: Event) -> None:
        """Prints the event at once: whoever reads may be waiting for it."""
        self._out.write(json.dumps(event_facts(event), ensure_ascii=False) + "\n")
        self._out.flush()

    def notice(self, error: Unavailable) -> None:
        """Said only when asked."""
        if self._verbose:
            note(f"{error}; going on at the next byte")

    def note(self, text: str) -> None:
        """As people are told it: it is no data."""
        note(text)

    async def finish(self) -> None:
        """Nothing was held back."""


def event_facts(event: Event) -> Facts:
    """An event for programs."""
    match event:
        case Chunk():
            return {
                "event": "chunk",
                "stream": event.stream.name.lower(),
                "offset": event.offset,
                "time": time(event.time),
                "data": base64.b64encode(event.data).decode(),
            }
        case Gap():
            return {
                "event": "gap",
                "start": event.start,
                "end": event.end,
                "reason": (event.reason.name or "").lower(),
            }
        case Position():
            return {"event": "position", "offset": event.offset}
        case Started():
            return {"event": "started", "job": job_facts(message(types.JobRecord, event.record))}
        case End():
            termination = None if event.termination is None else message(types.Termination, event.termination)
            usage = None if event.usage is None else message(types.Usage, event.usage)
            return without_none(
                {
                    "event": "end",
                    "final_offset": event.final_offset,
                    "result": None if termination is None else ending_facts(termination),
                    "usage": numbers(usage),
                }
            )
