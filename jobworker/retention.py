"""What is kept of jobs that have ended: which of them have to go, and when that is looked at again.

Decides from totals and the oldest jobs alone: what is over a limit goes, the job that ended first before all
others, and the one that ended last stays as long as only the limits on numbers and bytes speak against it.
Jobs that have not ended are not known here. Looks when the worker starts, when a job ends, and by one timer
when the oldest comes of age; how jobs are deleted is `endedjobs`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from jobworker.endedjobs import EndedJobs
from jobworker.store.jobrecords import Ended, Totals

BATCH = 16  # jobs deleted before the others get their turn: some milliseconds
RETRY_SECONDS = 60.0  # a disk that refuses tells nobody when it does not any more
MICROSECOND = timedelta(microseconds=1)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is kept of all ended jobs together; None is no limit. `max_bytes` as they lie on the disk."""

    max_bytes: int | None = None
    max_age: timedelta | None = None
    max_jobs: int | None = None

    @property
    def max_age_ns(self) -> int | None:
        """The age in nanoseconds."""
        return None if self.max_age is None else self.max_age // MICROSECOND * 1000


NO_LIMITS = Limits()


def is_over(totals: Totals, limits: Limits) -> bool:
    """Whether there is too much of it, whatever its age."""
    if totals.jobs <= 1:
        return False
    too_many = limits.max_jobs is not None and totals.jobs > limits.max_jobs
    return too_many or (limits.max_bytes is not None and totals.size > limits.max_bytes)


def doomed(oldest: Iterable[Ended], totals: Totals, limits: Limits, *, now_ns: int) -> Iterator[Ended]:
    """Those of the oldest jobs, given in the order in which they ended, that have to go."""
    for job in oldest:
        if not (is_over(totals, limits) or _is_aged(job, limits, now_ns)):
            return
        yield job
        totals = Totals(totals.jobs - 1, totals.size - job.size)


def _is_aged(job: Ended, limits: Limits, now_ns: int) -> bool:
    return limits.max_age_ns is not None and job.ended_ns + limits.max_age_ns <= now_ns


class Retention:
    """Keeps ended jobs within limits."""

    def __init__(self, ended: EndedJobs, limits: Limits) -> None:
        self._ended = ended
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._deleting: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Deletes what has become too much meanwhile, and goes on from there."""
        self._look()

    async def close(self) -> None:
        """Ends what goes on here, in the middle if need be: the next start goes on with it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._deleting is not None:
            self._deleting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._deleting

    def job_ended(self) -> None:
        """One more has ended: a few comparisons, unless that is one too many."""
        if is_over(self._ended.totals, self._limits):
            self._look()
        elif self._timer is None and self._deleting is None and self._limits.max_age is not None:
            self._set_timer(self._limits.max_age.total_seconds())

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deleting is None:
            self._deleting = asyncio.get_running_loop().create_task(self._delete())

    async def _delete(self) -> None:
        try:
            while gone := self._doomed():
                await self._ended.delete([job.job_id for job in gone])
            pause = self._until_of_age()
        except Exception as error:  # whatever it is, the jobs that run do not suffer for it
            logger.error("ended jobs cannot be deleted, tried again in a minute: %s", error)
            pause = RETRY_SECONDS
        finally:
            self._deleting = None
        if pause is not None:
            self._set_timer(pause)

    def _doomed(self) -> list[Ended]:
        oldest = self._ended.oldest(BATCH)
        return list(doomed(oldest, self._ended.totals, self._limits, now_ns=time.time_ns()))

    def _until_of_age(self) -> float | None:
        """Seconds until the oldest job is too old; None when none will be."""
        max_age_ns = self._limits.max_age_ns
        oldest = [] if max_age_ns is None else self._ended.oldest(1)
        return (oldest[0].ended_ns + max_age_ns - time.time_ns()) / 1e9 if oldest and max_age_ns else None

    def _set_timer(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._look()
