"""Ways to run a program on another machine, made alike: each can run an argv and give its output.

Every peer runs on loopback, in this machine's present mood, in the same run; only ratios mean anything.
"""

import asyncio
import getpass
import os
import shlex
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import asyncssh

import jobctl
from bench.sshd import Sshd, sshd
from bench.worker import SCRIPTS, Worker, worker

OURS, OURS_FRESH = "jobworker, kept connection", "jobctl run, new process"

Output = AsyncGenerator[bytes, None]


class Peer(Protocol):
    """One way; `name` is what tables call it."""

    name: str

    def output(self, argv: list[str]) -> Output:
        """Runs argv and gives its standard output as it comes; ends once the exit status is known."""
        ...

    async def forget(self) -> None:
        """Has the other side remove what the last run left there; only ours records anything."""
        ...


class Process:
    """A new client process for every run."""

    def __init__(self, name: str, prefix: list[str], *, shell: bool) -> None:
        self.name = name
        self._prefix = prefix
        self._shell = shell

    async def output(self, argv: list[str]) -> Output:
        words = [shlex.join(argv)] if self._shell else argv
        process = await asyncio.create_subprocess_exec(
            *self._prefix,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        assert process.stdout
        while data := await process.stdout.read(1 << 20):
            yield data
        if status := await process.wait():
            raise RuntimeError(f"{self.name}: exit {status}")

    async def forget(self) -> None:
        pass


class AsyncSsh:
    """asyncssh over one kept connection, to the same OpenSSH server."""

    name = "asyncssh, kept connection"

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection = connection

    async def output(self, argv: list[str]) -> Output:
        async with self._connection.create_process(shlex.join(argv), encoding=None) as process:
            while data := await process.stdout.read(1 << 20):
                yield data
            await process.wait()

    async def forget(self) -> None:
        pass


class Library:
    """jobctl.Client over one kept connection: RunJob."""

    name = OURS

    def __init__(self, client: jobctl.Client) -> None:
        self._client = client
        self._last = ""

    async def output(self, argv: list[str]) -> Output:
        async with aclosing(self._client.stream(argv)) as chunks:
            async for chunk in chunks:
                yield chunk.data
            self._last = chunks.job_id

    async def forget(self) -> None:
        await self._client.job(self._last).delete()


@dataclass(frozen=True, slots=True)
class Peers:
    """`kept` keep a connection, `fresh` start a process and a connection for every run; theirs before ours.

    `client` is the connection of ours that is kept.
    """

    kept: list[Peer]
    fresh: list[Peer]
    ssh: Sshd
    ours: Worker
    client: jobctl.Client


async def data_of(job: jobctl.Job) -> Output:
    """What a job that runs, or has run, wrote and writes, from its first byte on."""
    async with job.output() as chunks:
        async for chunk in chunks:
            yield chunk.data


@asynccontextmanager
async def peers(directory: Path) -> AsyncIterator[Peers]:
    """All of them, connected; gone with the context."""
    async with AsyncExitStack() as stack:
        ssh = await stack.enter_async_context(sshd(directory))
        ours = await stack.enter_async_context(worker(directory / "worker"))
        client = await stack.enter_async_context(ours.client())
        kept: list[Peer] = [
            Process(
                "ssh, ControlMaster",
                await stack.enter_async_context(_control_master(directory, ssh)),
                shell=True,
            ),
            AsyncSsh(await stack.enter_async_context(_asyncssh(ssh))),
            Library(client),
        ]
        os.environ.update(ours.environment)
        fresh: list[Peer] = [
            Process("ssh, new process", ["ssh", "-F", str(ssh.config), "peer"], shell=True),
            Process(OURS_FRESH, [str(SCRIPTS / "jobctl"), "run", "--"], shell=False),
        ]
        yield Peers(kept, fresh, ssh, ours, client)


@asynccontextmanager
async def _control_master(directory: Path, ssh: Sshd) -> AsyncIterator[list[str]]:
    """ssh -M keeps the connection; every run is a process that speaks to it through a socket."""
    command = ["ssh", "-F", str(ssh.config), "-o", f"ControlPath={directory}/control"]
    master = await asyncio.create_subprocess_exec(*command, "-MN", "peer")
    async with asyncio.timeout(10):
        while not (directory / "control").exists():
            await asyncio.sleep(0.05)
    try:
        yield [*command, "peer"]
    finally:
        master.terminate()
        await master.wait()


def _asyncssh(ssh: Sshd) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
    return asyncssh.connect(
        "127.0.0.1",
        ssh.port,
        username=getpass.getuser(),
        client_keys=[str(ssh.key)],
        known_hosts=None,
        config=None,
    )
