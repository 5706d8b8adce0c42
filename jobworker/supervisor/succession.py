"""What becomes of the supervisor in the end: nothing, its own successor, or, when there is none any more, the keeper.

Decides whether that can be, by asking the installed version, and that every job's state is written down before. How a
process becomes another one is `startup`'s business.
"""

from __future__ import annotations

from jobworker.supervisor.journal import note
from jobworker.supervisor.rehearsal import Rehearsal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobworker.supervisor.custody import Custody
    from jobworker.supervisor.job import Job
    from jobworker.supervisor.loop import Loop

END, UPGRADE, KEEP = "end", "upgrade", "keep"


class Succession:
    """`future` is one of the three words above; `listener_fd` is the listening socket, unless that is the end."""

    def __init__(self, loop: Loop, custody: Custody, jobs: Callable[[], Iterable[Job]]) -> None:
        self._loop = loop
        self._custody = custody
        self._jobs = jobs
        self._is_over = False
        self.future = END
        self.listener_fd = -1

    def upgrade(self, then: Callable[[str], None] = note) -> None:
        """Lets the installed version take over, if it can; `then` is told "" or why not.

        Where there is no keeper any more, this process, the parent of all jobs, becomes one.
        """
        future = UPGRADE if self._custody.is_there else KEEP
        Rehearsal(self._loop, lambda refusal: self._make_way(refusal, then, future=future))

    def close(self) -> None:
        """The supervisor is ending: nobody comes after it."""
        self._is_over = True

    def descriptors(self) -> list[tuple[int, int, list[int]]]:
        """Number, pid and descriptors of every job, for a keeper."""
        return [(job.state["number"], job.pid, job.descriptors()) for job in self._jobs()]

    def _make_way(self, refusal: str, then: Callable[[str], None], *, future: str) -> None:
        if self._is_over:
            refusal = "the supervisor is shutting down"
        for job in self._jobs() if not refusal else ():
            try:
                job.save()
            except OSError as error:
                refusal = f"the state of job {job.name} cannot be written: {error.strerror}"
        if refusal or then is not note:  # what comes after says that it is there
            then(refusal)
        if not refusal:
            self._custody.flush()
            self.future = future
            self._loop.stop()
