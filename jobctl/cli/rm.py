"""`jobctl rm`: forget jobs that have ended."""

from __future__ import annotations

from jobctl.cli.session import DEFAULT, Session
from jobctl.cli.several import each
from jobctl.job import Job


async def rm(*jobs: str, session: Session = DEFAULT) -> int:
    """Delete jobs that have ended, with their output.

    Parameters
    ----------
    jobs
        Ids, beginnings of ids, or names (the newest job of that name).
    """

    async def delete(job: Job, _: str) -> None:
        await job.delete()
        if session.as_json:
            session.emit({"id": job.id, "deleted": True})

    return await each(jobs, session, delete)
