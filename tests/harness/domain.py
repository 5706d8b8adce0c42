"""The worker without its network: real state, database and supervisor, and `Jobs` on top, in this process.

A server that is closed, or crashes, and is opened again is a new `Jobs` on the same directory; the supervisor
and its jobs go on meanwhile, as they do in life.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
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

    @property
    def keeper_pid(self) -> int:
        """The process above it."""
        keeper = processes.keeper(self.supervisor_pid)
        assert keeper is not None, "the supervisor has no keeper"
        return keeper

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
        """Has the supervisor kill all jobs and end, with its keeper; the link is closing from here on."""
        pid, keeper, child = self.supervisor_pid, self.keeper_pid, self.link._child
        self.link._is_closing = True
        if child is not None:
            child.forget()
        processes.end(pid, seconds=PATIENCE)
        with contextlib.suppress(ChildProcessError):  # killed, and waited for
            await asyncio.to_thread(os.waitpid, keeper, 0)

    async def kill_supervisor(self) -> None:
        """SIGKILL of the supervisor alone; its keeper starts another one."""
        os.kill(self.supervisor_pid, signal.SIGKILL)
        await self._gone(self.supervisor_pid)

    def kill_keeper(self) -> None:
        """SIGKILL of the keeper alone; the supervisor takes its place."""
        os.kill(self.keeper_pid, signal.SIGKILL)

    async def kill_pair(self) -> None:
        """SIGKILL of keeper and supervisor, while neither can do anything: as at one instant."""
        pid, keeper, child = self.supervisor_pid, self.keeper_pid, self.link._child
        if child is not None:
            child.forget()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            os.kill(keeper, number)
            os.kill(pid, number)
        await self._gone(pid)
        # it may have been a supervisor once, which took its keeper's place
        with contextlib.suppress(ChildProcessError):
            await asyncio.to_thread(os.waitpid, keeper, 0)

    def upgrade_supervisor(self) -> None:
        """SIGHUP: it becomes what is installed, which is the same."""
        os.kill(self.supervisor_pid, signal.SIGHUP)

    @contextlib.asynccontextmanager
    async def reconnected(self) -> AsyncIterator[None]:
        """What happens inside costs the connection; done once the next one has been settled."""
        connection = self.link._connection
        assert connection is not None, "it is down already"
        yield
        async with asyncio.timeout(PATIENCE):
            await connection.closed.wait()
            assert self.link._reconnecting is not None
            await asyncio.shield(self.link._reconnecting)

    @staticmethod
    async def _gone(pid: int) -> None:
        assert await asyncio.to_thread(processes.wait_gone, pid, seconds=PATIENCE)

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
    """Returns once the job has written the text."""
    await until_content(domain.state.job(job_id) / "output.log", text)


async def until_content(path: Path, text: str) -> None:
    """Returns once a growing file has the text in it; each look follows a change."""
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
