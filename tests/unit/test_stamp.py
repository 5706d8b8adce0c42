"""Lines with their times: whole, each with one time, whatever the pieces they come in."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobctl.cli import stamp
from jobctl.cli.stamp import Stamps

SECOND = 1_000_000_000
PIECES = st.lists(st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\xff"]), min_size=1).map(b"".join))


def at(second: int) -> bytes:
    return b"1970-01-01T00:00:%02d.000000Z " % second


def test_the_time_is_rfc_3339_in_utc_and_reads_back() -> None:
    text = stamp.stamp(1_700_000_000_123_456_789)
    assert text == b"2023-11-14T22:13:20.123456Z "
    assert datetime.fromisoformat(text.decode().strip()) == datetime(
        2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC
    )


def test_a_line_in_pieces_has_the_time_of_its_first_byte() -> None:
    stamps = Stamps()
    assert stamps.lines(b"one\ntw", 1 * SECOND) == at(1) + b"one\n"
    assert stamps.lines(b"o", 2 * SECOND) == b""
    assert stamps.lines(b"\n\nthree", 3 * SECOND) == at(1) + b"two\n" + at(3) + b"\n"
    assert stamps.rest() == at(3) + b"three\n"
    assert stamps.rest() == b""


def test_a_newline_alone_ends_a_line_and_begins_none() -> None:
    stamps = Stamps()
    assert stamps.lines(b"\n", SECOND) == at(1) + b"\n"
    assert stamps.rest() == b""


def test_a_line_without_end_is_passed_on_in_pieces_with_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamp, "LONGEST", 40)
    stamps = Stamps()
    out = b"".join(stamps.lines(b"x" * 10, n * SECOND) for n in range(1, 20))
    assert len(out) > 100
    assert out + stamps.lines(b"\nnext\n", 30 * SECOND) == at(1) + b"x" * 190 + b"\n" + at(30) + b"next\n"
    assert stamps.rest() == b""


@given(PIECES, st.sampled_from([30, 1 << 16]))
def test_without_the_times_it_is_what_was_written(pieces: list[bytes], longest: int) -> None:
    """Against the obvious oracle: all of it, split at newlines, each line with the time of the piece it begins in."""
    stamp_longest, stamp.LONGEST = stamp.LONGEST, longest
    try:
        stamps, out = Stamps(), b""
        for second, piece in enumerate(pieces):
            out += stamps.lines(piece, second * SECOND)
        out += stamps.rest()
    finally:
        stamp.LONGEST = stamp_longest
    written, begins = b"".join(pieces), []
    for second, piece in enumerate(pieces):
        begins += [second] * len(piece)
    expected, start = b"", 0
    for line in written.split(b"\n")[: None if not written.endswith(b"\n") else -1] if written else []:
        expected += at(begins[start]) + line + b"\n"
        start += len(line) + 1
    assert out == expected
