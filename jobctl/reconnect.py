"""How long, and how often, a connection that broke is tried again.

At once, then after pauses that double up to five seconds; chance (between half and all of a pause) keeps many clients
of one restarted worker apart. A worker that has never answered is not waited for: its address or our
certificate is wrong, and saying so soon is better.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobctl.connection import Connection
    from jobctl.errors import Unavailable

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds
CALL_PATIENCE = 10.0  # seconds: a worker that restarts is back within this


def pauses(chance: Callable[[], float]) -> Iterator[float]:
    """The pauses before each attempt, in seconds, without end; `chance` gives numbers from 0 to 1."""
    yield 0.0
    pause = FIRST_PAUSE
    while True:
        yield pause * (0.5 + 0.5 * chance())
        pause = min(2 * pause, LONGEST_PAUSE)


class Patience:
    """One caller's patience with one connection: `limit` seconds from the first failure on, None without end."""

    def __init__(
        self,
        connection: Connection,
        *,
        limit: float | None,
        notice: Callable[[Unavailable], None] | None = None,
    ) -> None:
        self._connection = connection
        self._limit = limit
        self._notice = notice
        self._pauses: Iterator[float] | None = None
        self._since = 0.0

    async def wait(self, error: Unavailable) -> None:
        """Until the next attempt; raises `error` when there is to be none."""
        if not self._connection.answered:
            raise error
        if self._pauses is None:
            self._pauses, self._since = pauses(_chance), time.monotonic()
        pause = next(self._pauses)
        if self._limit is not None and time.monotonic() + pause - self._since > self._limit:
            raise error
        if self._notice:
            self._notice(error)
        await asyncio.sleep(pause)

    def restored(self, *, limit: float | None) -> None:
        """It works again: the next failure is a first one, and is borne for `limit` seconds."""
        self._pauses = None
        self._limit = limit


def _chance() -> float:
    return os.urandom(1)[0] / 255
