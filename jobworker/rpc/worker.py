"""WorkerService: what this worker is and what it can do here.

Decides nothing; gathers what others know.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from generated.jobworker import v1
from jobwire import __version__
from jobworker.jobs import Jobs
from jobworker.rpc.calls import Call

MODES = {
    "v2": v1.CgroupMode(v1.CgroupMode.V2),
    "hybrid": v1.CgroupMode(v1.CgroupMode.HYBRID),
    "none": v1.CgroupMode(v1.CgroupMode.NONE),
}


@dataclass(frozen=True, slots=True)
class Host:
    """What the supervisor says of itself and the host: `mode` of MODES, controller name to "v1" or "v2"."""

    supervisor_pid: int
    mode: str
    controllers: dict[str, str]
    limits_not_enforced: list[v1.UnenforcedLimit]


class WorkerVerbs:
    """What the door calls for WorkerService. `host` is asked each time: the supervisor may be another one."""

    def __init__(
        self,
        jobs: Jobs,
        *,
        host: Callable[[], Host],
        storage: Callable[[], v1.Storage],
        started_at: datetime,
    ) -> None:
        self._jobs = jobs
        self._host = host
        self._storage = storage
        self._started_at = started_at

    async def get_worker(self, call: Call, request: v1.GetWorkerRequest) -> v1.GetWorkerResponse:
        running, ended = self._jobs.counts()
        host, system = self._host(), os.uname()
        return v1.GetWorkerResponse(
            version=__version__,
            hostname=system.nodename,
            kernel=system.release,
            cgroup_mode=MODES[host.mode],
            controllers=host.controllers,
            started_at=self._started_at,
            jobs_running=running,
            jobs_ended=ended,
            client_id=call.caller.client_id,
            role=call.caller.role,
            supervisor_pid=host.supervisor_pid,
            limits_not_enforced=host.limits_not_enforced,
            storage=self._storage(),
        )
