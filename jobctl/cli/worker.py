"""`jobctl worker`: what the worker is and can do, and who we are to it."""

from __future__ import annotations

from datetime import UTC, datetime

from jobctl.cli import render
from jobctl.cli.describe import time, word
from jobctl.cli.session import DEFAULT, Session, show


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
            }
        )
        return 0
    controllers = ", ".join(f"{name} on {where}" for name, where in sorted(found.controllers.items()))
    show(f"{found.hostname} on {client.context.address}, jobworker {found.version}, Linux {found.kernel}")
    show(
        f"  up        {render.span(datetime.now(UTC) - found.started_at)}, supervisor is process {found.supervisor_pid}"
    )
    show(f"  jobs      {found.jobs_running} running, {found.jobs_ended} ended")
    show(f"  cgroups   {word(found.cgroup_mode)}{f' ({controllers})' if controllers else ''}")
    show(f"  you       {found.client_id}, {word(found.role)}")
    return 0
