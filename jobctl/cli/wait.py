"""`jobctl wait`: until the job has ended, then exit as it did."""

from __future__ import annotations

from jobctl.cli import parse
from jobctl.cli.failure import note
from jobctl.cli.session import DEFAULT, Session, read
from jobctl.ending import EXITED, SIGNALED


async def wait(job: str, /, *, timeout: str | None = None, session: Session = DEFAULT) -> int:  # noqa: ASYNC109
    """Wait for a job to end; exit as it did.

    Parameters
    ----------
    job
        An id, the beginning of one, or a name (the newest job of that name).
    timeout
        Give up waiting after this time, with exit status 125; the job runs on.
    """
    limit = None if timeout is None else read("--timeout", parse.seconds, timeout)
    async with session.client() as client:
        found = await client.find(job)
        ending = await found.ended(timeout=limit)
        if session.as_json:
            from jobctl.cli.describe import job_facts  # noqa: PLC0415 - loads the message classes

            session.emit(job_facts(found.record))
        elif ending.reason not in (EXITED, SIGNALED):
            note(f"job {found.id} {ending.words}")
        return ending.status
