"""What a power failure can take back: the last second of what was acknowledged, no more.

Decides when records and the output of ended jobs are put on the disk. Before that they are in the kernel's hands, where
they survive the death of every process. All that has changed is synced in one go, a moment after the first change and
in a thread, since it waits for the disk; who waits for an answer does not. The output of jobs that run is left to the
kernel, which writes it back by itself. What a record is, is not known here.

Sources: fsync(2), syncfs(2), proc_sys_vm(5), dirty_expire_centisecs
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobworker import syscalls
from jobworker.outputindex import INDEX_NAME, LOG_NAME
from jobworker.statedir import StateDirectory
from jobworker.store import WAL_NAME
from jobworker.supervisor.jobfiles import EXIT_NAME

MOMENT = 1.0  # seconds
MANY = 16  # jobs: the files of more than these cost more, one by one, than the whole file system

logger = logging.getLogger(__name__)


class Durability:
    """Syncs what is reported to it."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._is_behind = False
        self._ended: list[Path] = []
        self._task: asyncio.Task[None] | None = None

    def record_written(self) -> None:
        """The database has changed."""
        self._is_behind = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._follow())

    def job_ended(self, job_id: str) -> None:
        """The job's output is complete; that its record is written is told apart."""
        self._ended.append(self._state.job(job_id))

    async def close(self) -> None:
        """Syncs what is left; nothing may change any more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._sync()

    async def _follow(self) -> None:
        try:
            while self._is_behind:
                await asyncio.sleep(MOMENT)
                await self._sync()
        finally:
            self._task = None

    async def _sync(self) -> None:
        self._is_behind = False
        ended, self._ended = self._ended, []
        try:
            await asyncio.to_thread(sync, self._state, ended)
        except OSError as error:
            logger.error("what has just changed may not survive a power failure: %s", error)


def sync(state: StateDirectory, ended: Sequence[Path]) -> None:
    """Returns when the records, and the files of these jobs as far as they are there, are on the disk; OSError."""
    if len(ended) > MANY:
        with _opened(state.jobs) as fd:
            syscalls.syncfs(fd)
    elif ended:
        for directory in ended:
            for path in (directory / LOG_NAME, directory / INDEX_NAME, directory / EXIT_NAME, directory):
                _sync_path(path)
        _sync_path(state.jobs)
    _sync_path(state.path / WAL_NAME)  # the last, so that no record tells of output that is not there


def _sync_path(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError), _opened(path) as fd:  # a job may be deleted meanwhile
        os.fsync(fd)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
