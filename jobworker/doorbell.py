"""Tells a running server that another process has changed its clients.

A named pipe in the state directory: whoever changes something rings, the server, if there is one, looks.
What changed is in the database; a ring that nobody hears is not missed, since a server reads when it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

NAME = "doorbell"


class Doorbell:
    """The server's end, from its opening on."""

    def __init__(self, state: Path, *, heard: Callable[[], None]) -> None:
        """`heard` is called in the running loop after every ring, once for several at a time."""
        path = state / NAME
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # read and write: with no writer left a pipe would be readable (end of file) for ever
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._on_ring)

    def close(self) -> None:
        """Hears no more."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _on_ring(self) -> None:
        os.read(self._fd, 4096)
        self._heard()


def ring(state: Path) -> None:
    """Wakes the server of this state directory; does nothing when there is none."""
    with contextlib.suppress(OSError):  # ENXIO: nobody listens; ENOENT: nobody ever did
        fd = os.open(state / NAME, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.closing(os.fdopen(fd, "wb", buffering=0)) as pipe:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                pipe.write(b"!")
