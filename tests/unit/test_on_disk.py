"""What docs/on-disk.md says is what is on disk: old files open, and a reader written from that page alone agrees."""

from pathlib import Path

import pytest

from jobworker import outputindex as index
from jobworker.supervisor import exitrecord
from tests.harness import stranger

DATA = Path(__file__).parents[1] / "data"
SAMPLES = sorted(path.name for path in DATA.glob("job-*"))
LINES = b"".join(
    b"line %d\n" % number + (b"error %d\n" % number if number % 8 == 7 else b"") for number in range(40)
)
WRITTEN = {"job-v1": b"hi\nno\nbye", "job-v1-newest": LINES + b"end", "job-v1-oldest": LINES + b"end"}
ENDS = {"job-v1": (9, 0, 0), "job-v1-newest": (357, 257, 0), "job-v1-oldest": (50, 0, 307)}


def ours(directory: Path) -> list[stranger.Found]:
    """What `outputindex` finds there, put as the stranger puts it."""
    log, data = (directory / index.LOG_NAME).read_bytes(), (directory / index.INDEX_NAME).read_bytes()
    header = index.unpack_header(data)
    found: list[stranger.Found] = [("gap", 0, header.head)] if header.head else []
    for record in index.read_records(data, index.find_offset(data, header.head), limit=999):
        start = max(record.start, header.head)
        found.append((record.stream, start, log[start : record.end]))
    if header.dropped:
        found.append(("gap", len(log), len(log) + header.dropped))
    return found


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
    sample = DATA / "job-v1"
    log, data = (sample / index.LOG_NAME).read_bytes(), (sample / index.INDEX_NAME).read_bytes()
    assert index.plan_repair(data, log_size=len(log), log_mtime_ns=0) is None
    found = [(r.stream, log[r.start : r.end]) for r in index.read_records(data, 0, limit=9)]
    assert found == [(1, b"hi\n"), (2, b"no\n"), (1, b"bye")]
    record = exitrecord.read(str(sample))
    assert record is not None
    assert (record["exit_code"], record["output_bytes"]) == (3, len(log))


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_opens_and_a_stranger_finds_the_same_in_it(name: str) -> None:
    log, data = (DATA / name / index.LOG_NAME).read_bytes(), (DATA / name / index.INDEX_NAME).read_bytes()
    assert index.plan_repair(data, log_size=len(log), log_mtime_ns=0) is None
    found = stranger.read(DATA / name)
    assert found == ours(DATA / name)
    for stream, offset, part in found:
        if isinstance(part, bytes):
            assert part == WRITTEN[name][offset : offset + len(part)]
            assert stream == (2 if part.startswith((b"error", b"no")) else 1)
    _, offset, last = found[-1]
    assert (offset + len(last) if isinstance(last, bytes) else last) == len(WRITTEN[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_its_exit_record_says_what_the_index_says(name: str) -> None:
    record = exitrecord.read(str(DATA / name))
    header = index.unpack_header((DATA / name / index.INDEX_NAME).read_bytes())
    assert record is not None
    told = record["output_bytes"], record["output_head"], record["output_dropped"]
    assert told == ENDS[name]
    assert told == ((DATA / name / index.LOG_NAME).stat().st_size, header.head, header.dropped)


def test_a_stranger_goes_on_anywhere(tmp_path: Path) -> None:
    for name in SAMPLES:
        whole = stranger.streams(stranger.read(DATA / name))
        size = sum(map(len, whole.values()))
        head = ENDS[name][1]
        for offset in range(head, head + size + 1):
            rest = stranger.streams(stranger.read(DATA / name, offset))
            assert sum(map(len, rest.values())) == head + size - offset
            assert all(whole[stream].endswith(rest[stream]) for stream in whole)


def test_a_stranger_finds_what_a_crash_left_without_a_record(tmp_path: Path) -> None:
    (tmp_path / index.LOG_NAME).write_bytes(b"helloworld")
    record = index.pack_record(5, stream=index.STDOUT, time_ns=1)
    header = index.pack_header(index.Header(pending=index.STDERR))
    (tmp_path / index.INDEX_NAME).write_bytes(header + record + record[:10])
    found = stranger.read(tmp_path)
    assert found == [(1, 0, b"hello"), (2, 5, b"world")]
    assert stranger.read(tmp_path, has_ended=False) == found[:1]
    index.mend(str(tmp_path))
    assert ours(tmp_path) == found
