"""`jobctl update`: other limits for a job that runs."""

from __future__ import annotations

from jobctl.cli.describe import job_facts
from jobctl.cli.failure import note
from jobctl.cli.limits import LimitFlags
from jobctl.cli.session import DEFAULT, Session
from jobctl.errors import InvalidArgument

NO_LIMITS = LimitFlags()


async def update(job: str, /, *, limits: LimitFlags = NO_LIMITS, session: Session = DEFAULT) -> int:
    """Change limits of a running job: all that are given, or none.

    The others stay; "none" as a value lifts one: --memory none, --io-read none (all io limits).

    Parameters
    ----------
    job
        An id, the beginning of one, or a name (the newest job of that name).
    """
    wanted, lifted = limits.limits(), limits.lifted()
    if wanted is None and not lifted:
        raise InvalidArgument("no limit given", hint="jobctl update JOB --memory 1G")
    async with session.client() as client:
        found = await client.find(job)
        record = await found.update(wanted, lift=lifted, best_effort=limits.best_effort)
    if session.as_json:
        session.emit(job_facts(record))
    else:
        for entry in record.limits_not_in_force:
            note(f"not in force: {entry.limit}: {entry.reason}")
    return 0
