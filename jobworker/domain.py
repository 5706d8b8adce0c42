"""The parts of the server that know no network: what they are, and how they are put together.

Decides the order in which they come up, each after those that it needs, and that they go down the other way round;
with them the supervisor, when it has no job. Who asks anything of them, and over what, is not known here.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from jobworker.durability import Durability
from jobworker.jobs import Jobs
from jobworker.keeping import Keeping, keeping
from jobworker.settings import Settings
from jobworker.statedir import StateDirectory
from jobworker.store import AuditStore, ClientStore, Database, JobStore
from jobworker.supervisorlink import SupervisorLink


@dataclass(frozen=True, slots=True)
class Domain:
    """The parts that know no network."""

    state: StateDirectory
    clients: ClientStore
    audit: AuditStore
    link: SupervisorLink
    jobs: Jobs
    kept: Keeping


@asynccontextmanager
async def open_domain(settings: Settings) -> AsyncIterator[Domain]:
    """Everything that is served, in the order in which each needs the one before; closed the other way round."""
    async with AsyncExitStack() as resources:
        state = StateDirectory.open(settings.state, scratch=settings.scratch)
        resources.callback(state.close)
        durability = Durability(state)
        resources.push_async_callback(durability.close)
        loop = asyncio.get_running_loop()
        database = Database.open(state.path, loop=loop, committed=durability.record_written)
        resources.callback(database.close)
        link = SupervisorLink(state.path, cgroup_root=settings.cgroup_root)
        resources.push_async_callback(link.close)
        kept = keeping(settings)
        jobs = Jobs(state, JobStore(database), link, kept=kept, ended=durability.job_ended)
        resources.push_async_callback(_leave, jobs, link)
        await jobs.open()
        clients = ClientStore(database, uid_range=settings.uid_range)
        yield Domain(state, clients, AuditStore(database), link, jobs, kept)


async def _leave(jobs: Jobs, link: SupervisorLink) -> None:
    """Lets go of the jobs; the supervisor goes too when there are none."""
    running, _ = jobs.counts()
    await jobs.close()
    if not await link.shut_down_if_idle() and running:
        word = "1 job runs" if running == 1 else f"{running} jobs run"
        sys.stderr.write(f"{word} on under the supervisor; `jobworker serve` takes them up again\n")
