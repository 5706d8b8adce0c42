"""`jobctl logs`: a job's output, what there is or also what comes; stdout to stdout, stderr to stderr, or all to a file.

Decides what is shown of which job and where; how it looks is the views', what arrives is the library's.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import aclosing, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobctl.cli import INTERRUPTED, SIGPIPE_STATUS, parse, render
from jobctl.cli.failure import cannot_write
from jobctl.cli.runloop import Plain, View
from jobctl.cli.session import DEFAULT, Session, read
from jobctl.cli.sink import Sink, while_read
from jobctl.ending import Ending, parse_ending
from jobctl.errors import Internal, InvalidArgument, JobctlError
from jobctl.events import End, Stream
from jobctl.output import Cursor
from jobctl.output import follow as follow_events
from jobctl.span import Span, span

if TYPE_CHECKING:
    from jobctl.cli.progress import Progress
    from jobctl.cli.saving import Saving
    from jobctl.client import Client
    from jobctl.job import Job


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class LogFlags:
    """Which part of the output, and how it is shown. All of it can be combined: the output begins at the latest beginning."""

    follow: Annotated[bool, Parameter(name=["--follow", "-f"])] = False
    """Go on with what the job will write, until it has ended. Ctrl-C only stops looking."""
    tail: Annotated[str | None, Parameter(name=["--tail", "-n"])] = None
    """Begin with the last so many lines; 0 is the end."""
    since: str | None = None
    """Begin with what was written at this time or later: 10m (ago), 12:30, 2026-11-29T12:00:00Z, @UNIX."""
    until: str | None = None
    """End before what was written at this time or later."""
    offset: str | None = None
    """Begin at this byte of the output, both streams counted together."""
    stdout: bool = False
    """Only what it wrote to stdout."""
    stderr: bool = False
    """Only what it wrote to stderr."""
    timestamps: Annotated[bool, Parameter(name=["--timestamps", "-t"])] = False
    """Begin each line with the time it was taken, in UTC."""
    output: str | None = None
    """Save to this file, both streams in order of arrival; it gets its name when it is whole."""
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"])] = False
    """Do not tell how the job ended."""
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"])] = False
    """Say when the connection broke."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Those that were named; none: all."""
        return (Stream.STDOUT,) * self.stdout + (Stream.STDERR,) * self.stderr

    def span(self) -> Span:
        """For the worker; raises InvalidArgument naming the option."""
        since, until = _moment("--since", self.since), _moment("--until", self.until)
        if since is not None and until is not None and until < since:
            raise InvalidArgument("--until: the end is before the beginning", field="--until")
        return span(
            now_unix_nano=time.time_ns(),
            offset=0 if self.offset is None else read("--offset", parse.offset, self.offset),
            follow=self.follow,
            streams=self.streams,
            tail_lines=None if self.tail is None else read("--tail", parse.lines, self.tail),
            since=since,
            until=until,
        )


NO_FLAGS = LogFlags()


async def logs(job: str, /, *, flags: LogFlags = NO_FLAGS, session: Session = DEFAULT) -> int:
    """Print a job's output.

    Parameters
    ----------
    job
        An id, the beginning of one, or a name (the newest job of that name).
    """
    wanted = flags.span()
    with _saving(flags) or nullcontext() as saving:
        async with session.client() as client:
            found = await client.find(job)
            view, cursor = _view(flags, session, saving), Cursor(found.id, wanted)
            try:
                if saving is None:
                    with while_read(2 if flags.streams == (Stream.STDERR,) else 1):
                        end = await _print(client, cursor, view)
                else:
                    with await _progress(found, flags) or nullcontext() as progress:
                        end = await _print(client, cursor, view, progress)
                        saving.keep()
            except BrokenPipeError:
                return SIGPIPE_STATUS
            except OSError as error:
                raise cannot_write(saving.part if saving else "the output", error) from error
            except asyncio.CancelledError:
                return INTERRUPTED
            quiet = flags.quiet or session.as_json or not (flags.follow or sys.stderr.isatty())
            if end.termination is not None and not quiet:
                view.note(await _ending(found, parse_ending(end.termination)))
    return 0


async def _print(client: Client, cursor: Cursor, view: View, progress: Progress | None = None) -> End:
    events = follow_events(client.connection, cursor, patience=client.patience, notice=view.notice)
    async with aclosing(events):
        try:
            async for event in events:
                if progress is not None:
                    progress.seen(event)
                await view.show(event)
                if isinstance(event, End):
                    return event
        finally:
            await view.finish()
    raise Internal("the worker ended the output without a word", job_id=cursor.job_id)


def _view(flags: LogFlags, session: Session, saving: Saving | None) -> View:
    if session.as_json:
        from jobctl.cli.describe import JsonLines  # noqa: PLC0415 - loads the message classes

        out = sys.stdout if saving is None else saving.text()
        return JsonLines(out, verbose=flags.verbose)
    sinks = {Stream.STDOUT: Sink(1), Stream.STDERR: Sink(2)}
    if saving is not None:
        sinks = dict.fromkeys(Stream, Sink(saving.descriptor))
    if not flags.timestamps:
        return Plain(sinks, verbose=flags.verbose)
    from jobctl.cli.stamp import Stamped  # noqa: PLC0415 - the plain way has no use for it

    return Stamped(sinks, verbose=flags.verbose)


def _saving(flags: LogFlags) -> Saving | None:
    if flags.output is None:
        return None
    if not flags.output:
        raise InvalidArgument("--output: no file is named", field="--output")
    from jobctl.cli.saving import Saving  # noqa: PLC0415 - few save

    return Saving(flags.output)


async def _progress(job: Job, flags: LogFlags) -> Progress | None:
    """A line for a terminal; the worker is asked only for that where the output ends, if it ends."""
    from jobctl.cli.progress import Progress, on_terminal  # noqa: PLC0415 - few save

    if flags.output is None or not on_terminal():
        return None
    record = await job.refresh()
    ends = record.termination is not None or not flags.follow
    last = record.output.size - record.output.dropped if ends and record.output and not flags.until else None
    return Progress(os.path.basename(flags.output), last=last)


async def _ending(job: Job, ending: Ending) -> str:
    """How it ended, for no exit status of ours tells; after how long, if the worker still knows."""
    name, after = job.id, ""
    with suppress(JobctlError):
        record = await job.refresh()
        begun, ended = record.started_at or record.created_at, record.ended_at
        name = f"{record.spec.name} ({job.id})" if record.spec.name else job.id
        after = "" if ended is None else f" after {render.span(ended - begun)}"
    return f"job {name} {ending.words}{after}"


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    now = datetime.now().astimezone()
    return read(
        option,
        lambda typed: parse.moment(typed, now=now, local=datetime.astimezone),
        text,
        hint=parse.MOMENTS,
    )
