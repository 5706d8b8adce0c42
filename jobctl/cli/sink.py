"""Writing a job's bytes to our own stdout and stderr: raw, whole, and never holding the event loop.

A pipe or a terminal is opened a second time for writing without blocking, for the flag belongs to the open file
and the first one is shared with whoever started us (a shell would find its own terminal changed). A reader that does
not read then costs Ctrl-C nothing. Files take everything at once. A reader that leaves is noticed at once, too:
otherwise only the next write would tell, and a silent job makes none.

Sources: pipe(7); open(2) on O_NONBLOCK; epoll_ctl(2) on EPOLLERR and EPOLLHUP.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Sink:
    """One of our own output descriptors."""

    def __init__(self, descriptor: int) -> None:
        self._given = descriptor
        self._open: int | None = None

    @property
    def is_ours(self) -> bool:
        """Whether people see it beside what we say ourselves: our stdout or stderr, not a file that is saved to."""
        return self._given in (1, 2)

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


class while_read:
    """What is inside ends with BrokenPipeError as soon as nobody reads this descriptor any more.

    A pipe or a socket that is asked for no event reports its other end's leaving all the same. Anything else is
    never left: a file has no reader, and a terminal that goes away says so by SIGHUP.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._epoll: select.epoll | None = None
        self._left = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._cancels = self._task.cancelling() if self._task else 0
        mode = os.fstat(self._descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            self._epoll = select.epoll(1)
            self._epoll.register(self._descriptor, 0)
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._reader_left)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if not self._left or self._task is None:
            return
        if self._task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise BrokenPipeError from error

    def _reader_left(self) -> None:
        self._close()
        if self._task is not None:
            self._left = True
            self._task.cancel()

    def _close(self) -> None:
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None


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
