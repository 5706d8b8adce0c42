"""Following a job over as many connections as it takes.

A `Cursor` knows what to ask for next: first the run or the span itself, after a break the output from the next
byte on. `follow` asks, hands out events, and asks again; it ends with the one `End`, or with a typed error when
the job is gone. `Output` is its face for users: chunks only, gaps on request.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from jobctl import requests
from jobctl.answers import record_id
from jobctl.errors import ConnectionLost, Internal, OutputGap, Unavailable
from jobctl.events import Chunk, End, Event, Gap, Position, Started, parse
from jobctl.reconnect import CALL_PATIENCE, Patience
from jobctl.translate import time_limit
from jobwire.wire import WireError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from types import TracebackType

    from jobctl.connection import Connection
    from jobctl.result import Result


class Cursor:
    """A place in one job's output; `offset` is that of the next byte.

    Where a span begins by time or from its end is asked again until the worker has told the offset.
    """

    def __init__(self, job_id: str, span: tuple[int, bytes, bytes] = (0, b"", requests.FOLLOW)) -> None:
        self.job_id = job_id
        self.offset, self._beginning, self._rest = span
        self._run: bytes | None = None

    @classmethod
    def of_run(cls, request: bytes) -> Self:
        """The beginning of a job that is yet to be started by this RunJobRequest; it may be sent twice."""
        cursor = cls("")
        cursor._run = request
        return cursor

    def request(self) -> tuple[str, bytes]:
        """Method and request that go on from here."""
        if not self.job_id and self._run is not None:
            return requests.JOBS + "RunJob", self._run
        rest = self._beginning + self._rest
        return requests.JOBS + "StreamOutput", requests.output(self.job_id, offset=self.offset, rest=rest)

    def advance(self, event: Event) -> None:
        """Moves behind the event."""
        if isinstance(event, Started):
            self.job_id = record_id(event.record)
            return
        self._beginning = b""
        if isinstance(event, Chunk):
            self.offset = event.offset + len(event.data)
        elif isinstance(event, Gap):
            self.offset = event.end
        elif isinstance(event, Position):
            self.offset = event.offset
        else:
            self.offset = event.final_offset


async def follow(
    connection: Connection,
    cursor: Cursor,
    *,
    patience: float | None = None,
    notice: Callable[[Unavailable], None] | None = None,
) -> AsyncGenerator[Event, None]:
    """Events up to and with `End`; broken connections are bridged, for at most `patience` seconds each time.

    A run that has not started yet is asked for again no longer than any other call.
    """
    first = (
        patience if cursor.job_id or (patience is not None and patience < CALL_PATIENCE) else CALL_PATIENCE
    )
    trust = Patience(connection, limit=first, notice=notice)
    while True:
        method, request = cursor.request()
        try:
            async with aclosing(connection.stream(method, request)) as messages:
                async for message in messages:
                    event = _parse(message)
                    if event is None:
                        continue
                    if not isinstance(event, Position):  # nothing has been delivered by it
                        trust.restored(limit=patience)
                    cursor.advance(event)
                    yield event
                    if isinstance(event, End):
                        return
            raise ConnectionLost("the worker ended the stream before the job's end")
        except Unavailable as error:
            await trust.wait(error)


def _parse(message: bytes) -> Event | None:
    try:
        return parse(message)
    except WireError as error:
        raise Internal(f"the worker's answer cannot be read: {error}") from error


class Output:
    """A job's output as chunks: an async iterator that goes on over broken connections, from `offset` on.

    Ends when the job has ended (or, not following, with what there is now). Raises OutputGap for output that is gone,
    unless `on_gap` is there to be told; JobNotFound when the job is deleted meanwhile; Timeout. Leaving an
    `async for` early closes the stream, at the latest when this object is no longer referred to; `async with` closes
    it at once.
    """

    def __init__(
        self,
        connection: Connection,
        cursor: Cursor,
        *,
        timeout: float | None,
        patience: float | None,
        on_gap: Callable[[Gap], None] | None,
    ) -> None:
        self._cursor = cursor
        self._timeout = timeout
        self._deadline: float | None = None
        self._on_gap = on_gap
        self._events = follow(connection, cursor, patience=patience)
        self._end: End | None = None

    @property
    def job_id(self) -> str:
        """The job's id; "" until a job that is started by reading has been."""
        return self._cursor.job_id

    @property
    def result(self) -> Result | None:
        """How the job ended, once the iteration has; None before, and when the job goes on and was not followed."""
        from jobctl.result import result_of  # noqa: PLC0415 - the command line does without

        end = self._end
        if end is None or end.termination is None:
            return None
        return result_of(self.job_id, termination=end.termination, usage=end.usage or b"", stderr_tail=b"")

    @property
    def offset(self) -> int:
        """Where to go on: the offset behind the last chunk that was handed out."""
        return self._cursor.offset

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._timeout is None:
            return await self._next()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        async with time_limit(self._deadline - asyncio.get_running_loop().time(), of=self._timeout):
            return await self._next()

    async def _next(self) -> Chunk:
        async for event in self._events:
            if isinstance(event, Chunk):
                return event
            if isinstance(event, End):
                self._end = event
            elif isinstance(event, Gap):
                if self._on_gap is None:
                    await self.aclose()
                    raise OutputGap(event, job_id=self._cursor.job_id)
                self._on_gap(event)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Closes the stream; the job is not concerned."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
