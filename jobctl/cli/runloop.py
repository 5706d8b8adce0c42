"""`run` as it happens: events to our own stdout and stderr, Ctrl-C to the job, the job's end as our exit status.

The one loop for `jobctl run`, with options or without. Must stay light: no cyclopts, no generated classes. What the
events are shown as is the view's business.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import ExitStack, aclosing
from typing import TYPE_CHECKING, Protocol, Self

from jobctl import requests
from jobctl.cli import INTERRUPTED, SIGPIPE_STATUS
from jobctl.cli.failure import cannot_write, note, run_to_end, say
from jobctl.cli.sink import Sink, while_read
from jobctl.connection import Connection
from jobctl.contexts import choose
from jobctl.ending import EXITED, SIGNALED, STOPPED, Ending, parse_ending
from jobctl.errors import Internal, JobctlError
from jobctl.events import Chunk, End, Event, Gap, Started, Stream
from jobctl.output import Cursor, follow
from jobctl.translate import time_limit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from jobctl.errors import Unavailable

STOP_PATIENCE = 10.0  # seconds that a stop may take to be heard
PATIENCE = 600.0  # seconds that a worker may be away before a follower gives up


class View(Protocol):
    """What becomes of events."""

    async def show(self, event: Event) -> None:
        """Shows one; raises OSError when its output cannot be written."""

    def notice(self, error: Unavailable) -> None:
        """The connection broke and is tried again."""

    def note(self, text: str) -> None:
        """Something to know of the job that is none of its output."""

    async def finish(self) -> None:
        """There will be no more; shows what was held back."""


class Plain:
    """Bytes as they are, each stream to its sink: our stdout and stderr; a gap is a note."""

    def __init__(self, sinks: Mapping[Stream, Sink] | None = None, *, verbose: bool = False) -> None:
        self._sinks = sinks or {Stream.STDOUT: Sink(1), Stream.STDERR: Sink(2)}
        self._verbose = verbose
        self._unfinished: Stream | None = None  # whose line our own output ends within

    async def show(self, event: Event) -> None:
        """Chunks and gaps; the rest is not for the eye."""
        if isinstance(event, Chunk):
            await self.put(event.stream, event.data)
        elif isinstance(event, Gap):
            self.note(f"bytes {event.start} to {event.end} of the output are gone: {event.why}")

    def notice(self, error: Unavailable) -> None:
        """Said only when asked."""
        if self._verbose:
            self.note(f"{error}; going on at the next byte")

    def note(self, text: str) -> None:
        """On a line of its own, where the job's last line is unfinished and in the same place."""
        if self._unfinished is Stream.STDERR or (self._unfinished and sys.stderr.isatty()):
            say("")
        self._unfinished = None
        note(text)

    async def put(self, stream: Stream, data: bytes) -> None:
        """Bytes of one stream to its place."""
        await self._sinks[stream].write(data)
        if data and self._sinks[stream].is_ours:
            self._unfinished = None if data[-1] == 10 else stream

    async def finish(self) -> None:
        """Nothing was held back."""


def run_plain(argv: Sequence[str]) -> int:
    """`jobctl run -- ARGV…`: everything by default."""
    return run_to_end(lambda: asyncio.run(_run_plain(argv)))


async def _run_plain(argv: Sequence[str]) -> int:
    request = requests.start(requests.spec(argv), request_id=requests.new_request_id())
    connection = Connection(choose())
    try:
        return await run(connection, request, view=Plain())
    finally:
        await connection.close()


async def run(connection: Connection, request: bytes, *, view: View) -> int:
    """Runs a RunJobRequest to its end and returns the exit status that stands for it."""
    cursor = Cursor.of_run(request)
    with Interrupts(connection, cursor) as interrupts:
        try:
            return await _show_all(connection, cursor, interrupts, view)
        except BrokenPipeError:
            await interrupts.stop()
            return SIGPIPE_STATUS
        except OSError as error:
            await interrupts.stop()
            raise cannot_write("the output", error) from error
        except asyncio.CancelledError:
            return INTERRUPTED


async def _show_all(connection: Connection, cursor: Cursor, interrupts: Interrupts, view: View) -> int:
    events = follow(connection, cursor, patience=PATIENCE, notice=view.notice)
    with ExitStack() as reading:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Started):
                    interrupts.started()
                    reading.enter_context(while_read(1))  # before, there is no job that could be stopped
                await view.show(event)
                if isinstance(event, End) and event.termination is not None:
                    return _status(cursor.job_id, parse_ending(event.termination), view)
    raise Internal("the worker did not tell how the job ended", job_id=cursor.job_id)


def _status(job_id: str, ending: Ending, view: View) -> int:
    """The exit status; an end that this number does not explain is told as well."""
    if ending.reason not in (EXITED, SIGNALED, STOPPED):
        view.note(f"job {job_id} {ending.words}")
    return ending.status


class Interrupts:
    """Ctrl-C, or a SIGTERM, stops the job; a second one kills it; a third one leaves it alone and ends us.

    What was ignored when we were started stays so: a shell has a script's background commands not hear its Ctrl-C.
    """

    def __init__(self, connection: Connection, cursor: Cursor) -> None:
        self._connection = connection
        self._cursor = cursor
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._runner = asyncio.current_task()
        loop = asyncio.get_running_loop()
        both = (signal.SIGINT, signal.SIGTERM)
        self._heard = [number for number in both if signal.getsignal(number) is not signal.SIG_IGN]
        for number in self._heard:
            loop.add_signal_handler(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in self._heard:
            loop.remove_signal_handler(number)

    def started(self) -> None:
        """The job is there: what was asked before is done now."""
        if self._count:
            self._begin_stop()

    def _interrupt(self) -> None:
        self._count += 1
        if self._count > (2 if self._cursor.job_id else 1):
            if self._runner is not None:
                self._runner.cancel()
        elif self._cursor.job_id:
            self._begin_stop()
        elif sys.stderr.isatty():
            note("the job is stopped as soon as it has started; Ctrl-C again leaves it")

    def _begin_stop(self) -> None:
        if sys.stderr.isatty():
            note("killing the job" if self._count > 1 else "stopping the job; Ctrl-C again kills it")
        task = asyncio.get_running_loop().create_task(self.stop(kill=self._count > 1))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, *, kill: bool = False) -> None:
        """Asks the worker to stop the job; whether it did is seen by following."""
        if not self._cursor.job_id:
            return
        request = requests.stop(self._cursor.job_id, grace=0 if kill else None)
        try:
            async with time_limit(STOP_PATIENCE):
                await self._connection.call(requests.JOBS + "StopJob", request)
        except JobctlError as error:
            note(f"the job could not be stopped: {error}")
