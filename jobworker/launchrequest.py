"""What the supervisor is asked for when a job is started, from the job's record.

Decides how a spec's spans and limits are told, and the environment of the program. Pure.
"""

from __future__ import annotations

from datetime import timedelta

from generated.jobworker.v1 import JobRecord, Limits
from jobworker.records import given
from jobworker.runas import Identity, environment
from jobworker.supervisor import messages

LONGEST_MS = 2**53 - 1  # what a JSON number holds exactly; 285,000 years
_MILLISECOND = timedelta(milliseconds=1)


def build(record: JobRecord, *, identity: Identity, scratch: str) -> dict[str, object]:
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
        "limits": _limits(spec.get("limits")),
        "timeout_ms": None if timeout is None else max(1, milliseconds(timeout)),
        "wait_for_tree": spec.get("wait_for_tree", False),
    }


def milliseconds(span: timedelta) -> int:
    """Whole milliseconds, never less than the span, and never more than can be told."""
    return min(-(-span // _MILLISECOND), LONGEST_MS)


def _limits(limits: Limits | None) -> messages.Limits:
    told: messages.Limits = {}
    if limits is None:
        return told
    if (cpus := limits.cpus) is not None:
        told["cpus"] = cpus
    if (memory := limits.memory_bytes) is not None:
        told["memory_bytes"] = memory
    if (pids := limits.pids) is not None:
        told["pids"] = pids
    return told
