"""output.idx against a slow oracle: a plain list of (stream, bytes, time) that the log was written from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker import outputindex as index

chunks = st.lists(
    st.tuples(st.sampled_from([index.STDOUT, index.STDERR]), st.integers(1, 50), st.integers(0, 5)),
    max_size=30,
)
Chunks = list[tuple[int, int, int]]


def records_of(written: Chunks) -> list[index.Record]:
    records: list[index.Record] = []
    end = time_ns = 0
    for stream, length, delay in written:
        time_ns += delay
        records.append(index.Record(end, end + length, stream=stream, time_ns=time_ns))
        end += length
    return records


def packed(records: list[index.Record], header: index.Header | None = None) -> bytes:
    body = b"".join(index.pack_record(r.end, stream=r.stream, time_ns=r.time_ns) for r in records)
    return index.pack_header(header or index.Header()) + body


def repaired(data: bytes, *, log_size: int, log_mtime_ns: int) -> bytes:
    plan = index.plan_repair(data, log_size=log_size, log_mtime_ns=log_mtime_ns)
    if plan is None:
        return data
    header = plan.header or b""
    return header + data[len(header) : plan.size] + plan.append


@given(chunks)
def test_records_come_back_as_written(written: Chunks) -> None:
    records = records_of(written)
    data = packed(records)
    assert index.count_records(data) == len(records)
    assert [index.record_at(data, number) for number in range(len(records))] == records
    assert index.read_records(data, 0, limit=len(records) + 1) == records
    assert index.read_records(data, 1, limit=2) == records[1:3]


@given(chunks, st.integers(0, 1600))
def test_an_offset_is_found_where_a_walk_finds_it(written: Chunks, offset: int) -> None:
    records = records_of(written)
    walked = next((n for n, r in enumerate(records) if r.start <= offset < r.end), len(records))
    assert index.find_offset(packed(records), offset) == walked


@given(chunks, st.data())
def test_a_writer_killed_anywhere_loses_no_byte_and_no_whole_record(
    written: Chunks, data: st.DataObject
) -> None:
    records = records_of(written)
    whole = packed(records, index.Header(pending=index.STDERR))
    cut = data.draw(st.integers(0, len(whole)), label="bytes of index that reached the file")
    kept = records[: max(0, cut - index.HEADER_SIZE) // index.RECORD_SIZE]
    indexed = kept[-1].end if kept else 0
    log_size = data.draw(st.integers(indexed, indexed + 60), label="bytes of log")
    mended = repaired(whole[:cut], log_size=log_size, log_mtime_ns=10**6)
    found = index.read_records(mended, 0, limit=100)
    assert found[: len(kept)] == kept
    tail = found[len(kept) :]
    stream = index.STDERR if cut >= index.HEADER_SIZE else index.STDOUT
    expected = index.Record(indexed, log_size, stream=stream, time_ns=10**6)
    assert tail == ([expected] if log_size > indexed else [])
    assert index.plan_repair(mended, log_size=log_size, log_mtime_ns=10**6) is None


@given(chunks, st.data())
def test_damage_to_the_last_record_costs_its_tag_only(written: Chunks, data: st.DataObject) -> None:
    records = records_of([*written, (index.STDERR, 7, 1)])
    whole = bytearray(packed(records))
    bit = data.draw(st.integers(0, index.RECORD_SIZE * 8 - 1))
    whole[len(whole) - index.RECORD_SIZE + bit // 8] ^= 1 << bit % 8
    mended = repaired(bytes(whole), log_size=records[-1].end, log_mtime_ns=10**6)
    found = index.read_records(mended, 0, limit=100)
    assert found[:-1] == records[:-1]
    assert (found[-1].start, found[-1].end, found[-1].stream) == (
        records[-1].start,
        records[-1].end,
        index.STDOUT,
    )


@given(chunks)
def test_records_beyond_the_log_are_cut(written: Chunks) -> None:
    records = records_of(written)
    log_size = sum(r.end - r.start for r in records[:3])
    mended = repaired(packed(records), log_size=log_size, log_mtime_ns=10**6)
    assert index.read_records(mended, 0, limit=100) == records[:3]


def test_a_header_comes_back_as_written() -> None:
    header = index.unpack_header(
        index.pack_header(index.Header(pending=2, head=2**63, dropped=2**40, created_ns=-5))
    )
    assert (header.pending, header.head, header.dropped, header.created_ns) == (2, 2**63, 2**40, -5)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"JWOUTIDX",
        b"x" * 64,
        b"JWOUTIDX\x02\x00\x18\x00" + bytes(52),
        b"JWOUTIDX\x01\x00\x20\x00" + bytes(52),
    ],
    ids=["empty", "short", "foreign", "newer", "other-record-size"],
)
def test_what_is_no_header_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(index.IndexFormatError):
        index.unpack_header(data)


def test_a_foreign_or_newer_file_is_not_mended() -> None:
    with pytest.raises(index.IndexFormatError):
        index.plan_repair(b"JWOUTIDX\x02\x00\x18\x00" + bytes(52), log_size=3, log_mtime_ns=0)


def test_a_wrong_checksum_is_told_not_decoded() -> None:
    damaged = bytearray(packed(records_of([(1, 5, 1), (2, 5, 1)])))
    damaged[index.HEADER_SIZE] ^= 1
    with pytest.raises(index.IndexFormatError, match="checksum"):
        index.read_records(bytes(damaged), 0, limit=2)


def test_a_record_that_is_not_there_is_an_index_error() -> None:
    for number in (-1, 0):
        with pytest.raises(IndexError):
            index.record_at(packed([]), number)


def write_job(directory: Path, data: bytes, log: bytes) -> None:
    (directory / index.LOG_NAME).write_bytes(log)
    (directory / index.INDEX_NAME).write_bytes(data)


def test_an_open_file_is_searched_like_bytes_and_mended_in_place(tmp_path: Path) -> None:
    records = records_of([(1, 5, 1), (2, 5, 1)])
    write_job(tmp_path, packed(records)[:-1], b"helloworld!!")
    os.utime(tmp_path / index.LOG_NAME, ns=(99, 99))
    fd = os.open(tmp_path / index.INDEX_NAME, os.O_RDWR)
    log_fd = os.open(tmp_path / index.LOG_NAME, os.O_RDONLY)
    try:
        view = index.IndexFile(fd)
        assert index.count_records(view) == 1
        assert index.repair(fd, log_fd) is not None
        assert index.repair(fd, log_fd) is None
        assert index.record_at(view, index.find_offset(view, 5)) == index.Record(5, 12, stream=1, time_ns=99)
    finally:
        os.close(fd)
        os.close(log_fd)


def test_a_directory_is_mended_once(tmp_path: Path) -> None:
    write_job(tmp_path, packed(records_of([(1, 5, 1)]), index.Header(pending=index.STDERR)), b"helloworld")
    done = index.mend(str(tmp_path))
    assert done is not None
    assert index.mend(str(tmp_path)) is None
    data = (tmp_path / index.INDEX_NAME).read_bytes()
    found = [(r.start, r.end, r.stream) for r in index.read_records(data, 0, limit=9)]
    assert found == [(0, 5, index.STDOUT), (5, 10, index.STDERR)]


def test_what_is_not_ours_or_not_there_is_not_mended(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        index.mend(str(tmp_path))
    write_job(tmp_path, b"junk" * 30, b"log")
    with pytest.raises(index.IndexFormatError):
        index.mend(str(tmp_path))
    assert (tmp_path / index.INDEX_NAME).read_bytes() == b"junk" * 30


@given(chunks.filter(bool), st.data())
def test_records_that_were_given_back_are_never_found_from_the_head_on(
    written: Chunks, data: st.DataObject
) -> None:
    records = records_of(written)
    head = data.draw(st.integers(0, records[-1].end), label="head")
    whole = packed(records, index.Header(head=head))
    first = max(0, index.find_offset(whole, head) - 1)
    size = index.RECORD_SIZE * first
    holed = whole[: index.HEADER_SIZE] + bytes(size) + whole[index.HEADER_SIZE + size :]
    for offset in range(head, records[-1].end + 1):
        number = index.find_offset(holed, offset)
        assert number == index.find_offset(whole, offset)
        assert index.read_records(holed, number, limit=99) == records[number:]
    assert index.plan_repair(holed, log_size=records[-1].end, log_mtime_ns=0) is None
    if first:
        with pytest.raises(index.IndexFormatError):
            index.record_at(holed, first - 1)


def test_a_pending_stream_that_is_none_is_mended_as_standard_output() -> None:
    mended = repaired(packed([], index.Header(pending=7)), log_size=3, log_mtime_ns=9)
    assert index.read_records(mended, 0, limit=9) == [index.Record(0, 3, stream=index.STDOUT, time_ns=9)]
