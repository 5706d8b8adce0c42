"""The control socket: who may connect, and how messages get in and out without holding up anything.

Decides that only our own user and root are let in, that one request of a connection is handled per turn of the
loop, and that a peer which does not read is dropped once too much waits for it. What a message means is the
engine's business.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
from collections import deque

from jobworker.supervisor.journal import note, note_exception
from jobworker.supervisor.loop import READ, WRITE
from jobworker.supervisor.protocol import FrameError, FrameReader, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobworker.supervisor.loop import Loop

SOCKET_NAME = "supervisor.sock"
_RECEIVE_SIZE = 16 * 1024  # small enough not to be mapped and unmapped each time
_MAX_UNSENT = 64 * 1024 * 1024  # bytes that may wait for a peer that does not read
_RESERVE = 8  # descriptors: an accept that fails for want of one would be tried for ever
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


class Connection:
    """One peer; `wants_events` once it has said hello."""

    __slots__ = (
        "_handle",
        "_is_writing",
        "_loop",
        "_on_close",
        "_reader",
        "_requests",
        "_socket",
        "_unsent",
        "wants_events",
    )

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        handle: Callable[[Connection, dict[str, object]], None],
        on_close: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._handle = handle
        self._on_close = on_close
        self._reader = FrameReader()
        self._requests: deque[dict[str, object]] = deque()
        self._is_writing = False
        self._unsent = bytearray()
        self.wants_events = False
        loop.watch(sock.fileno(), READ, self._on_ready)

    def send(self, message: Mapping[str, object]) -> None:
        """Sends a message; see `send_frame`."""
        self.send_frame(pack(message))

    def send_frame(self, frame: bytes) -> None:
        """Sends now what the socket takes, the rest when it can; a closed connection takes nothing."""
        if self._socket.fileno() < 0:
            return
        self._unsent += frame
        if len(self._unsent) > _MAX_UNSENT:
            note("control connection dropped: its peer does not read")
            self.close()
        else:
            self._flush()

    def close(self) -> None:
        """Drops the connection and what waits for it."""
        if self._socket.fileno() < 0:
            return
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._requests.clear()
        self._on_close(self)

    def _on_ready(self, events: int) -> None:
        if events & WRITE and self._unsent:
            self._flush()
        if events & ~WRITE and self._socket.fileno() >= 0 and not self._requests:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_SIZE)
            messages = self._reader.feed(data)
        except BlockingIOError:
            return
        except (OSError, FrameError) as error:
            note(f"control connection dropped: {error}")
            self.close()
            return
        if not data:
            self.close()
            return
        self._requests.extend(messages)
        self._handle_one()

    def _handle_one(self) -> None:
        """Handles the oldest request; others of the same peer wait for the next turn, so that exits come in between."""
        if not self._requests:  # closed meanwhile
            return
        request = self._requests.popleft()
        if self._requests:
            self._loop.defer(self._handle_one)
        try:
            self._handle(self, request)
        except Exception:  # a defect must cost one answer, not the supervisor
            note_exception()
            seq = request.get("seq")
            self.send(
                {"op": "error", "seq": seq, "error": "os_error", "errno": 0, "detail": "internal error"}
            )

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._unsent, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._unsent[:sent]
        if self._is_writing != bool(self._unsent):
            self._is_writing = not self._is_writing
            self._loop.change(self._socket.fileno(), READ | WRITE if self._is_writing else READ)


def listen(state_fd: int) -> socket.socket:
    """A socket that listens in the state directory, in place of what a dead pair left: our keeper holds the lock."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET_NAME, dir_fd=state_fd)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        # by way of the descriptor: a socket's path may have 107 bytes only, a state directory's more
        sock.bind(f"/proc/self/fd/{state_fd}/{SOCKET_NAME}")
    finally:
        os.umask(mask)
    sock.listen(128)
    return sock


class Listener:
    """The listening socket; hands every admitted peer to `admit`."""

    def __init__(
        self, loop: Loop, sock: socket.socket, *, state_fd: int, admit: Callable[[socket.socket], None]
    ) -> None:
        """Takes over the socket, which is in the state directory."""
        self._loop = loop
        self._state_fd = state_fd
        self._admit = admit
        self._socket = sock
        loop.watch(self._socket.fileno(), READ, self._on_ready)

    def close(self) -> None:
        """Stops listening and removes the socket file."""
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(SOCKET_NAME, dir_fd=self._state_fd)

    def _on_ready(self, _events: int) -> None:
        try:
            peer, _ = self._socket.accept()
        except BlockingIOError:
            return
        peer.setblocking(False)
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(credentials)
        if uid not in (0, os.geteuid()):
            note(f"control connection of process {pid} refused: uid {uid}")
            peer.close()
            return
        if peer.fileno() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _RESERVE:
            note(f"control connection of process {pid} refused: no descriptors left")
            peer.close()
            return
        self._admit(peer)
