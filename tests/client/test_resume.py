"""Following over a connection that is cut anywhere, against a worker that is a list: no byte twice, none lost, no gap unmarked.

The worker here answers encoded requests with encoded events as the API has it, in a few obvious lines; what is
cut, and after how many events, hypothesis chooses.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobctl
from generated.jobworker import v1
from jobctl import Chunk, Stream
from jobctl.connection import Connection
from jobctl.errors import ConnectionLost, Unavailable
from jobctl.events import End, Event, Gap, Position
from jobctl.output import Cursor, Output, follow
from jobctl.span import span
from jobwire.codec import decode, encode

NOW = 1_000  # nanoseconds; piece n was taken at n microseconds
ENDED = v1.Termination(reason=v1.EndReason(v1.EndReason.EXITED), exit_code=0)


class ListedWorker:
    """A connection to a worker whose one job has written `pieces`; the bytes before `head` are gone.

    Each request is cut after as many events as `cuts` says, in turn; then they are answered whole.
    """

    answered = True

    def __init__(
        self, pieces: Sequence[tuple[int, bytes]], *, head: int = 0, cuts: Sequence[int] = ()
    ) -> None:
        self.asked: list[v1.StreamOutputRequest] = []
        self._cuts = list(cuts)
        self._pieces, at = [], 0
        for stream, data in pieces:
            self._pieces.append((at, stream, data))
            at += len(data)
        self.size, self._head = at, head

    async def stream(self, method: str, request: bytes) -> AsyncGenerator[bytes, None]:
        """As Connection does it."""
        assert method == "/jobworker.v1.JobService/StreamOutput"
        wanted = decode(v1.StreamOutputRequest, request)
        self.asked.append(wanted)
        cut = self._cuts.pop(0) if self._cuts else None
        for number, event in enumerate(self._events(wanted)):
            if number == cut:
                break
            yield encode(v1.StreamOutputResponse(**event))
        if cut is not None:
            raise ConnectionLost("cut") if cut % 2 else Unavailable("nothing was taken for 30 s")

    def _events(self, wanted: v1.StreamOutputRequest) -> list[dict[str, Any]]:
        begin, stop = wanted.offset, self.size if wanted.until_offset is None else wanted.until_offset
        streams = set(map(int, wanted.streams)) or {1, 2}
        found: list[dict[str, Any]] = []
        if wanted.tail_bytes is not None:
            mine = [
                at + n for at, stream, data in self._pieces if stream in streams for n in range(len(data))
            ]
            mine = [at for at in mine if at < stop]
            begin = max(begin, mine[-wanted.tail_bytes] if 0 < wanted.tail_bytes <= len(mine) else 0)
            if not wanted.tail_bytes:
                begin = stop
            found.append({"position": v1.Position(offset=begin)})
        if begin < (to := min(self._head, stop)):
            found.append({"gap": v1.Gap(from_=begin, to=to, reason=v1.GapReason(v1.GapReason.RETENTION))})
            begin = to
        for at, stream, data in self._pieces:
            part = data[max(0, begin - at) : max(0, stop - at)]
            if part and stream in streams:
                start = max(begin, at)
                chunk = v1.Chunk(stream=v1.Stream(stream), offset=start, data=part, time_unix_nano=at)
                found.append({"chunk": chunk})
        return [*found, {"end": v1.End(termination=ENDED, final_offset=stop)}]


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobctl.reconnect.LONGEST_PAUSE", 0.0)
    monkeypatch.setattr("jobctl.reconnect.FIRST_PAUSE", 0.0)


def followed(worker: ListedWorker, **options: Any) -> list[Event]:
    async def collect() -> list[Event]:
        cursor = Cursor("0199", span(now_unix_nano=NOW, **options))
        return [event async for event in follow(cast("Connection", worker), cursor)]

    return asyncio.run(collect())


PIECES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=5)), max_size=8)
CUTS = st.lists(st.integers(0, 5), max_size=6)


@given(PIECES, CUTS, st.data())
def test_what_arrives_is_what_would_have_arrived_uncut(
    pieces: list[tuple[int, bytes]], cuts: list[int], data: st.DataObject
) -> None:
    """Each byte once and in order, the gap once, the end once, whatever was asked for."""
    size = sum(len(part) for _, part in pieces)
    head = data.draw(st.integers(0, size), "head")
    options: dict[str, Any] = {"streams": data.draw(st.sampled_from([(), (Stream.STDERR,)]), "streams")}
    if data.draw(st.booleans(), "tail"):
        options["tail_bytes"] = data.draw(st.integers(0, size), "tail_bytes")
    else:
        options["offset"] = data.draw(st.integers(0, size), "offset")
    if data.draw(st.booleans(), "bounded"):
        options["until_offset"] = data.draw(st.integers(options.get("offset", 0), size), "until")
    whole = followed(ListedWorker(pieces, head=head), **options)
    worker = ListedWorker(pieces, head=head, cuts=cuts)
    in_parts = followed(worker, **options)
    assert written(in_parts) == written(whole)
    assert gaps(in_parts) == gaps(whole)
    assert [event for event in in_parts if isinstance(event, End)] == whole[-1:]
    for request in worker.asked:
        assert (request.until_offset, request.follow) == (options.get("until_offset"), True)
        assert tuple(map(int, request.streams)) == options["streams"]


def written(events: list[Event]) -> list[tuple[int, int, int]]:
    """Every byte with its stream and offset."""
    return [
        (event.stream, event.offset + n, byte)
        for event in events
        if isinstance(event, Chunk)
        for n, byte in enumerate(event.data)
    ]


def gaps(events: list[Event]) -> list[Gap]:
    return [event for event in events if isinstance(event, Gap)]


def test_a_tail_is_counted_once() -> None:
    worker = ListedWorker([(1, b"one"), (2, b"two"), (1, b"six")], cuts=[0, 1, 2])
    events = followed(worker, tail_bytes=5)
    assert [(one.tail_bytes, one.offset) for one in worker.asked] == [(5, 0), (5, 0), (None, 4), (None, 9)]
    assert [event.offset for event in events if isinstance(event, Position)] == [4]
    assert written(events) == [
        (2, 4, ord("w")),
        (2, 5, ord("o")),
        (1, 6, ord("s")),
        (1, 7, ord("i")),
        (1, 8, ord("x")),
    ]


def test_a_gap_on_going_on_is_told_once() -> None:
    worker = ListedWorker([(1, b"0123456789")], head=4, cuts=[1, 1])
    told: list[Gap] = []

    async def collect() -> bytes:
        output = Output(
            cast("Connection", worker), Cursor("0199"), timeout=None, patience=None, on_gap=told.append
        )
        return b"".join([chunk.data async for chunk in output])

    assert asyncio.run(collect()) == b"456789"
    assert [(gap.start, gap.end, gap.reason) for gap in told] == [(0, 4, jobctl.GapReason.RETENTION)]
    assert [request.offset for request in worker.asked] == [0, 4, 10]
