"""Events cut out of a message by hand are what the generated classes see in it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generated.jobworker import v1
from jobctl import events
from jobctl.events import Chunk, End, Gap, Position, Started, Stream
from jobctl.output import Cursor
from jobwire.codec import encode
from jobwire.wire import WireError, field_bytes, field_varint

NUMBERS = st.integers(0, 2**63 - 1)
STREAMS = [v1.Stream(stream) for stream in v1.Stream if stream]
CHUNKS = st.builds(
    v1.Chunk, stream=st.sampled_from(STREAMS), offset=NUMBERS, data=st.binary(), time_unix_nano=NUMBERS
)
GAPS = st.builds(
    v1.Gap, from_=NUMBERS, to=NUMBERS, reason=st.sampled_from([v1.GapReason(r) for r in v1.GapReason])
)
ENDS = st.builds(
    v1.End,
    termination=st.none() | st.builds(v1.Termination, exit_code=st.none() | st.integers(0, 255)),
    usage=st.none() | st.builds(v1.Usage, cpu_user_usec=st.none() | NUMBERS),
    final_offset=NUMBERS,
)


def test_the_streams_are_those_of_the_api() -> None:
    assert {stream.name: int(stream) for stream in Stream} == {
        stream.name: int(stream) for stream in v1.Stream if stream
    }


@pytest.mark.parametrize("kind", [v1.StreamOutputResponse, v1.RunJobResponse])
@given(chunk=CHUNKS)
def test_a_chunk(kind: Any, chunk: v1.Chunk) -> None:
    parsed = events.parse(encode(kind(chunk=chunk)))
    assert parsed == Chunk(Stream(chunk.stream), chunk.offset, chunk.data, chunk.time_unix_nano)


@given(gap=GAPS)
def test_a_gap(gap: v1.Gap) -> None:
    parsed = events.parse(encode(v1.StreamOutputResponse(gap=gap)))
    assert parsed == Gap(gap.from_, gap.to, int(gap.reason))
    assert isinstance(parsed, Gap)
    assert parsed.reason == gap.reason
    assert parsed.why


@given(end=ENDS)
def test_an_end(end: v1.End) -> None:
    parsed = events.parse(encode(v1.StreamOutputResponse(end=end)))
    assert parsed == End(
        None if end.termination is None else encode(end.termination),
        None if end.usage is None else encode(end.usage),
        end.final_offset,
    )


def test_a_start() -> None:
    record = v1.JobRecord(job_id="0199", owner="alice")
    assert events.parse(encode(v1.RunJobResponse(started=record))) == Started(encode(record))


@given(offset=NUMBERS)
def test_a_position(offset: int) -> None:
    message = v1.StreamOutputResponse(position=v1.Position(offset=offset))
    assert events.parse(encode(message)) == Position(offset)


def test_every_event_of_the_api_is_known() -> None:
    known = {"chunk", "gap", "end", "started", "position"}
    kinds = (v1.RunJobResponse, v1.StreamOutputResponse)
    assert {name for kind in kinds for name in kind.__dataclass_fields__} == known


def test_an_event_from_the_future_is_passed_over() -> None:
    assert events.parse(field_bytes(99, b"anything")) is None


def test_the_time_of_a_chunk() -> None:
    chunk = Chunk(Stream.STDOUT, 0, b"", 1_700_000_000_123_456_789)
    assert chunk.time == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a",
        b"\x0a\x05ab",
        b"\x08\x01",
        field_bytes(1, field_varint(1, 3)),
        field_bytes(1, b"\x1a\x05ab"),
        field_bytes(3, field_varint(1, 1)),
        field_bytes(1, field_varint(1, 1)) + b"trailing",
    ],
)
def test_what_is_no_event(data: bytes) -> None:
    with pytest.raises(WireError):
        events.parse(data)


@given(st.binary(max_size=40))
def test_any_bytes_are_an_event_or_refused(data: bytes) -> None:
    try:
        events.parse(data)
    except WireError:
        with pytest.raises(WireError):
            events.parse(data)


@given(chunk=CHUNKS, gap=GAPS)
def test_a_cursor_asks_for_what_comes_next(chunk: v1.Chunk, gap: v1.Gap) -> None:
    cursor = Cursor.of_run(b"run")
    assert cursor.request() == ("/jobworker.v1.JobService/RunJob", b"run")
    steps: list[tuple[Any, int]] = [
        (v1.RunJobResponse(started=v1.JobRecord(job_id="0199")), 0),
        (v1.RunJobResponse(chunk=chunk), chunk.offset + len(chunk.data)),
        (v1.RunJobResponse(gap=gap), gap.to),
    ]
    for message, offset in steps:
        event = events.parse(encode(message))
        assert event is not None
        cursor.advance(event)
        method, data = cursor.request()
        assert method == "/jobworker.v1.JobService/StreamOutput"
        assert v1.StreamOutputRequest().parse(data) == v1.StreamOutputRequest(
            job_id="0199", offset=offset, follow=True
        )
