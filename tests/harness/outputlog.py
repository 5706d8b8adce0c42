"""A job's output directory that a test writes itself, byte for byte as a supervisor does; and reading it back."""

import asyncio
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import betterproto

from generated.jobworker.v1 import (
    Chunk,
    End,
    EndReason,
    Gap,
    JobRecord,
    JobState,
    OutputInfo,
    Position,
    StreamOutputResponse,
    Termination,
)
from jobwire.codec import decode
from jobworker import outputindex
from jobworker.events import Event as Parts
from jobworker.follow import follow
from jobworker.jobs import OutputSource
from jobworker.outputs import Outputs
from jobworker.span import Span

PATIENCE = 10.0
ENDED = JobRecord(
    state=JobState(JobState.ENDED), termination=Termination(reason=EndReason(EndReason.EXITED), exit_code=3)
)


class Log:
    """A job's output directory, and the one who writes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ended: asyncio.Future[JobRecord] = asyncio.get_running_loop().create_future()
        self.source = OutputSource("job", directory, self.ended)
        self.log = os.open(directory / "output.log", os.O_RDWR | os.O_CREAT)
        self.index = os.open(directory / "output.idx", os.O_RDWR | os.O_CREAT)
        self.size = 0
        self.time = 0
        self.written = {1: b"", 2: b""}
        self.header = outputindex.Header()
        self.set_header()

    def set_header(self, **changed: int) -> None:
        for name, value in changed.items():
            setattr(self.header, name, value)
        os.pwrite(self.index, outputindex.pack_header(self.header), 0)

    def drop(self, count: int) -> None:
        """Bytes that are taken from the job and not stored."""
        self.set_header(dropped=self.header.dropped + count)

    def punch(self, head: int) -> None:
        """Gives back what is below `head`; of the records before, the last one stays."""
        holds_head = outputindex.find_offset(outputindex.IndexFile(self.index), head)
        self.set_header(head=head)
        os.pwrite(self.log, bytes(head), 0)
        os.pwrite(
            self.index, bytes(max(0, holds_head - 1) * outputindex.RECORD_SIZE), outputindex.HEADER_SIZE
        )

    def write(self, data: bytes, *, stream: int = 1) -> None:
        self.append(data)
        self.time += 1
        record = outputindex.pack_record(self.size, stream=stream, time_ns=self.time)
        os.pwrite(self.index, record, os.fstat(self.index).st_size)
        self.written[stream] += data

    def append(self, data: bytes) -> None:
        """Data that is not in the index."""
        assert os.pwrite(self.log, data, self.size) == len(data)
        self.size += len(data)

    def end(self, *, written: int = 0) -> None:
        """The job has ended; `written`: what its record says of that."""
        record = JobRecord(state=ENDED.state, termination=ENDED.termination, output=OutputInfo(size=written))
        self.ended.set_result(record)

    def close(self) -> None:
        os.close(self.log)
        os.close(self.index)
        if not self.ended.done():
            self.ended.cancel()


Event = Position | Chunk | Gap | End


def parse(batch: list[Parts]) -> list[Event]:
    messages = (decode(StreamOutputResponse, b"".join(parts)) for parts in batch)
    return [cast("Event", betterproto.which_one_of(message, "event")[1]) for message in messages]


async def read(log: Log, outputs: Outputs, *, to_end: bool = False, **span: Any) -> list[Event]:
    """All events of a span until the end."""
    events: list[Event] = []
    following = follow(log.source, outputs=outputs, span=Span(follow=to_end, **span))
    async with asyncio.timeout(PATIENCE), aclosing(following) as batches:
        async for batch in batches:
            events += parse(batch)
    assert isinstance(events[-1], End)
    return events


def data_of(events: list[Event], stream: int | None = None) -> bytes:
    return b"".join(e.data for e in events if isinstance(e, Chunk) and stream in (None, int(e.stream)))
