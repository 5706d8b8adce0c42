"""`jobctl worker`: what the worker is and can do, and who we are to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobctl.cli import render
from jobctl.cli.describe import numbers, storage_facts, time, word
from jobctl.cli.session import DEFAULT, Session, show
from jobctl.cli.status import cap

if TYPE_CHECKING:
    from jobctl.types import Retention, Storage


async def worker(*, session: Session = DEFAULT) -> int:
    """Tell what the worker is and can do."""
    async with session.client() as client:
        found = await client.worker()
    if session.as_json:
        session.emit(
            {
                "version": found.version,
                "hostname": found.hostname,
                "kernel": found.kernel,
                "address": client.context.address,
                "cgroup_mode": word(found.cgroup_mode),
                "controllers": dict(found.controllers),
                "started_at": time(found.started_at),
                "jobs_running": found.jobs_running,
                "jobs_ended": found.jobs_ended,
                "client_id": found.client_id,
                "role": word(found.role),
                "supervisor_pid": found.supervisor_pid,
                "limits_not_enforced": [numbers(entry) for entry in found.limits_not_enforced],
            }
            | ({} if found.storage is None else {"storage": storage_facts(found.storage)})
        )
        return 0
    controllers = ", ".join(f"{name} on {where}" for name, where in sorted(found.controllers.items()))
    show(f"{found.hostname} on {client.context.address}, jobworker {found.version}, Linux {found.kernel}")
    show(
        f"  up        {render.span(datetime.now(UTC) - found.started_at)}, supervisor is process {found.supervisor_pid}"
    )
    show(f"  jobs      {found.jobs_running} running, {found.jobs_ended} ended")
    show(f"  cgroups   {word(found.cgroup_mode)}{f' ({controllers})' if controllers else ''}")
    for entry in found.limits_not_enforced:
        show(f"  refuses   {entry.limit}: {entry.reason}")
    for line in storage_lines(found.storage) if found.storage else ():
        show(line)
    show(f"  you       {found.client_id}, {word(found.role)}")
    return 0


def storage_lines(storage: Storage) -> list[str]:
    """Where output is stored, what is kept there, and a warning when the disk refuses more."""
    lines = [
        f"  storage   {render.size(storage.free_bytes)} free, {render.size(storage.ended_bytes)} used by ended jobs",
        f"  keeps     {_kept(storage.retention)}; of a job's output {cap(storage.default_cap) or 'all'}",
    ]
    if storage.blocked_jobs:
        jobs = f"{storage.blocked_jobs} job{'s wait' if storage.blocked_jobs > 1 else ' waits'}"
        lines.append(render.paint(f"  warning   {jobs} to write output: disk full", "yellow"))
    return lines


def _kept(retention: Retention) -> str:
    """What is kept of ended jobs."""
    limits = [
        "" if retention.max_bytes is None else render.size(retention.max_bytes),
        "" if retention.max_age is None else render.span(retention.max_age),
        "" if retention.max_jobs is None else f"{retention.max_jobs:,} jobs",
    ]
    return f"ended jobs up to {', '.join(filter(None, limits))}" if any(limits) else "all ended jobs"
