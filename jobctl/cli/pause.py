"""`jobctl pause` and `jobctl resume`: whether a job's processes run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobctl.cli.session import DEFAULT, Session
from jobctl.cli.several import each

if TYPE_CHECKING:
    from jobctl.job import Job


async def pause(*jobs: str, session: Session = DEFAULT) -> int:
    """Keep every process of a job from running, until it is resumed or stopped. Its timeout runs on.

    Parameters
    ----------
    jobs
        Ids, beginnings of ids, or names (the newest job of that name).
    """

    async def pause_one(job: Job, _: str) -> None:
        await job.pause()
        _tell(job, session)

    return await each(jobs, session, pause_one)


async def resume(*jobs: str, session: Session = DEFAULT) -> int:
    """Let paused jobs go on.

    Parameters
    ----------
    jobs
        Ids, beginnings of ids, or names (the newest job of that name).
    """

    async def resume_one(job: Job, _: str) -> None:
        await job.resume()
        _tell(job, session)

    return await each(jobs, session, resume_one)


def _tell(job: Job, session: Session) -> None:
    if session.as_json:
        from jobctl.cli.describe import job_facts  # noqa: PLC0415 - loads the message classes

        session.emit(job_facts(job.record))
