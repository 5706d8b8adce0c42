"""What bulk data and short calls need of asyncio, the kernel and the heap; of HTTP/2 nothing is known here.

- What is written in one turn of the event loop leaves in one piece: a request's headers and its message, an
  answer's headers, messages and trailers. Every packet wakes the other side, and that is what costs time.
- Blocks of some hundred KiB stay in the heap instead of being mapped and unmapped for every frame.
- A dead peer is noticed by the kernel (TCP keepalive).

Sources: tcp(7); mallopt(3), M_MMAP_THRESHOLD.
"""

import socket
from asyncio import AbstractEventLoop, Transport

CORK = 32 << 10  # bytes that are not held back for more


class CorkedTransport:
    """A transport whose small writes are sent together at the end of the event loop's turn."""

    def __init__(self, transport: Transport, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []
        self._size = 0
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.abort = transport.abort

    def write(self, data: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)
        self._size += len(data)
        if self._size > CORK:
            self._flush()

    def close(self) -> None:
        """Once: asyncio's TLS transport, closed twice, no longer knows its protocol, and cannot be aborted."""
        self._flush()
        if not self._transport.is_closing():
            self._transport.close()

    def _flush(self) -> None:
        if self._pending:
            data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
            self._pending.clear()
            self._size = 0
            self._transport.write(data)


def keep_large_blocks() -> None:
    """Has glibc serve blocks below 32 MiB from the heap, by freeing one of nearly that size once.

    A freed mapping raises the size from which blocks are mapped, and how much free heap is kept. Without it
    every frame's buffers are mapped, faulted in page by page and unmapped: half of the time of a bulk
    transfer. The block's pages are never touched. Elsewhere than on glibc this does nothing.
    """
    bytes(31 << 20)


def tune(sock: socket.socket | None) -> None:
    """Small writes go out at once; the kernel probes a silent peer after 30 s and gives it up after 60 s."""
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
