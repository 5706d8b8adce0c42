"""One connection to the supervisor: where its socket is, frames out and in, and what of it breaks with the connection.

Decides which reply belongs to which request, and what is an event instead. Not known is whether a supervisor has
to be started, when to connect again, and what a message means for a job.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from jobworker.supervisor.messages import ExitedEvent, LaunchedEvent, StorageEvent
from jobworker.supervisor.protocol import FrameError, FrameReader, pack

SOCKET_NAME = "supervisor.sock"

Reply = dict[str, Any]

logger = logging.getLogger(__name__)


class LinkLostError(Exception):
    """The connection broke before the reply came: whether the request was carried out is not known."""


async def connect(
    state: Path,
    *,
    launched: Callable[[LaunchedEvent], None],
    exited: Callable[[ExitedEvent], None],
    storage: Callable[[StorageEvent], None],
    lost: Callable[[], None],
) -> Connection:
    """A connection to the supervisor that listens in a state directory; OSError when none does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        directory = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # through the descriptor, since a socket's address has room for 107 bytes of path
            sock.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
        finally:
            os.close(directory)
        loop = asyncio.get_running_loop()
        connection = Connection(loop, launched=launched, exited=exited, storage=storage, lost=lost)
        await loop.create_unix_connection(lambda: connection, sock=sock)
    except BaseException:
        sock.close()
        raise
    return connection


class Connection(asyncio.Protocol):
    """Frames in, frames out: a future per request, a call per event."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        launched: Callable[[LaunchedEvent], None],
        exited: Callable[[ExitedEvent], None],
        storage: Callable[[StorageEvent], None],
        lost: Callable[[], None],
    ) -> None:
        self.closed = asyncio.Event()
        self._launched = launched
        self._exited = exited
        self._storage = storage
        self._lost = lost
        self._reader = FrameReader()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._numbers = itertools.count(1)
        self._loop = loop
        self._transport: asyncio.Transport

    def ask(self, request: Mapping[str, object]) -> asyncio.Future[Reply]:
        """Sends a request now; its reply, or LinkLostError. FrameError when it is too large."""
        seq = next(self._numbers)
        self._transport.write(pack({**request, "seq": seq}))
        reply = self._waiting[seq] = self._loop.create_future()
        return reply

    def close(self) -> None:
        """Cuts the connection; `closed` is set once it is."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._reader.feed(data)
        except FrameError as error:
            logger.error("the supervisor sent what is no message: %s", error)
            self.close()
            return
        for message in messages:
            self._handle(message)

    def connection_lost(self, error: Exception | None) -> None:
        waiting, self._waiting = self._waiting, {}
        self._lost()
        for reply in waiting.values():
            if not reply.done():
                reply.set_exception(LinkLostError())
        self.closed.set()

    def _handle(self, message: Reply) -> None:
        if message.get("event") == "exited":
            self._exited(cast("ExitedEvent", message))
            return
        if message.get("event") == "launched":
            self._launched(cast("LaunchedEvent", message))
            return
        if message.get("event") == "storage":
            self._storage(cast("StorageEvent", message))
            return
        reply = self._waiting.pop(cast("int", message.get("seq")), None)
        if reply is not None and not reply.done():
            reply.set_result(message)
