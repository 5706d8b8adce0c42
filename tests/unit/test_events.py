"""Events built by hand are what the generated classes write; cutting a log loses and doubles nothing."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from generated.jobworker.v1 import (
    Chunk,
    End,
    EndReason,
    Gap,
    GapReason,
    JobRecord,
    JobSpec,
    JobState,
    Position,
    RunJobResponse,
    Stream,
    StreamOutputResponse,
    Termination,
    Usage,
)
from jobworker import events
from jobworker.events import MAX_BATCH, MAX_CHUNK, UNREADABLE, Piece
from jobworker.outputindex import Record


def joined(event: events.Event) -> bytes:
    return b"".join(event)


OFFSETS = st.integers(0, 2**63 - 1)
TIMES = st.integers(-(2**63), 2**63 - 1)


@given(
    stream=st.sampled_from([1, 2]), offset=OFFSETS, data=st.binary(min_size=1, max_size=300), time_ns=TIMES
)
def test_a_chunk_is_what_the_generated_classes_write(
    stream: int, offset: int, data: bytes, time_ns: int
) -> None:
    piece = Piece(stream, offset, offset + len(data), time_ns)
    chunk = Chunk(stream=Stream(stream), offset=offset, data=data, time_unix_nano=time_ns)
    ours = joined(events.chunk(piece, memoryview(data)))
    assert ours == bytes(StreamOutputResponse(chunk=chunk)) == bytes(RunJobResponse(chunk=chunk))


@given(offset=OFFSETS)
def test_a_position_is_what_the_generated_classes_write(offset: int) -> None:
    event = StreamOutputResponse(position=Position(offset=offset))
    assert joined(events.position(offset)) == bytes(event)


def test_a_large_chunk_is_what_the_generated_classes_write() -> None:
    data = bytes(MAX_CHUNK)
    chunk = Chunk(stream=Stream(1), offset=5, data=data, time_unix_nano=1)
    assert joined(events.chunk(Piece(1, 5, 5 + len(data), 1), data)) == bytes(
        StreamOutputResponse(chunk=chunk)
    )


@given(
    start=OFFSETS,
    end=st.integers(1, 2**63 - 1),
    reason=st.sampled_from([events.RETENTION, events.CAP, events.DAMAGED]),
)
def test_a_gap_is_what_the_generated_classes_write(start: int, end: int, reason: GapReason) -> None:
    gap = Gap(from_=start, to=end, reason=reason)
    ours = joined(events.gap(start, end, reason))
    assert ours == bytes(StreamOutputResponse(gap=gap)) == bytes(RunJobResponse(gap=gap))


@given(
    termination=st.none() | st.builds(Termination, reason=st.just(EndReason(EndReason.EXITED)), exit_code=st.none() | st.integers(0, 255)),
    usage=st.none() | st.builds(Usage, cpu_user_usec=st.none() | st.integers(0, 2**64 - 1)),
    final_offset=OFFSETS,
)  # fmt: skip
def test_an_end_is_what_the_generated_classes_write(
    termination: Termination | None, usage: Usage | None, final_offset: int
) -> None:
    end = End(termination=termination, usage=usage, final_offset=final_offset)
    ours = joined(events.end(JobRecord(termination=termination, usage=usage), final_offset=final_offset))
    assert ours == bytes(StreamOutputResponse(end=end)) == bytes(RunJobResponse(end=end))


def test_the_end_of_a_stream_up_to_the_present_tells_no_termination() -> None:
    assert joined(events.end(None, final_offset=7)) == bytes(StreamOutputResponse(end=End(final_offset=7)))


def test_the_first_event_of_a_run_is_what_the_generated_classes_write() -> None:
    record = JobRecord(
        job_id="a",
        spec=JobSpec(argv=["true"]),
        state=JobState(JobState.RUNNING),
        created_at=datetime.now(UTC),
    )
    assert joined(events.started(record)) == bytes(RunJobResponse(started=record))


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Records as an index has them: neighbours without holes, streams in any order, some of them long."""
    sizes = st.integers(1, 50) | st.integers(MAX_CHUNK - 2, MAX_CHUNK + 2) | st.just(3 * MAX_CHUNK)
    records, start = [], 0
    for number, (size, stream) in enumerate(
        draw(st.lists(st.tuples(sizes, st.sampled_from([1, 2])), max_size=12))
    ):
        records.append(Record(start, start + size, stream=stream, time_ns=1000 + number))
        start += size
    return records


@given(records=logs(), data=st.data(), wanted=st.sampled_from([frozenset(), {1}, {2}, {1, 2}]))
def test_pieces_cover_what_is_wanted_exactly_once(
    records: list[Record], data: st.DataObject, wanted: frozenset[int]
) -> None:
    size = records[-1].end if records else 0
    cursor = first = data.draw(st.integers(0, size))
    pieces: list[Piece] = []
    while True:
        batch, after = events.cut(records, cursor=cursor, wanted=wanted)
        if batch:
            assert batch[-1].end - batch[0].start <= MAX_BATCH
        pieces += batch
        if after == cursor:
            break
        cursor = after
    assert cursor == size
    covered = [
        (max(record.start, first), record.end, record.stream)
        for record in records
        if record.end > first and (not wanted or record.stream in wanted)
    ]
    assert sum(piece.end - piece.start for piece in pieces) == sum(end - start for start, end, _ in covered)
    ends = 0
    for piece in pieces:
        assert ends <= piece.start < piece.end <= piece.start + MAX_CHUNK
        assert all(
            stream == piece.stream
            for start, end, stream in covered
            if start < piece.end and end > piece.start
        )
        holder = next(record for record in records if record.start <= piece.start < record.end)
        assert piece.time_ns == holder.time_ns, "the time of a piece is the time of its first byte"
        ends = piece.end


def test_what_the_index_cannot_tell_is_a_piece_of_its_own() -> None:
    records = [
        Record(0, 10, stream=1, time_ns=1),
        Record(10, 30, stream=UNREADABLE, time_ns=2),
        Record(30, 40, stream=1, time_ns=3),
    ]
    assert events.cut(records, cursor=0, wanted=frozenset()) == ([Piece(1, 0, 10, 1)], 10)
    assert events.cut(records, cursor=10, wanted=frozenset({2})) == ([Piece(UNREADABLE, 10, 30, 2)], 30)
    assert events.cut(records, cursor=30, wanted=frozenset()) == ([Piece(1, 30, 40, 3)], 40)


def test_bytes_before_the_first_record_are_not_skipped_in_silence() -> None:
    records = [Record(20, 30, stream=1, time_ns=1)]
    assert events.cut(records, cursor=5, wanted=frozenset()) == ([Piece(UNREADABLE, 5, 20, 1)], 20)
