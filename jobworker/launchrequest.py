"""What the supervisor is asked for when a job is started, from the job's record.

Decides how a spec's spans are told, how much of the output is kept, and the environment of the program. Pure.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from generated.jobworker.v1 import JobRecord, Keep, OutputCap, OutputInfo
from jobworker.limits import Asked
from jobworker.records import given, make
from jobworker.runas import Identity, environment
from jobworker.supervisor import jobfacts

LONGEST_MS = 2**53 - 1  # what a JSON number holds exactly; 285,000 years
NEWEST = Keep(Keep.NEWEST)
KEEPS: dict[int, Literal["newest", "oldest", "all"]] = {
    Keep.NEWEST: "newest",
    Keep.OLDEST: "oldest",
    Keep.ALL: "all",
}
_MILLISECOND = timedelta(milliseconds=1)


def build(record: JobRecord, *, identity: Identity, scratch: str, asked: Asked) -> dict[str, object]:
    """A launch request, without its number."""
    spec, user = given(record.spec), identity.user
    timeout: timedelta | None = spec.get("timeout")
    return {
        "op": "launch",
        "job": record.job_id,
        "argv": spec["argv"],
        "env": environment(spec.get("env", {}), job_id=record.job_id, user=user, scratch=scratch),
        "workdir": spec.get("workdir"),
        "scratch": scratch,
        "uid": user.uid if identity.change else None,
        "gid": user.gid if identity.change else None,
        "limits": asked.limits,
        "best_effort": spec.get("best_effort_limits", False),
        "unenforced": asked.unenforced,
        "timeout_ms": None if timeout is None else max(1, milliseconds(timeout)),
        "wait_for_tree": spec.get("wait_for_tree", False),
        "output": _output(record.output),
    }


def cap_in_force(wanted: OutputCap | None, *, default: OutputCap | None) -> OutputCap | None:
    """How much of a job's output is kept: as its spec says, else as the worker does by default; None: all of it."""
    if wanted is None:
        return default
    if wanted.max_bytes is None:
        return None
    return make(OutputCap, max_bytes=wanted.max_bytes, keep=wanted.keep or NEWEST)


def milliseconds(span: timedelta) -> int:
    """Whole milliseconds, never less than the span, and never more than can be told."""
    return min(-(-span // _MILLISECOND), LONGEST_MS)


def _output(output: OutputInfo | None) -> jobfacts.OutputCap | None:
    cap = None if output is None else output.cap
    return None if cap is None else {"max_bytes": cap.max_bytes, "keep": KEEPS[cap.keep]}
