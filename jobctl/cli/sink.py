"""Writing a job's bytes to our own stdout and stderr: raw, whole, and never holding the event loop.

A pipe or a terminal is opened a second time for writing without blocking, for the flag belongs to the open file
and the first one is shared with whoever started us (a shell would find its own terminal changed). A reader that does
not read then costs Ctrl-C nothing. Files take everything at once. Sources: pipe(7), open(2) on O_NONBLOCK.
"""

from __future__ import annotations

import asyncio
import os
import stat


class Sink:
    """One of our own output descriptors."""

    def __init__(self, descriptor: int) -> None:
        self._given = descriptor
        self._open: int | None = None

    async def write(self, data: bytes) -> None:
        """Returns when all of it is written; raises BrokenPipeError when nobody reads, OSError."""
        if self._open is None:
            self._open = _without_blocking(self._given)
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._open, left) :]
            except BlockingIOError:
                await _writable(self._open)


def _without_blocking(descriptor: int) -> int:
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or os.isatty(descriptor)):
        return descriptor
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return descriptor  # another user's terminal, a pipe without reader: the plain way tells


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(descriptor, _finish, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _finish(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
