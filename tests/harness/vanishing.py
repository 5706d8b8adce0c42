"""What runs in a network of its own, whose only link goes down under a worker and its clients, and comes up again.

    unshare --net python -m tests.harness.vanishing CERTIFICATES

Prints one line of JSON: seconds until each end had let go of the connection, and what a follower has got in the end.
"""

import asyncio
import fcntl
import json
import os
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

import jobctl
from tests.harness.certificates import Certificates
from tests.harness.worker import Worker, register_everybody

SIOCSIFFLAGS = 0x8914  # netdevice(7)
IFF_UP = 1
# one line now and then, so that each end has sent something that the other has not heard of; the rest on demand
PROGRAM = 'n=0; while [ ! -e "$0" ]; do echo $((n+=1)); sleep 0.1; done; echo last'
PATIENCE = 150.0  # seconds


def set_link(*, up: bool) -> None:
    """The loopback of this network is all there is between the ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP if up else 0))


def connections(pid: int) -> int:
    """How many established connections a process has, by its own table (proc_net(5))."""
    with open("/proc/net/tcp") as table:
        established = {line.split()[9] for line in table if line.split()[3] == "01"}
    found = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed since
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            found += link.removeprefix("socket:[").removesuffix("]") in established
    return found


async def until_gone(pid: int) -> float:
    """Seconds until a process has no connection any more: nothing tells another process of that."""
    begin = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        while connections(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return time.monotonic() - begin


async def main(certificates: Certificates) -> None:
    """Follows, loses the link, finds it again."""
    set_link(up=True)
    worker = Worker(certificates)
    register_everybody(worker.state, certificates)
    worker.start()
    end = Path(worker.directory, "end")
    ca, cert = certificates.authority, certificates.of("alice")
    async with jobctl.Client(worker.address, ca=ca, cert=cert) as client:
        job = await client.start(["sh", "-c", PROGRAM, str(end)])
        silent = await client.start(["sleep", "1000"])
        lines: list[bytes] = []
        reading = asyncio.Event()

        async def follow() -> None:
            async with job.output() as output:
                async for chunk in output:
                    lines.append(chunk.data)
                    reading.set()

        following, waiting = asyncio.create_task(follow()), asyncio.create_task(silent.wait())
        await reading.wait()
        set_link(up=False)
        gone = await asyncio.gather(until_gone(os.getpid()), until_gone(worker.pid))
        set_link(up=True)
        await asyncio.to_thread(end.touch)
        await asyncio.wait_for(following, PATIENCE)
        await silent.stop(grace=0)
        await asyncio.wait_for(waiting, PATIENCE)
        sys.stdout.write(json.dumps({"gone": gone, "output": b"".join(lines).decode()}) + "\n")
    worker.close()


if __name__ == "__main__":
    os.umask(0o022)
    asyncio.run(main(Certificates(Path(sys.argv[1]))))
