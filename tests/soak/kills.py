"""What is done to the worker in the middle of its work: each of its processes killed, two at once, or one upgraded.

Decides by which signal, to whom, and that a server which was killed is started again at once: nobody else does that.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable

from tests.harness import Worker


async def server(worker: Worker) -> bool:
    """SIGKILL of the API server, and a new one."""
    await asyncio.to_thread(worker.restart)
    return True


async def supervisor(worker: Worker) -> bool:
    """SIGKILL of the supervisor alone: its keeper starts another one."""
    return _send(worker.supervisor_pid, signal.SIGKILL)


async def keeper(worker: Worker) -> bool:
    """SIGKILL of the keeper alone: the supervisor takes its place, and starts another."""
    return _send(worker.keeper_pid, signal.SIGKILL)


async def upgrade(worker: Worker) -> bool:
    """SIGHUP, at which the supervisor becomes what is installed."""
    return _send(worker.supervisor_pid, signal.SIGHUP)


async def both(worker: Worker) -> bool:
    """SIGKILL of keeper and supervisor at one moment: the keeper's first, so that it starts no other."""
    supervisor, keeper = worker.supervisor_pid, worker.keeper_pid
    if supervisor is None or keeper is None:
        return False
    _send(keeper, signal.SIGKILL)
    _send(supervisor, signal.SIGKILL)
    return True


KILLS: dict[str, Callable[[Worker], Awaitable[bool]]] = {
    "server": server,
    "supervisor": supervisor,
    "keeper": keeper,
    "upgrade": upgrade,
    "both": both,
}


def choose(choice: random.Random) -> list[tuple[float, str]]:
    """One or two of them, each with the moment, in seconds from the first start on.

    Never the keeper and then the supervisor, or its upgrade, in which it holds nothing itself for a moment: whether that is
    as both at once would be left to chance.
    """
    names = choice.choices(list(KILLS), weights=[30, 25, 10, 20, 15])
    if choice.random() < 0.4:
        second = {"server", "upgrade", "supervisor"} - (
            {"supervisor", "upgrade"} if names == ["keeper"] else set(names)
        )
        names += [choice.choice(sorted(second))]
    return [(choice.uniform(0, 0.25), name) for name in names]


def _send(pid: int | None, number: int) -> bool:
    """False when there is nobody at the moment: it was killed before, and its successor is on its way."""
    if pid is None:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
