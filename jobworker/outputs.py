"""The output files of jobs that are being followed: opened once per job, watched once per job.

Decides how many descriptors and watches followers cost, and wakes them; what they then read is theirs. One
inotify descriptor serves the process. A job nobody follows costs nothing here, and so does one whose
followers only wait. Reads take at once what is in the page cache and leave the rest to a thread: a hop to a
thread and back costs more than to copy a whole batch, and the disk must not stop the loop.

Sources: inotify(7), preadv2(2)
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiofiles.base import wrap

from jobworker import syscalls
from jobworker.errors import FailedPrecondition, Unavailable
from jobworker.events import Event
from jobworker.outputindex import (
    INDEX_NAME,
    LOG_NAME,
    Header,
    IndexFile,
    IndexFormatError,
    read_header,
)

EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC))
_EVENTS_SIZE = 64 * 1024  # bytes read from inotify at a time

_preadv_aside = wrap(os.preadv)

logger = logging.getLogger(__name__)

Place = tuple[int, int, frozenset[int]]  # a follower's cursor, its next index record, the streams it wants


class OpenOutput:
    """One job's output files, open for reading; `index` grows with the file."""

    def __init__(self, directory: Path) -> None:
        place = str(directory)
        self.index = IndexFile(os.open(f"{place}/{INDEX_NAME}", os.O_RDONLY | os.O_CLOEXEC))
        try:
            self.log = os.open(f"{place}/{LOG_NAME}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self.index.fd)
            raise
        self.followers = 0
        self.waiting: set[asyncio.Event] = set()
        self.watch: int | None = None
        self.shared: tuple[Place, Place, list[Event]] | None = None  # the last batch: from, to, events

    def close(self) -> None:
        os.close(self.index.fd)
        os.close(self.log)

    def is_of(self, directory: Path) -> bool:
        """Whether these are the files there now: the id of a job that was deleted may be another job's since."""
        try:
            return os.path.samestat(os.stat(f"{directory}/{INDEX_NAME}"), os.fstat(self.index.fd))
        except FileNotFoundError:
            return False

    def header(self) -> Header:
        """The index's header as it is now; while it is damaged, or not written yet, nothing is known to be dropped."""
        try:
            return read_header(self.index.fd)
        except IndexFormatError:
            return Header()

    def status(self) -> os.stat_result:
        """Size and times of the log."""
        return os.fstat(self.log)

    async def read(self, size: int, offset: int) -> memoryview:
        """Up to `size` bytes of the log; fewer only at its end, or where the disk cannot read it."""
        view = memoryview(bytearray(size))
        got = 0
        try:
            got = self._read_cached(view, offset)
            while got < size and (more := await _preadv_aside(self.log, (view[got:],), offset + got)):
                got += more
        except OSError as error:
            logger.error("output cannot be read: %s", error.strerror)
        return view[:got]

    def _read_cached(self, view: memoryview, offset: int) -> int:
        try:
            return os.preadv(self.log, (view,), offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
                raise
            return 0


class Outputs:
    """The outputs that have followers."""

    def __init__(self) -> None:
        """FailedPrecondition where the host has no inotify instance left for us."""
        self._open: dict[str, OpenOutput] = {}
        self._watched: dict[int, OpenOutput] = {}
        try:
            self._inotify = syscalls.inotify_init()
        except OSError as error:
            raise FailedPrecondition(
                f"output cannot be watched: {os.strerror(error.errno or 0).lower()}",
                hint="as root: sysctl fs.inotify.max_user_instances=1024",
            ) from error
        asyncio.get_running_loop().add_reader(self._inotify, self._wake)

    def close(self) -> None:
        """Ends all watches; followers must have ended before."""
        asyncio.get_running_loop().remove_reader(self._inotify)
        os.close(self._inotify)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def watches(self) -> int:
        """How many outputs are watched: those of which a follower has read all."""
        return len(self._watched)

    @contextmanager
    def open(self, job_id: str, directory: Path) -> Iterator[OpenOutput]:
        """The job's output for one follower; FileNotFoundError when there are no files (yet, or any more).

        Unavailable while the system has no descriptors, or no watches, left.
        """
        output = self._open.get(job_id)
        if output is None or not output.is_of(directory):
            with _later_where_exhausted():
                output = self._open[job_id] = OpenOutput(directory)
        output.followers += 1
        try:
            yield output
        finally:
            output.followers -= 1
            if not output.followers:
                if self._open.get(job_id) is output:
                    del self._open[job_id]
                self._unwatch(output)
                output.close()

    @contextmanager
    def changes(self, output: OpenOutput, changed: asyncio.Event) -> Iterator[None]:
        """Sets the event whenever the index was written to."""
        output.waiting.add(changed)
        try:
            if output.watch is None:
                path = f"/proc/self/fd/{output.index.fd}"  # the file that is open, whatever its name became
                with _later_where_exhausted():
                    output.watch = syscalls.inotify_add_watch(self._inotify, path, syscalls.IN_MODIFY)
                self._watched[output.watch] = output
            yield
        finally:
            output.waiting.discard(changed)
            if not output.waiting:
                self._unwatch(output)

    def _unwatch(self, output: OpenOutput) -> None:
        if output.watch is not None:
            del self._watched[output.watch]
            syscalls.inotify_rm_watch(self._inotify, output.watch)
            output.watch = None

    def _wake(self) -> None:
        for watch, mask, _ in syscalls.parse_inotify(os.read(self._inotify, _EVENTS_SIZE)):
            if mask & syscalls.IN_Q_OVERFLOW:  # whose events were lost is not known
                outputs = list(self._watched.values())
            else:
                outputs = [self._watched[watch]] if watch in self._watched else []
            for output in outputs:
                for changed in output.waiting:
                    changed.set()


@contextmanager
def _later_where_exhausted() -> Iterator[None]:
    """What the system has no more of it has again once others have left."""
    try:
        yield
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        logger.error("output cannot be followed: %s", error.strerror)
        raise Unavailable(
            "the worker cannot follow more output at the moment", hint="try again in a moment"
        ) from error
