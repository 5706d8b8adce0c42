"""`python -m jobworker.outputindex DIRECTORY`: prints the index of a job's output and says what is wrong with it.

Decides what a sound index is, sentence by sentence of docs/on-disk.md, and names each that does not hold. Reads a page
of records at a time, however long the index is. Nothing is mended here.
"""

from __future__ import annotations

import os
import sys

from jobworker.outputindex import (
    HEADER_SIZE,
    INDEX_NAME,
    LOG_NAME,
    RECORD_SIZE,
    STDERR,
    STDOUT,
    IndexFile,
    IndexFormatError,
    Record,
    count_records,
    read_header,
    record_at,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobworker.outputindex import Bytes, Header

_PAGE = 4096  # records looked at together for having been given back
_USAGE = "usage: python -m jobworker.outputindex DIRECTORY\n"


def main(arguments: list[str]) -> int:
    """Prints the index of the job directory given, and tells whether it and the log are sound (0) or not (1)."""
    if len(arguments) != 1:
        sys.stderr.write(_USAGE)
        return 2
    try:
        return _print_and_check(arguments[0])
    except (OSError, IndexFormatError) as error:
        sys.stderr.write(f"error: {error}\nhint: name the directory of a job, <state>/jobs/<job id>\n")
        return 1


def check(view: Bytes, header: Header, *, log_size: int, show: Callable[[str], object]) -> Iterator[str]:
    """What is wrong with an index beside a log of `log_size` bytes, a sentence each; shows every record on the way."""
    yield from _check_header(header, log_size)
    first = count_given_back(view)
    if first:
        show(f"records 0 to {first - 1} are given back")
    last: Record | None = None
    end: int | None = 0  # None: not known, for the record that tells is damaged
    for number in range(first, count_records(view)):
        try:
            record = record_at(view, number)
        except IndexFormatError:
            show(f"record {number} is damaged")
            yield f"record {number} has a wrong checksum"
            last = end = None
            continue
        is_first = number == first > 0
        start = "?" if is_first else record.start  # told by a record that is given back
        show(f"{start:>13}{record.end:13}{record.stream:8}{record.time_ns:21}")
        if is_first:
            yield from _check_first(number, record, header.head)
        yield from _check_record(number, record, last)
        last, end = record, record.end
    yield from _check_end(view, end, log_size)


def count_given_back(view: Bytes) -> int:
    """How many records at the beginning read as zeros."""
    count = count_records(view)
    number = 0
    while number < count:
        start = HEADER_SIZE + number * RECORD_SIZE
        page = view[start : start + _PAGE * RECORD_SIZE]
        zeros = len(page) - len(page.lstrip(b"\0"))
        number += zeros // RECORD_SIZE
        if zeros < len(page):
            break
    return min(number, count)


def _check_header(header: Header, log_size: int) -> Iterator[str]:
    if header.pending not in (STDOUT, STDERR):
        yield f"the pending stream is {header.pending}, which is neither {STDOUT} nor {STDERR}"
    if header.head > log_size:
        yield f"head {header.head} is beyond the log, which has {log_size} bytes"
    if header.head and header.dropped:
        yield "output is missing at both ends: head and dropped are never both set"


def _check_first(number: int, record: Record, head: int) -> Iterator[str]:
    if record.end > head:
        yield f"record {number - 1}, which tells where the bytes at head {head} begin, is given back"


def _check_record(number: int, record: Record, last: Record | None) -> Iterator[str]:
    if record.stream not in (STDOUT, STDERR):
        yield f"record {number} is of stream {record.stream}, which is neither {STDOUT} nor {STDERR}"
    if record.end <= record.start:
        yield f"record {number} ends at {record.end}, not beyond the one before it, which ends at {record.start}"
    if last is not None and record.time_ns < last.time_ns:
        yield f"record {number} is of an earlier time than the one before it"


def _check_end(view: Bytes, end: int | None, log_size: int) -> Iterator[str]:
    torn = max(0, len(view) - HEADER_SIZE) % RECORD_SIZE
    if torn:
        yield f"the last record is torn: {torn} of its {RECORD_SIZE} bytes are there"
    if end is None:
        return
    if end > log_size:
        yield f"the last record ends at {end}, beyond the log, which has {log_size} bytes"
    if end < log_size:
        yield f"the log has {log_size} bytes, and the records end at {end}: does the job still run?"


def _print_and_check(directory: str) -> int:
    log = os.stat(os.path.join(directory, LOG_NAME))
    fd = os.open(os.path.join(directory, INDEX_NAME), os.O_RDONLY | os.O_CLOEXEC)
    index, view = os.fstat(fd), IndexFile(fd)
    header = read_header(fd)
    out = sys.stdout
    out.write(f"head {header.head}  dropped {header.dropped}  pending {header.pending}\n")
    out.write(f"{LOG_NAME} {_describe(log)}, {INDEX_NAME} {_describe(index)}\n")
    out.write("        start          end  stream       time_unix_nano\n")
    wrong = 0
    for sentence in list(check(view, header, log_size=log.st_size, show=lambda line: out.write(f"{line}\n"))):
        out.write(f"wrong: {sentence}\n")
        wrong += 1
    if not wrong:
        out.write(f"ok: {log.st_size} bytes, {_account(header, log.st_size)}\n")
    return 1 if wrong else 0


def _describe(status: os.stat_result) -> str:
    return f"{status.st_size} bytes ({status.st_blocks * 512} on disk)"


def _account(header: Header, size: int) -> str:
    stored = f"all after {header.head} stored and indexed" if header.head else "all indexed"
    return f"{stored}, {header.dropped} more dropped" if header.dropped else stored
