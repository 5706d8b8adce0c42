"""The jobs that have ended: how many there are, what they take on the disk, which are the oldest, how they go.

Decides how a job is deleted, whoever wants it: its files are set aside, then its record is forgotten, then the
files are removed, and a crash in between leaves something that is found at the next start. The totals are
kept in memory and change with every job; the jobs themselves are in the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from jobworker import leftovers
from jobworker.outputindex import INDEX_NAME, LOG_NAME
from jobworker.statedir import StateDirectory
from jobworker.store import JobStore
from jobworker.store.jobrecords import Ended, Totals

STAT_BLOCK = 512  # bytes; of st_blocks, whatever the file system's blocks are


def disk_bytes(directory: Path) -> int:
    """What a job's output takes on the disk; holes take nothing, and files that are not there neither."""
    size = 0
    for name in (LOG_NAME, INDEX_NAME):
        with contextlib.suppress(OSError):
            size += os.stat(f"{directory}/{name}").st_blocks * STAT_BLOCK
    return size


class EndedJobs:
    """All of them. `forget` is told of every job that is deleted."""

    def __init__(self, state: StateDirectory, store: JobStore, *, forget: Callable[[str], None]) -> None:
        self._state = state
        self._store = store
        self._forget = forget
        self._is_open = False
        self.totals = Totals(0, 0)

    def open(self) -> None:
        """Counts what is there; looks at the files of those that ended unseen."""
        for job_id in self._store.unmeasured():
            self._store.set_output_bytes(job_id, disk_bytes(self._state.job(job_id)))
        self.totals = self._store.ended_totals()
        self._is_open = True

    def add(self, job_id: str) -> None:
        """A job has ended; before `open` there is nothing to be added to."""
        if self._is_open:
            size = disk_bytes(self._state.job(job_id))
            self._store.set_output_bytes(job_id, size)
            self.totals = Totals(self.totals.jobs + 1, self.totals.size + size)

    def oldest(self, limit: int) -> list[Ended]:
        """Up to `limit` jobs in the order in which they ended."""
        return self._store.oldest_ended(limit)

    async def delete(self, job_ids: Sequence[str]) -> None:
        """Deletes jobs that have ended; OSError names files that are in the way, Unavailable: the records are left.

        Jobs that are not there are fine. Cancelling does not stop it.
        """
        aside = [path for job_id in job_ids for path in leftovers.set_aside(self._state, job_id)]
        try:
            gone = self._store.delete(job_ids)
            self.totals = Totals(self.totals.jobs - gone.jobs, self.totals.size - gone.size)
            for job_id in job_ids:
                self._forget(job_id)
        finally:  # also when the disk is too full for the records to be changed: it is less so afterwards
            await asyncio.to_thread(leftovers.remove, aside)
