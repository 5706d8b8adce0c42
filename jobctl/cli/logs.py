"""`jobctl logs`: a job's output, what there is or also what comes; stdout to stdout, stderr to stderr."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobctl.cli import INTERRUPTED, SIGPIPE_STATUS, parse
from jobctl.cli.failure import note
from jobctl.cli.runloop import Plain, View
from jobctl.cli.session import DEFAULT, Session, read
from jobctl.ending import parse_ending
from jobctl.errors import JobctlError
from jobctl.events import End, Stream
from jobctl.output import Cursor
from jobctl.output import follow as follow_events

if TYPE_CHECKING:
    from jobctl.client import Client


async def logs(
    job: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"])] = False,
    offset: str | None = None,
    stdout: bool = False,
    stderr: bool = False,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"])] = False,
    session: Session = DEFAULT,
) -> int:
    """Print a job's output.

    Parameters
    ----------
    job
        An id, the beginning of one, or a name (the newest job of that name).
    follow
        Go on with what the job will write, until it has ended. Ctrl-C only stops looking.
    offset
        Begin at this byte of the output, both streams counted together.
    stdout
        Only what it wrote to stdout.
    stderr
        Only what it wrote to stderr.
    verbose
        Say when the connection broke.
    """
    start = 0 if offset is None else read("--offset", parse.offset, offset)
    streams = tuple(stream for stream, chosen in ((Stream.STDOUT, stdout), (Stream.STDERR, stderr)) if chosen)
    async with session.client() as client:
        found = await client.find(job)
        cursor = Cursor(found.id, offset=start, follow=follow, streams=streams)
        try:
            return await _print(client, cursor, _view(session, verbose=verbose))
        except BrokenPipeError:
            return SIGPIPE_STATUS
        except OSError as error:
            raise JobctlError(f"cannot write the output: {(error.strerror or str(error)).lower()}") from error
        except asyncio.CancelledError:
            return INTERRUPTED


def _view(session: Session, *, verbose: bool) -> View:
    if not session.as_json:
        return Plain(verbose=verbose)
    from jobctl.cli.describe import JsonLines  # noqa: PLC0415 - loads the message classes

    return JsonLines(session, verbose=verbose)


async def _print(client: Client, cursor: Cursor, view: View) -> int:
    events = follow_events(client.connection, cursor, patience=client.patience, notice=view.notice)
    async with aclosing(events):
        async for event in events:
            await view.show(event)
            if isinstance(event, End) and event.termination is not None and sys.stderr.isatty():
                note(f"job {cursor.job_id} {parse_ending(event.termination).words}")
    return 0
