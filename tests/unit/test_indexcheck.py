"""What is printed of an index, and that everything that can be wrong with one is named."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobworker import indexcheck
from jobworker import outputindex as index
from jobworker.outputindex import Header, pack_header, pack_record

DATA = Path(__file__).parents[1] / "data"
ZERO = bytes(24)


def piece(end: int, *, stream: int = 1, time_ns: int = 1) -> bytes:
    return pack_record(end, stream=stream, time_ns=time_ns)


def wrong(*records: bytes, log_size: int, header: Header | None = None) -> list[str]:
    header = header or Header()
    view = pack_header(header) + b"".join(records)
    return list(indexcheck.check(view, header, log_size=log_size, show=str))


@pytest.mark.parametrize(
    ("records", "log_size", "header"),
    [
        ([], 0, Header()),
        ([piece(5), piece(6, stream=2)], 6, Header(pending=2)),
        ([ZERO, ZERO, piece(5), piece(9)], 9, Header(head=5)),
        ([ZERO, ZERO, piece(5), piece(9)], 9, Header(head=8)),
        ([ZERO, piece(5)], 5, Header(head=5)),
        ([piece(2), piece(5), piece(9)], 9, Header(head=8)),
        ([piece(9)], 9, Header(dropped=1000)),
    ],
    ids=["empty", "plain", "head-at-record", "head-in-record", "all-gone", "not-given-back-yet", "dropped"],
)
def test_a_sound_index_is_found_sound(records: list[bytes], log_size: int, header: Header) -> None:
    assert wrong(*records, log_size=log_size, header=header) == []


@pytest.mark.parametrize(
    ("records", "log_size", "header", "words"),
    [
        ([], 4, Header(), ["4 bytes", "end at 0"]),
        ([piece(5)], 9, Header(), ["9 bytes", "end at 5"]),
        ([piece(5)], 3, Header(), ["ends at 5", "beyond the log, which has 3"]),
        ([piece(5), piece(9)[:7]], 5, Header(), ["torn: 7"]),
        ([piece(5), b"x" + piece(9)[1:], piece(12)], 12, Header(), ["record 1 ", "checksum"]),
        ([piece(5), ZERO, piece(9)], 9, Header(head=5), ["record 1 ", "checksum"]),
        ([piece(5), piece(5)], 5, Header(), ["record 1 ends at 5", "not beyond"]),
        ([piece(5, time_ns=9), piece(6, time_ns=8)], 6, Header(), ["record 1 ", "earlier"]),
        ([piece(5, stream=3)], 5, Header(), ["record 0 ", "stream 3"]),
        ([ZERO, piece(5), piece(9)], 9, Header(head=4), ["record 0", "head 4", "given back"]),
        ([ZERO, piece(5)], 5, Header(), ["record 0", "head 0", "given back"]),
        ([], 0, Header(head=3), ["head 3", "beyond the log"]),
        ([piece(5)], 5, Header(pending=0), ["pending stream is 0"]),
        ([piece(5)], 5, Header(head=3, dropped=2), ["both"]),
    ],
)
def test_what_is_wrong_is_named(
    records: list[bytes], log_size: int, header: Header, words: list[str]
) -> None:
    sentences = wrong(*records, log_size=log_size, header=header)
    assert any(all(word in sentence for word in words) for sentence in sentences), sentences


def test_a_long_row_of_records_that_were_given_back_is_counted() -> None:
    for count in (0, 1, 4095, 4096, 4097, 10_000):
        assert indexcheck.count_given_back(pack_header(Header()) + ZERO * count + piece(5)) == count
        assert indexcheck.count_given_back(pack_header(Header()) + ZERO * count) == count


def run_module(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobworker.outputindex", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("sample", "verdict"),
    [
        ("job-v1", "ok: 9 bytes, all indexed"),
        ("job-v1-newest", "ok: 357 bytes, all after 257 stored and indexed"),
        ("job-v1-oldest", "ok: 50 bytes, all indexed, 307 more dropped"),
    ],
)
def test_the_command_prints_and_checks_a_job(sample: str, verdict: str) -> None:
    done = run_module(DATA / sample)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == verdict


def test_the_command_shows_each_record_and_what_was_given_back() -> None:
    lines = run_module(DATA / "job-v1-newest").stdout.splitlines()
    assert lines[0] == "head 257  dropped 0  pending 1"
    assert "records 0 to 31 are given back" in lines
    assert "            ?          256       1  1795967915352296956" in lines
    assert "          272          281       2  1795967915375188119" in lines


def write_job(directory: Path, data: bytes, log: bytes) -> None:
    (directory / index.LOG_NAME).write_bytes(log)
    (directory / index.INDEX_NAME).write_bytes(data)


def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    write_job(tmp_path, pack_header(Header()) + piece(4), b"tails")
    done = run_module(tmp_path)
    assert done.returncode == 1
    verdict = "wrong: the log has 5 bytes, and the records end at 4: does the job still run?"
    assert done.stdout.splitlines()[-1] == verdict


@pytest.mark.parametrize("data", [b"junk" * 30, b"", None], ids=["foreign", "empty", "none"])
def test_the_command_says_when_there_is_no_index(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        write_job(tmp_path, data, b"")
    done = run_module(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "\nhint: " in done.stderr


def test_the_command_wants_one_directory() -> None:
    assert run_module().returncode == 2
