"""The worker without its network: real state, database and supervisor, and `Jobs` on top, in this process.

A server that is closed, or crashes, and is opened again is a new `Jobs` on the same directory; the supervisor
and its jobs go on meanwhile, as they do in life.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from generated.jobworker.v1 import EndReason, JobRecord, JobSpec
from jobworker.jobs import Jobs
from jobworker.keeping import EVERYTHING, Keeping
from jobworker.policy import ADMIN, OPERATOR, VIEWER, Caller
from jobworker.statedir import StateDirectory
from jobworker.store import Database, JobStore
from jobworker.supervisorlink import SupervisorLink
from tests.harness import processes

PATIENCE = 30.0  # seconds
NO_SUCH_JOB = "01990000-0000-7000-8000-000000000000"

ALICE = Caller("alice", OPERATOR, uid=61184)
BOB = Caller("bob", OPERATOR, uid=61185)
CAROL = Caller("carol", VIEWER, uid=61186)
ROOT = Caller("root", ADMIN, uid=61187)


class Domain:
    """One state directory; `jobs` while it is open."""

    state: StateDirectory
    database: Database
    link: SupervisorLink
    jobs: Jobs

    def __init__(self, *, kept: Keeping = EVERYTHING) -> None:
        self.kept = kept
        # short, so that sockets' paths fit, and searchable, so that jobs of other users reach their scratch
        self.directory = Path(tempfile.mkdtemp(prefix="jw-"))
        self.directory.chmod(0o711)
        self.path = self.directory / "state"

    async def open(self) -> None:
        """Begins to serve, or goes on."""
        self.state = StateDirectory.open(self.path)
        self.database = Database.open(self.state.path, loop=asyncio.get_running_loop())
        self.link = SupervisorLink(self.state.path)
        self.jobs = Jobs(self.state, JobStore(self.database), self.link, kept=self.kept)
        try:
            await self.jobs.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Ends in order; jobs and supervisor go on."""
        await self.jobs.close()
        await self.link.close()
        self.database.close()
        self.state.close()

    def directories(self) -> list[str]:
        """What is in the place of the jobs' directories, but for those made for jobs yet to come."""
        return [name for name in os.listdir(self.state.jobs) if not name.startswith(".next-")]

    async def crash(self) -> None:
        """Ends as kill -9 would: what was to be written later never is."""
        self.database._behind.clear()
        await self.close()

    async def restart(self) -> None:
        """Ends in order and begins again."""
        await self.close()
        await self.open()

    @property
    def supervisor_pid(self) -> int:
        """The supervisor that is connected."""
        assert self.link.welcome is not None
        return self.link.welcome["pid"]

    async def start(
        self, *argv: str, caller: Caller = ALICE, request_id: str = "", **spec: object
    ) -> JobRecord:
        """Starts a job with a spec of these fields."""
        asked = JobSpec(argv=list(argv), **spec)  # type: ignore[arg-type]
        started = self.jobs.start(caller, asked, request_id=request_id, job_id=None)
        return await asyncio.wait_for(started, PATIENCE)

    async def wait(self, job_id: str, *, caller: Caller = ALICE) -> JobRecord:
        """The job's final record."""
        return await asyncio.wait_for(self.jobs.wait(caller, job_id), PATIENCE)

    async def end_supervisor(self) -> None:
        """Has the supervisor kill all jobs and end; the link is closing from here on."""
        pid, child = self.supervisor_pid, self.link._child
        self.link._is_closing = True
        if child is not None:
            child.forget()
        processes.end(pid, seconds=PATIENCE)
        with contextlib.suppress(ChildProcessError):  # of an earlier server's
            await asyncio.to_thread(os.waitpid, pid, 0)

    def remove(self) -> None:
        """Removes everything; fails when a cgroup of a job is left."""
        left = processes.leaves_of(self.path)
        shutil.rmtree(f"/var/tmp/jobworker-{processes.state_hash(self.path)}", ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        assert not left, f"cgroups left: {left}"


@contextlib.asynccontextmanager
async def running(*, kept: Keeping = EVERYTHING) -> AsyncIterator[Domain]:
    """A domain that is open, and afterwards gone without a trace."""
    domain = Domain(kept=kept)
    try:
        await domain.open()
        try:
            yield domain
        finally:
            await domain.end_supervisor()
            await domain.close()
    finally:
        domain.remove()


def reason(record: JobRecord) -> EndReason:
    """Why the job ended, which it has."""
    assert record.termination is not None
    return record.termination.reason


async def until_output(domain: Domain, job_id: str, text: str) -> None:
    """Returns once the job has written the text; each look follows a change of its log."""
    path = domain.state.job(job_id) / "output.log"
    process = await asyncio.create_subprocess_exec(
        "tail", "-c", "+1", "-f", str(path), stdout=asyncio.subprocess.PIPE
    )
    seen = b""
    try:
        async with asyncio.timeout(PATIENCE):
            assert process.stdout is not None
            while text.encode() not in seen:
                seen += await process.stdout.read(4096)
    finally:
        process.terminate()
        await process.wait()
