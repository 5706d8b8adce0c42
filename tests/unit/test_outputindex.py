"""output.idx against a slow oracle: a plain list of (stream, bytes, time) that the log was written from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker import outputindex as index
from jobworker.supervisor import exitrecord

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


@given(chunks, st.integers(-1, 160))
def test_a_time_is_found_where_a_walk_finds_it(written: Chunks, time_ns: int) -> None:
    records = records_of(written)
    walked = next((n for n, r in enumerate(records) if r.time_ns >= time_ns), len(records))
    assert index.find_time(packed(records), time_ns) == walked


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


def test_the_example_of_the_documentation_is_true() -> None:
    page = (Path(__file__).parents[2] / "docs" / "on-disk.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("000000")]
    data = bytes.fromhex("".join(line[10:58] for line in lines))
    assert index.unpack_header(data).pending == index.STDERR
    assert [(r.start, r.end, r.stream) for r in index.read_records(data, 0, limit=9)] == [
        (0, 3, 1),
        (3, 6, 2),
    ]


def test_files_of_version_1_open() -> None:
    sample = Path(__file__).parents[1] / "data" / "job-v1"
    log, data = (sample / index.LOG_NAME).read_bytes(), (sample / index.INDEX_NAME).read_bytes()
    assert index.plan_repair(data, log_size=len(log), log_mtime_ns=0) is None
    found = [(r.stream, log[r.start : r.end]) for r in index.read_records(data, 0, limit=9)]
    assert found == [(1, b"hi\n"), (2, b"no\n"), (1, b"bye")]
    record = exitrecord.read(str(sample))
    assert record is not None
    assert (record["exit_code"], record["output_bytes"]) == (3, len(log))


def write_job(directory: Path, data: bytes, log: bytes) -> None:
    (directory / index.LOG_NAME).write_bytes(log)
    (directory / index.INDEX_NAME).write_bytes(data)


def run_module(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobworker.outputindex", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


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


def test_the_module_prints_and_checks_a_job(tmp_path: Path) -> None:
    write_job(tmp_path, packed(records_of([(1, 5, 1), (2, 6, 1)])), b"hello world")
    done = run_module(tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "ok: 11 bytes, all indexed"
    assert "            5           11       2                    2" in done.stdout


@pytest.mark.parametrize(("data", "log"), [(packed([]), b"tail"), (b"junk" * 30, b""), (b"", b"")])
def test_the_module_says_when_an_index_is_not_in_order(tmp_path: Path, data: bytes, log: bytes) -> None:
    write_job(tmp_path, data, log)
    assert run_module(tmp_path).returncode == 1


def test_the_module_says_when_there_is_no_index(tmp_path: Path) -> None:
    done = run_module(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
