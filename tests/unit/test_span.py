"""Spans against a slow oracle: a plain list of pieces that an index was made from, its old records zeroed or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker import span
from jobworker.beginning import after_newline
from jobworker.outputindex import (
    HEADER_SIZE,
    RECORD_SIZE,
    Header,
    Record,
    find_offset,
    pack_header,
    pack_record,
)

Pieces = list[tuple[int, int, int]]  # stream, length, time that went by before it
PIECES = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=40
)
TIMES = st.integers(-1, 130)


def records_of(pieces: Pieces) -> list[Record]:
    records: list[Record] = []
    end, time_ns = 0, 1
    for stream, length, delay in pieces:
        time_ns += delay
        records.append(Record(end, end + length, stream=stream, time_ns=time_ns))
        end += length
    return records


def index_of(records: list[Record], *, head: int = 0) -> bytes:
    """As it is on disk when all before `head` was given back, but for the last record before it."""
    data = pack_header(Header(head=head))
    data += b"".join(pack_record(r.end, stream=r.stream, time_ns=r.time_ns) for r in records)
    zeros = max(0, find_offset(data, head) - 1) * RECORD_SIZE if head else 0
    return data[:HEADER_SIZE] + bytes(zeros) + data[HEADER_SIZE + zeros :]


@given(pieces=PIECES, time_ns=TIMES)
def test_since_and_until_divide_the_output_at_a_time(pieces: Pieces, time_ns: int) -> None:
    records = records_of(pieces)
    view = index_of(records)
    border = sum(r.end - r.start for r in records if r.time_ns < time_ns)
    assert span.since(view, time_ns, head=0) == border
    stop = span.until(view, time_ns, head=0)
    assert stop == border or (stop is None and border == records[-1].end)


@given(pieces=PIECES, time_ns=TIMES, data=st.data())
def test_what_was_dropped_may_be_of_any_time(pieces: Pieces, time_ns: int, data: st.DataObject) -> None:
    records = records_of(pieces)
    head = data.draw(st.integers(0, records[-1].end - 1))
    view = index_of(records, head=head)
    border = sum(r.end - r.start for r in records if r.time_ns < time_ns)
    begin = span.since(view, time_ns, head=head)
    assert begin == border or (begin == 0 and border <= head)
    stop = span.until(view, time_ns, head=head)
    assert stop == border or (stop == head and border <= head) or (stop is None and border == records[-1].end)


@given(pieces=PIECES, data=st.data())
def test_the_records_before_an_offset_are_those_that_are_stored(pieces: Pieces, data: st.DataObject) -> None:
    records = records_of(pieces)
    head = data.draw(st.integers(0, records[-1].end - 1))
    stop = data.draw(st.integers(head, records[-1].end + 3))
    pages = list(span.records_before(index_of(records, head=head), stop, head=head))
    found = [record for page in reversed(pages) for record in page]
    assert span.clip(found, head, stop) == span.clip(records, head, stop)


def test_pages_are_bounded_and_complete() -> None:
    records = records_of([(1, 1, 0)] * (2 * span.PAGE + 7))
    pages = list(span.records_before(index_of(records), 10**9, head=0))
    assert [len(page) for page in pages] == [span.PAGE, span.PAGE, 7]
    assert [record for page in reversed(pages) for record in page] == records


def test_a_damaged_record_ends_the_way_back_where_offsets_are_certain() -> None:
    records = records_of([(1, 2, 0)] * 10)
    view = bytearray(index_of(records))
    view[HEADER_SIZE + 4 * RECORD_SIZE] ^= 1
    [page] = span.records_before(bytes(view), 20, head=0)
    assert page == records[6:], "where record 5 begins only the damaged one tells"
    view[HEADER_SIZE + 9 * RECORD_SIZE] ^= 1
    assert list(span.records_before(bytes(view), 20, head=0)) == [[]]


def test_an_empty_index_has_nothing() -> None:
    view = pack_header(Header())
    assert list(span.records_before(view, 0, head=0)) == []
    assert list(span.records_before(view, 5, head=0)) == []
    assert (span.since(view, 3, head=0), span.until(view, 3, head=0)) == (0, None)


@pytest.mark.parametrize(
    ("start", "stop", "left"), [(0, 9, [(0, 3), (3, 5)]), (1, 4, [(1, 3), (3, 4)]), (3, 3, []), (5, 9, [])]
)
def test_clipping(start: int, stop: int, left: list[tuple[int, int]]) -> None:
    clipped = span.clip(records_of([(1, 3, 0), (2, 2, 0)]), start, stop)
    assert [(r.start, r.end) for r in clipped] == left


@given(data=st.binary(max_size=20).map(lambda text: text.replace(b"\0", b"\n")), count=st.integers(1, 20))
def test_the_nth_newline_from_the_end(data: bytes, count: int) -> None:
    places = [place for place, byte in enumerate(data) if byte == ord("\n")]
    if count <= len(places):
        assert after_newline(data, count) == places[-count] + 1


def test_the_simple_spans() -> None:
    assert not span.Span().begins_elsewhere
    assert span.Span().is_open
    assert span.Span(tail_lines=0).begins_elsewhere
    assert not span.Span(until_ns=0).is_open
