"""`jobctl start`: stdout gets the id and nothing else."""

from __future__ import annotations

from jobctl.cli.session import DEFAULT, Session, show
from jobctl.cli.spec import NO_FLAGS, JobFlags, program


async def start(*argv: str, flags: JobFlags = NO_FLAGS, session: Session = DEFAULT) -> int:
    """Start a job and print its id.

    Parameters
    ----------
    argv
        The program and its arguments; put -- before it.
    """
    words, options = program(argv, verb="start"), flags.options()
    async with session.client() as client:
        job = await client.start(words, request_id=flags.request_id, job_id=flags.id, **options)
        if session.as_json:
            from jobctl.cli.describe import job_facts  # noqa: PLC0415 - loads the message classes

            session.emit(job_facts(job.record))
        else:
            show(job.id)
    return 0
