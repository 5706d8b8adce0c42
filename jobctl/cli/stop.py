"""`jobctl stop`: returns when the jobs have ended, and says on a terminal what it waits for."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from jobctl.cli import parse
from jobctl.cli.session import DEFAULT, Session, read
from jobctl.cli.several import each

if TYPE_CHECKING:
    from jobctl.job import Job


async def stop(
    *jobs: str, signal: str | None = None, grace: str | None = None, session: Session = DEFAULT
) -> int:
    """Stop jobs: a signal to the whole tree, KILL after the grace period.

    Returns when they have ended. Without options the job's own stop signal and grace apply, else TERM and 10 s.

    Parameters
    ----------
    jobs
        Ids, beginnings of ids, or names (the newest job of that name).
    signal
        The signal to begin with: INT, HUP, 2.
    grace
        How long until KILL: 30s, 1m; 0 kills at once.
    """
    number = None if signal is None else read("--signal", parse.signal, signal)
    length = None if grace is None else read("--grace", parse.seconds, grace)

    async def stop_one(job: Job, reference: str) -> None:
        await job.stop(signal=number, grace=length)
        await _ended(job, reference)
        if session.as_json:
            from jobctl.cli.describe import job_facts  # noqa: PLC0415 - loads the message classes

            session.emit(job_facts(job.record))

    return await each(jobs, session, stop_one)


async def _ended(job: Job, reference: str) -> None:
    """Waits, and tells a terminal how long already."""
    if not sys.stderr.isatty():
        await job.ended()
        return
    waiting = asyncio.ensure_future(job.ended())
    try:
        passed = 0
        while not (await asyncio.wait({waiting}, timeout=1))[0]:
            passed += 1
            _progress(f"stopping {reference}: {passed} s")
        await waiting
    finally:
        waiting.cancel()
        if passed:
            _progress("")


def _progress(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
