"""grpclib's calls on one connection, whatever their peer sends; how connections are set up is not known here.

Decides what a peer may send within a call, and that nothing is left of it at its end:

- a limit on the size of a message, known before it is buffered;
- a call that was reset at once leaves nothing behind;
- what peers may send and grpclib does not expect (frames of an unknown kind, frames without data, a deadline that
  is over) does no harm, and what they may not send ends their call, without a traceback.

Source: RFC 9113 (HTTP/2) section 4.1.
"""

from asyncio import Task, get_running_loop
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import grpclib.protocol
import grpclib.server
import grpclib.utils
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline
from h2.errors import ErrorCodes
from h2.events import Event

# What grpclib reads of a request; nothing else of it is of use here, and grpclib cannot take all that it may be.
READ_HEADERS = frozenset((":method", ":path", "content-type", "te", "grpc-timeout"))
NEEDED_HEADERS = frozenset((":method", ":path"))
LONGEST_TIMEOUT = 9  # characters: eight digits and a unit


class Buffer(grpclib.protocol.Buffer):
    """What a stream has received; frames without data, of which a peer may send any number, are not kept.

    grpclib takes one for the stream's end.
    """

    def add(self, data: bytes, ack_size: int) -> None:
        if ack_size:
            super().add(data, ack_size)


cast("Any", grpclib.protocol).Buffer = Buffer


class Stream(grpclib.protocol.Stream):
    """A stream that refuses a message too large for this end as soon as its length is known."""

    async def recv_data(self, size: int) -> bytes:
        limit = cast("Connection", self.connection).max_message
        if size > limit:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes is over the limit of {limit} bytes"
            )
        return await super().recv_data(size)


class Connection(grpclib.protocol.Connection):
    """grpclib's connection, with a limit on messages."""

    max_message: int

    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> Stream:
        return Stream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)


class EventsProcessor(grpclib.protocol.EventsProcessor):
    """grpclib's, for peers that send what it does not know, which is to be ignored (RFC 9113, section 4.1)."""

    def process(self, event: Event) -> None:
        with suppress(NotImplementedError):
            super().process(event)


class DeadlineWrapper(grpclib.utils.DeadlineWrapper):
    """grpclib's; a deadline that is over already is one that comes at once, and no defect of the server."""

    @contextmanager
    def start(self, deadline: Deadline) -> Iterator[None]:
        timer = get_running_loop().call_later(
            deadline.time_remaining(), self.cancel, TimeoutError("Deadline exceeded")
        )
        try:
            yield
        finally:
            timer.cancel()


cast("Any", grpclib.server).DeadlineWrapper = DeadlineWrapper


class Handler(grpclib.server.Handler):
    """grpclib's calls of one connection, each forgotten at its end, however early that came.

    By itself it keeps the stream of a call that was reset before its task had begun for as long as the connection
    lives, and of each call that lost its connection the task, with all that it had in hand, until others have come.
    """

    stillborn = 0  # calls that their peer has reset before they could begin

    def cancel(self, stream: grpclib.protocol.Stream) -> None:
        self.stillborn += stream.wrapper is None
        super().cancel(stream)

    def accept(
        self, stream: grpclib.protocol.Stream, headers: Any, release_stream: Callable[[], Any]
    ) -> None:
        releases = [release_stream]

        def release() -> None:
            if releases:
                releases.pop()()

        def forget(task: Task[None]) -> None:
            release()
            self._tasks.pop(stream, None)
            self._cancelled.discard(task)
            if stream.wrapper is not None:  # else error, frames and wrapper keep each other
                stream.wrapper._error = None

        read = _readable(headers)
        if NEEDED_HEADERS.issubset(name for name, _ in read):
            super().accept(stream, read, release)
            self._tasks[stream].add_done_callback(forget)
            return
        release()
        if stream.closable:
            stream.reset_nowait(ErrorCodes.PROTOCOL_ERROR)


def _readable(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that grpclib reads; a timeout of more digits than there may be, which it would not survive, as none at all."""
    return [
        (name, "" if name == "grpc-timeout" and len(value) > LONGEST_TIMEOUT else value)
        for name, value in headers
        if name in READ_HEADERS
    ]
