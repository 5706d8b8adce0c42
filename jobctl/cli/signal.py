"""`jobctl signal`: any signal, to the main process or to all."""

from __future__ import annotations

from jobctl.cli import parse
from jobctl.cli.session import DEFAULT, Session, read
from jobctl.ending import signal_name


async def signal(job: str, signal: str, /, *, tree: bool = False, session: Session = DEFAULT) -> int:
    """Send a signal to a job.

    Parameters
    ----------
    job
        An id, the beginning of one, or a name (the newest job of that name).
    signal
        A name or a number: HUP, SIGUSR1, 9.
    tree
        To every process of the job, not only to its first.
    """
    number = read("signal", parse.signal, signal)
    async with session.client() as client:
        found = await client.find(job)
        await found.signal(number, tree=tree)
        if session.as_json:
            session.emit({"id": found.id, "signal": signal_name(number), "tree": tree})
    return 0
