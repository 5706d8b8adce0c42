"""An OpenSSH server of the benchmark's own on loopback, with keys made for it; gone with the context."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PidFile none
MaxSessions 1000
MaxStartups 100
# bash reads ~/.bashrc under sshd at shell level 1; what that costs is not ssh's doing
SetEnv SHLVL=2
"""
CLIENT = """\
Host peer
HostName 127.0.0.1
Port {port}
IdentityFile {directory}/user
IdentitiesOnly yes
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""


@dataclass(frozen=True, slots=True)
class Sshd:
    """Its pid, where it listens, the client key it accepts, and a client configuration with the host "peer"."""

    pid: int
    port: int
    key: Path
    config: Path


def missing() -> str:
    """What has to be installed first, or "" when everything is there."""
    if shutil.which("ssh") and _sshd_path():
        return ""
    return "OpenSSH's client and server (Debian: openssh-client openssh-server)"


@asynccontextmanager
async def sshd(directory: Path) -> AsyncIterator[Sshd]:
    """Runs it in the foreground as a child, and ends it by its pid."""
    for name in ("host", "user"):
        await _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (directory / "sshd_config").write_text(SERVER.format(port=port, directory=directory))
    (directory / "ssh_config").write_text(CLIENT.format(port=port, directory=directory))
    Path("/run/sshd").mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        _sshd_path(), "-D", "-f", str(directory / "sshd_config"), "-E", str(directory / "sshd.log")
    )
    try:
        await _listening(port)
        yield Sshd(process.pid, port, directory / "user", directory / "ssh_config")
    finally:
        process.terminate()
        await process.wait()


def _sshd_path() -> str:
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or ""


async def _call(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(*argv)
    if await process.wait():
        raise RuntimeError(f"{argv[0]} failed")


async def _listening(port: int) -> None:
    """sshd tells nobody when it listens: try until it does, for at most ten seconds."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            await writer.wait_closed()
            return
