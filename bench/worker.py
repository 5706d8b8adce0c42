"""A worker of the benchmark's own: certificates, state, server and supervisor; gone with the context."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import jobctl
from bench import processes

ROOT = Path(__file__).parent.parent
SCRIPTS = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Worker:
    """Where it listens, and the directory with its certificates and state."""

    address: str
    directory: Path
    server: asyncio.subprocess.Process

    @property
    def supervisor_pid(self) -> int:
        return int((self.directory / "state" / "supervisor.lock").read_text())

    @property
    def jobs(self) -> Path:
        """The directory of jobs: what one has written is in ID/output.log."""
        return self.directory / "state" / "jobs"

    @property
    def processes(self) -> dict[str, int]:
        """Pid of each process that is ours, by what architecture.md calls it."""
        supervisor = self.supervisor_pid
        nurse = next(
            pid for pid in processes.children(supervisor) if processes.name(pid) == "jobworker-nurse"
        )
        keeper = processes.parent(supervisor)
        return {"server": self.server.pid, "supervisor": supervisor, "keeper": keeper, "nurse": nurse}

    def client(self) -> jobctl.Client:
        return jobctl.Client(self.address, ca=self.directory / "ca.pem", cert=self.directory / "alice.pem")

    @property
    def environment(self) -> dict[str, str]:
        """What jobctl needs to find this worker."""
        return {
            "JOBCTL_ADDRESS": self.address,
            "JOBCTL_CA": str(self.directory / "ca.pem"),
            "JOBCTL_CERT": str(self.directory / "alice.pem"),
        }


@asynccontextmanager
async def worker(directory: Path) -> AsyncIterator[Worker]:
    """Starts one on a free port, with the client alice, and ends server and supervisor by their pids."""
    await prepare(directory)
    running = await serve(directory)
    try:
        supervisor = running.supervisor_pid
        yield running
    finally:
        running.server.terminate()
        await running.server.wait()
    if Path(f"/proc/{supervisor}").exists():  # it stays only when jobs do
        os.kill(supervisor, signal.SIGTERM)


async def prepare(directory: Path) -> None:
    """Certificates, and a state directory in which alice is known."""
    directory.mkdir(mode=0o711, exist_ok=True)
    directory.chmod(0o711)
    await _call("sh", str(ROOT / "ca" / "gen.sh"), str(directory))
    command = [str(SCRIPTS / "jobworker"), "client", "add", "alice", "--cert", str(directory / "alice.pem")]
    await _call(*command, "--role", "operator", "--state", str(directory / "state"))


async def serve(directory: Path, *, address: str = "127.0.0.1:0") -> Worker:
    """A server on a prepared directory, which says that it serves."""
    server = await asyncio.create_subprocess_exec(
        str(SCRIPTS / "jobworker"), "serve", "--state", str(directory / "state"), "--listen", address,
        "--cert", str(directory / "server.pem"), "--client-ca", str(directory / "ca.pem"),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.stdout
        async with asyncio.timeout(30):
            ready = (await server.stdout.readline()).decode()
        return Worker(ready.split(" serving on ")[1].split(",")[0], directory, server)
    except BaseException:
        server.kill()
        await server.wait()
        raise


async def _call(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait():
        raise RuntimeError(f"{' '.join(argv)} failed")
