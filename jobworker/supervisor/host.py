"""What a job sees of the supervisor it runs under, from its launch to its end, for type checkers and readers.

The engine is that. What is not here a job must not know: other jobs, peers, requests. The supervisor itself imports this
module only while it is type-checked, since `typing` costs a megabyte of its memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jobworker.supervisor.custody import Custody
    from jobworker.supervisor.disk import Disk
    from jobworker.supervisor.job import Job
    from jobworker.supervisor.loop import Loop


class Host(Protocol):
    """Whom a job tells that it has ended; the descriptors are of the jobs' directory, /proc and /dev/null."""

    loop: Loop
    jobs_fd: int
    proc_fd: int
    null_fd: int
    disk: Disk
    custody: Custody

    def count(self) -> int:
        """How many jobs have not ended."""

    def doubt_clone(self) -> None:
        """A child was killed before its exec."""

    def ended(self, job: Job, packed: bytes) -> None:
        """The job's exit record, packed like this, is in place."""
