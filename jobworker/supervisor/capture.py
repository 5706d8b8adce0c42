"""A job's output on its way from two pipes into output.log, with a record in output.idx after each piece.

Decides how bytes get to disk: spliced, so that none is ever only in this process's memory, in order of arrival,
a bounded piece per wake-up so that a loud job does not starve the others. A full disk leaves the rest in the pipe
and is tried again by timer; the job waits in its write meanwhile. What the job is, and when it ends, is not known here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time

from jobworker.outputindex import HEADER_SIZE, PENDING_OFFSET, RECORD_SIZE, STDERR, STDOUT, pack_record
from jobworker.supervisor.journal import note
from jobworker.supervisor.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.supervisor.loop import Loop, Timer

_PIECE = 1024 * 1024  # bytes per wake-up, and the most a pipe can hold
_PIPE_SIZE = 65536
_LARGE_PIPE_SIZE = 256 * 1024
_RETRY_NS = 500_000_000  # a full disk tells nobody when it has space again


class Capture:
    """Owns the read ends of the pipes and both files; `size` is how many bytes of output are stored."""

    __slots__ = (
        "_blocked",
        "_enlarged",
        "_index_fd",
        "_indexed",
        "_log_fd",
        "_loop",
        "_pending",
        "_pipes",
        "_records",
        "_retry",
        "_time_ns",
        "_when_drained",
        "size",
    )

    def __init__(self, loop: Loop, *, log: int, index: int) -> None:
        """Takes over the open files, which are as `jobfiles` makes them."""
        self._loop = loop
        self._log_fd = log
        self._index_fd = index
        self._pipes: dict[int, int] = {}  # stream → read end
        self._enlarged: set[int] = set()
        self._blocked = False
        self._pending = STDOUT
        self._time_ns = 0
        self._records = self._indexed = self.size = 0
        self._retry: Timer | None = None
        self._when_drained: Callable[[], None] | None = None

    def attach(self, *, stdout: int, stderr: int) -> None:
        """Takes over the read ends and begins to record what comes out of them."""
        self._pipes = {STDOUT: stdout, STDERR: stderr}
        self._watch_pipes()

    def finish(self, when_drained: Callable[[], None]) -> None:
        """Stores what the pipes still hold, without waiting for their end, closes all, then calls back.

        At once when the disk allows, else as soon as it does.
        """
        self._when_drained = when_drained
        if self._retry is None:
            self._drain()

    def close(self) -> None:
        """Closes everything; what is still in the pipes is lost."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for stream in list(self._pipes):
            self._close_pipe(stream)
        if self._log_fd >= 0:
            os.close(self._log_fd)
            os.close(self._index_fd)
        self._log_fd = self._index_fd = -1

    def _watch_pipes(self) -> None:
        for stream, fd in self._pipes.items():
            self._loop.watch(fd, READ, self._on_stdout if stream == STDOUT else self._on_stderr)

    def _on_stdout(self, events: int) -> None:
        self._on_ready(STDOUT, events)

    def _on_stderr(self, events: int) -> None:
        self._on_ready(STDERR, events)

    def _on_ready(self, stream: int, events: int) -> None:
        if not events & READ:  # a hang-up, and nothing left to read
            self._close_pipe(stream)
            return
        try:
            count = self._move(stream)
        except OSError as error:
            self._pause(error)
            return
        if count == 0:
            self._close_pipe(stream)
        elif count >= _PIPE_SIZE and stream not in self._enlarged:  # the job writes faster than we wake
            self._enlarged.add(stream)
            with contextlib.suppress(OSError):  # over the user's quota: keep what we have
                fcntl.fcntl(self._pipes[stream], fcntl.F_SETPIPE_SZ, _LARGE_PIPE_SIZE)

    def _move(self, stream: int) -> int:
        """Moves one piece and records it; its length, 0 at the end of the stream, -1 when the pipe is empty."""
        self._record()
        fd = self._pipes.get(stream)
        if fd is None:
            return 0
        if stream != self._pending:
            os.pwrite(self._index_fd, bytes((stream,)), PENDING_OFFSET)
            self._pending = stream
        try:
            count = os.splice(fd, self._log_fd, _PIECE, offset_dst=self.size, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return -1
        self.size += count
        self._record()
        return count

    def _record(self) -> None:
        """Writes the record of what is stored and not indexed; also called first, when a full disk stopped it before."""
        if self._indexed == self.size:
            return
        self._time_ns = max(self._time_ns, time.time_ns())  # records never go back in time, clocks may
        record = pack_record(self.size, stream=self._pending, time_ns=self._time_ns)
        position = HEADER_SIZE + self._records * RECORD_SIZE
        if os.pwrite(self._index_fd, record, position) != RECORD_SIZE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._records += 1
        self._indexed = self.size
        self._blocked = False

    def _drain(self) -> None:
        try:
            for stream in list(self._pipes):
                self._empty(stream)
            self._record()
        except OSError as error:
            self._pause(error)
            return
        self.close()
        done, self._when_drained = self._when_drained, None
        if done is not None:
            done()

    def _empty(self, stream: int) -> None:
        """Moves what the pipe holds now; a writer outside the job could keep it from ever being empty."""
        left = _PIECE
        while left > 0:
            count = self._move(stream)
            if count <= 0:
                return
            left -= count

    def _pause(self, error: OSError) -> None:
        if not self._blocked:
            self._blocked = True
            note(f"output cannot be stored, tried again every half second: {error.strerror}")
        for fd in self._pipes.values():
            self._loop.unwatch(fd)
        self._retry = self._loop.call_after(_RETRY_NS, self._resume)

    def _resume(self) -> None:
        self._retry = None
        if self._when_drained is not None:
            self._drain()
        else:
            self._watch_pipes()  # the next wake-up, which is at once, tries

    def _close_pipe(self, stream: int) -> None:
        fd = self._pipes.pop(stream, None)
        if fd is not None:
            self._loop.unwatch(fd)
            os.close(fd)
