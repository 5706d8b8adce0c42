"""Follows a job's output: a span of it → batches of events, ready to be sent, from its files and whenever they grow.

Decides when a follower waits, for what, and when its end has come. Where it begins is `beginning`'s, what it
reads is `reader`'s, how events look is `events`'. Nothing polls, and a follower that waits costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, contextmanager

from generated.jobworker.v1 import JobRecord
from jobworker import beginning, events
from jobworker.errors import InvalidArgument, Unavailable
from jobworker.events import Event
from jobworker.jobs import OutputSource
from jobworker.outputs import OpenOutput, Outputs
from jobworker.reader import Reader
from jobworker.span import Span

LATE_NS = 50_000_000  # between a piece's time and its record


async def follow(source: OutputSource, *, outputs: Outputs, span: Span) -> AsyncGenerator[list[Event], None]:
    """Yields what is ready as lists of events, the first `position` where the span names none, the last `end`.

    Raises InvalidArgument for an offset beyond the output, Unavailable when the job is not launched yet.
    """
    written = source.written
    with ExitStack() as resources:
        try:
            output = resources.enter_context(outputs.open(source.job_id, source.directory))
        except FileNotFoundError:
            yield _without_files(source, span)
            return
        reader = await _begin(output, span, written=written)
        if span.begins_elsewhere:
            yield [events.position(reader.cursor)]
        watching = resources.enter_context(ExitStack())
        changed: asyncio.Event | None = None
        while True:
            if span.follow:
                written = source.written  # asked before reading: by then all output was there
            is_over = _has_come(span.until_ns)
            batch = await reader.read(written=written)
            ended = written is not None
            if reader.exhausted and (ended or is_over or reader.has_stopped or not span.follow):
                record = source.ended.result() if ended else None
                yield [*batch, events.end(record, final_offset=reader.cursor)]
                return
            if batch:
                yield batch
            if reader.exhausted:
                if changed is None:  # first watch, then read once more, then wait
                    changed = asyncio.Event()
                    watching.enter_context(outputs.changes(output, changed))
                    resources.enter_context(_set_when_done(source.ended, changed))
                    resources.enter_context(_set_when_come(span.until_ns, changed))
                else:
                    if reader.is_full:  # what the job writes is not stored any more, and of no interest
                        watching.close()
                    await changed.wait()
                    changed.clear()


def _without_files(source: OutputSource, span: Span) -> list[Event]:
    if not source.ended.done():
        raise Unavailable("the job is only just starting", hint="try again", job_id=source.job_id)
    position = [events.position(span.offset)] if span.begins_elsewhere else []
    size = source.written or 0
    stop = max(span.offset, size if span.until_offset is None else min(size, span.until_offset))
    missing = [events.gap(span.offset, stop, events.DAMAGED)] if stop > span.offset else []
    return [*position, *missing, events.end(source.ended.result(), final_offset=stop)]


async def _begin(output: OpenOutput, span: Span, *, written: int | None) -> Reader:
    present = beginning.look(output, written=written)
    if span.offset > present.size:
        raise InvalidArgument(
            f"offset {span.offset} is beyond the output, which has {present.size} bytes",
            field="offset",
            hint="begin at 0 or at the end of what you have",
        )
    stop = beginning.find_stop(output, span, present, ended=written is not None)
    begin = await beginning.find(output, span, present, stop=stop)
    return Reader(output, span, begin=begin, stop=stop)


@contextmanager
def _set_when_done(future: asyncio.Future[JobRecord], event: asyncio.Event) -> Iterator[None]:
    def done(_: asyncio.Future[JobRecord]) -> None:
        event.set()

    future.add_done_callback(done)
    try:
        yield
    finally:
        future.remove_done_callback(done)


def _has_come(time_ns: int | None) -> bool:
    """Whether nothing is written any more that was stored before this time."""
    return time_ns is not None and time.time_ns() >= time_ns + LATE_NS


@contextmanager
def _set_when_come(time_ns: int | None, event: asyncio.Event) -> Iterator[None]:
    """Sets the event at that time; clocks may be set, so it is looked at again then."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer
        if time_ns is None or _has_come(time_ns):
            event.set()
        else:
            left_ns = time_ns + LATE_NS - time.time_ns()
            timer = loop.call_later(max(0.001, left_ns / 1e9), look)

    if time_ns is not None:
        look()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
