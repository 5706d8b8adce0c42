"""A job's output on its way from two pipes into its files.

Decides when bytes are taken from the job: as soon as they are there, a bounded piece per wake-up so that a loud job
does not starve the others; not while the disk refuses them, which is tried again by timer; not any more when the cap
says that the job has to wait. How they are written is `recording`'s business; what the job is, and when it ends, is
not known here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from jobworker.outputindex import STDERR, STDOUT
from jobworker.supervisor.cap import ALL, NO_CAP, OLDEST, Cap
from jobworker.supervisor.journal import note
from jobworker.supervisor.loop import READ
from jobworker.supervisor.recording import Recording

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from jobworker.supervisor.disk import Disk
    from jobworker.supervisor.jobfacts import Output
    from jobworker.supervisor.loop import Loop, Timer

    Blocked = Literal["disk", "cap"] | None

_PIECE = 1024 * 1024  # bytes per wake-up, and the most a pipe can hold
_PIPE_SIZE = 65536
_LARGE_PIPE_SIZE = 256 * 1024
_RETRY_NS = 500_000_000  # a full disk tells nobody when it has space again


class Capture:
    """Owns the read ends of the pipes, and the recording."""

    __slots__ = (
        "_blocked",
        "_cap",
        "_disk",
        "_enlarged",
        "_loop",
        "_pipes",
        "_recording",
        "_retry",
        "_when_drained",
    )

    def __init__(self, loop: Loop, disk: Disk, *, log: int, index: int, null: int, cap: Cap = NO_CAP) -> None:
        """Takes over the open files, new or from an earlier capture that was killed; `null` stays the caller's."""
        self._loop = loop
        self._disk = disk
        self._cap = cap
        self._recording = Recording(log=log, index=index, null=null)
        self._pipes: dict[int, int] = {}  # stream → read end
        self._enlarged: set[int] = set()
        self._blocked: Blocked = None
        self._retry: Timer | None = None
        self._when_drained: Callable[[], None] | None = None

    def attach(self, *, stdout: int, stderr: int) -> None:
        """Takes over the read ends and begins to record what comes out of them."""
        self._pipes = {STDOUT: stdout, STDERR: stderr}
        try:
            self._catch_up()
        except OSError as error:
            self._pause(error)
        else:
            self._watch_pipes()

    def pipes(self) -> tuple[int, int]:
        """The read ends of stdout and stderr; -1 for what is closed."""
        return self._pipes.get(STDOUT, -1), self._pipes.get(STDERR, -1)

    def describe(self) -> Output:
        """What is recorded until now, and why nothing is taken from the job, if that is so."""
        recording = self._recording
        return {
            "size": recording.size + recording.dropped,
            "head": recording.head,
            "dropped": recording.dropped,
            "blocked": self._blocked,
        }

    def finish(self, when_drained: Callable[[], None]) -> None:
        """Stores what the pipes still hold, without waiting for their end, closes all, then calls back.

        At once when the disk allows, else as soon as it does.
        """
        self._when_drained = when_drained
        if self._retry is None:
            self._drain()

    def close(self) -> None:
        """Closes everything; what is still in the pipes is lost."""
        self._block(None)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for stream in list(self._pipes):
            self._close_pipe(stream)
        self._recording.close()

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
        """Moves one piece; its length, 0 at the end of the stream, -1 when there is none, or none may be taken."""
        recording = self._recording
        self._catch_up()
        fd = self._pipes.get(stream)
        if fd is None:
            return 0
        room = self._room()
        try:
            if not room and self._cap.keep == OLDEST:
                return recording.drop(fd, limit=_PIECE)
            if not room:
                self._hold()
                return -1
            count = recording.store(fd, stream, limit=min(room, _PIECE))
        except BlockingIOError:
            return -1
        self._catch_up()
        return count

    def _catch_up(self) -> None:
        """What follows a piece: its record, and room for the next; a kill or a full disk may have come in between."""
        recording = self._recording
        recording.record()
        head = self._cap.head(recording.head, recording.size)
        if head > recording.head:
            recording.release(head)

    def _room(self) -> int:
        """How much more may be stored: of a job that was to wait and has ended, all that is left."""
        if self._when_drained is not None and self._cap.keep == ALL:
            return _PIECE
        return self._cap.room(self._recording.size - self._recording.head)

    def _drain(self) -> None:
        try:
            for stream in list(self._pipes):
                self._empty(stream)
            self._catch_up()
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

    def _hold(self) -> None:
        """The job is to wait until it has ended."""
        self._block("cap")
        self._unwatch_pipes()

    def _pause(self, error: OSError) -> None:
        if self._blocked != "disk":
            note(f"output cannot be stored, tried again every half second: {error.strerror}")
        self._block("disk")
        self._unwatch_pipes()
        self._retry = self._loop.call_after(_RETRY_NS, self._resume)

    def _resume(self) -> None:
        self._retry = None
        if self._when_drained is not None:
            self._drain()
            return
        try:
            for stream in (STDOUT, STDERR):
                if self._move(stream) == 0:
                    self._close_pipe(stream)
        except OSError as error:
            self._pause(error)
            return
        if self._blocked == "disk":
            self._block(None)
            self._watch_pipes()

    def _block(self, reason: Blocked) -> None:
        before, self._blocked = self._blocked, reason
        if before != "disk" and reason == "disk":
            self._disk.refuses()
        elif before == "disk" and reason != "disk":
            self._disk.takes()

    def _watch_pipes(self) -> None:
        for stream, fd in self._pipes.items():
            self._loop.watch(fd, READ, self._on_stdout if stream == STDOUT else self._on_stderr)

    def _unwatch_pipes(self) -> None:
        for fd in self._pipes.values():
            self._loop.unwatch(fd)

    def _close_pipe(self, stream: int) -> None:
        fd = self._pipes.pop(stream, None)
        if fd is not None:
            self._loop.unwatch(fd)
            os.close(fd)
