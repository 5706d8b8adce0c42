"""What people type becomes the value they mean, or a clause that says what is accepted."""

import re
import signal
import zoneinfo
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobctl.cli import parse

UNITS = {"": 0, "k": 1, "M": 2, "g": 3, "T": 4, "p": 5, "E": 6}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4096", 4096),
        ("512M", 512 << 20),
        ("512MiB", 512 << 20),
        ("512mb", 512 << 20),
        ("1.5G", 3 << 29),
        (".5k", 512),
        (" 2 T ", 2 << 40),
        ("0", 0),
        ("10B", 10),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert parse.size(text) == value


@given(st.integers(0, 2**40), st.sampled_from(sorted(UNITS)), st.sampled_from(["", "B", "iB", "ib"]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str, suffix: str) -> None:
    value = number << 10 * UNITS[unit]
    suffix = suffix if unit else ""
    if value < 2**64:
        assert parse.size(f"{number}{unit}{suffix}") == value
    else:
        with pytest.raises(ValueError, match="more bytes than there can be"):
            parse.size(f"{number}{unit}{suffix}")


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5.2", "12X", "1 2", "1e3", "٣", "0x10", "NaN", "inf"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse.size(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90),
        ("0", 0),
        ("1.5", 1.5),
        ("10m", 600),
        ("1h30m", 5400),
        ("1h 30m 5s", 5405),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("2D", 172800),
        ("1w", 604800),
    ],
)
def test_lengths_of_time(text: str, value: float) -> None:
    assert parse.seconds(text) == pytest.approx(value)


@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.sampled_from(["ms", "s", "m", "h", "d", "w"])),
        min_size=1,
        max_size=4,
    )
)
def test_a_length_of_time_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    scale = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    total = sum(number * scale[unit] for number, unit in parts)
    assert parse.seconds("".join(f"{number}{unit}" for number, unit in parts)) == pytest.approx(total)


@pytest.mark.parametrize("text", ["", " ", "m", "-5", "5x", "1h30", "10 m x", "1:30", "inf", "1e9s", "5 5"])
def test_no_lengths_of_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no length of time"):
        parse.seconds(text)


def test_cores() -> None:
    assert [parse.cores(text) for text in ("1.5", "2", "0.25")] == [1.5, 2, 0.25]
    for text in ("0", "-1", "two", "nan", "inf", "", "1e9"):
        with pytest.raises(ValueError, match="is no number of cores"):
            parse.cores(text)


def test_counts_and_offsets() -> None:
    assert parse.count("100") == 100
    assert parse.offset("0") == 0
    assert (parse.lines("0"), parse.lines("20")) == (0, 20)
    for text in ("0", "-1", "1.5", "x", "", "٣"):
        with pytest.raises(ValueError, match="whole number above 0"):
            parse.count(text)
    for text in ("-1", "1.5", "x", ""):
        with pytest.raises(ValueError, match="is no offset"):
            parse.offset(text)
        with pytest.raises(ValueError, match="is no number of lines"):
            parse.lines(text)


@pytest.mark.parametrize("number", sorted(signal.Signals))
def test_signals_by_name_and_number(number: signal.Signals) -> None:
    short = number.name.removeprefix("SIG")
    for text in (short, short.lower(), number.name, str(int(number))):
        assert parse.signal(text) == number


def test_signals_without_a_name_of_their_own() -> None:
    assert parse.signal("RTMIN+1") == signal.SIGRTMIN + 1
    for text in ("", "0", "65", "-9", "NOPE", "RTMAX+1", "RTMIN+x", "SIG"):
        with pytest.raises(ValueError, match="is no signal"):
            parse.signal(text)


NAMES = st.text(min_size=1).filter(lambda name: "=" not in name)


@given(st.dictionaries(NAMES, st.text()))
def test_pairs_go_there_and_back(labels: dict[str, str]) -> None:
    texts = [f"{key}={value}" for key, value in labels.items()]
    assert parse.pairs(texts) == labels
    assert parse.variables(texts, {}) == labels


def test_labels_and_variables_without_a_value() -> None:
    assert parse.pairs(["ci", "a=b=c"]) == {"ci": "", "a": "b=c"}
    assert parse.variables(["HOME", "NOT_SET", "X="], {"HOME": "/root"}) == {"HOME": "/root", "X": ""}
    with pytest.raises(ValueError, match="is no label"):
        parse.pairs(["=x"])
    with pytest.raises(ValueError, match="is no variable"):
        parse.variables(["=x"], {})


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 29, 15, 0, 0, 250_000, BERLIN)


def moment(text: str, *, now: datetime = NOW) -> datetime:
    zone = now.tzinfo
    return parse.moment(text, now=now, local=lambda naive: naive.replace(tzinfo=zone))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10m", NOW - timedelta(minutes=10)),
        ("2h30m", NOW - timedelta(minutes=150)),
        ("1d", NOW - timedelta(days=1)),
        ("1.5H", NOW - timedelta(minutes=90)),
        ("0s", NOW),
        ("2026-11-29T12:00:00Z", datetime(2026, 11, 29, 12, tzinfo=UTC)),
        ("2026-11-29t12:00:00z", datetime(2026, 11, 29, 12, tzinfo=UTC)),
        ("2026-11-29T12:00:00.5+05:30", datetime(2026, 11, 29, 6, 30, 0, 500_000, UTC)),
        ("2026-11-29T12:00:00.123456789-01:00", datetime(2026, 11, 29, 13, 0, 0, 123_456, UTC)),
        ("2026-11-29 12:30", datetime(2026, 11, 29, 12, 30, tzinfo=BERLIN)),
        ("2026-07-29 12:30", datetime(2026, 7, 29, 10, 30, tzinfo=UTC)),  # summer, by the zone's own rules
        ("2026-11-29", datetime(2026, 11, 29, tzinfo=BERLIN)),
        ("12:30", datetime(2026, 11, 29, 12, 30, tzinfo=BERLIN)),
        (" 12:30:05.25 ", datetime(2026, 11, 29, 12, 30, 5, 250_000, BERLIN)),
        ("23:59", datetime(2026, 11, 29, 23, 59, tzinfo=BERLIN)),
        ("@0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("@1764417600", datetime(2025, 11, 29, 12, tzinfo=UTC)),
        ("@1764417600.0000019", datetime(2025, 11, 29, 12, 0, 0, 1, UTC)),
    ],
)
def test_times(text: str, value: datetime) -> None:
    assert moment(text) == value
    assert moment(text).tzinfo is not None


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), st.sampled_from([UTC, BERLIN]))
def test_a_time_that_is_printed_is_read_back(when: datetime, zone: tzinfo) -> None:
    then = when.replace(tzinfo=zone)
    assert moment(then.isoformat()) == then
    assert moment(then.astimezone(UTC).isoformat().replace("+00:00", "Z")) == then
    assert moment(when.isoformat(sep=" "), now=NOW.astimezone(zone)) == then
    assert moment(f"@{int(then.timestamp())}") == then.replace(microsecond=0)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "now", "90", "1764417600", "-10m", "@", "@-1", "@1e9", "@99999999999999", "@1.2.3"),
        *("2026-13-01", "2026-02-30", "2026-11-29T25:00", "24:00", "12:60", "12", "12:3", "12:30pm"),
        *("2026-11-29T12:00:00+5", "2026-11-29Z", "20261129", "2026-W48-7", "11/29/2026", "99999999w"),
        *("2026-11-29T12:00:00Z Z", "٢٠٢٦-11-29", "1h30"),
    ],
)
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no time$"):
        moment(text)


def test_the_times_that_are_named_as_accepted_are() -> None:
    named = re.findall(r"[\dTZ:-]+[md\dZ]\b", parse.MOMENTS)
    assert len(named) == 4
    for text in named:
        moment(text)


@given(st.text() | st.from_regex(r"[0-9TZ:@. +-]+"))
def test_whatever_is_typed_is_a_time_or_a_refusal(text: str) -> None:
    with suppress(ValueError):
        assert moment(text).utcoffset() is not None


READERS = [parse.size, parse.seconds, parse.cores, parse.count, parse.lines, parse.offset, parse.signal]


@given(st.text(), st.sampled_from(READERS))
def test_whatever_is_typed_is_a_value_or_a_refusal(text: str, reader: Callable[[str], float]) -> None:
    with suppress(ValueError):
        assert reader(text) >= 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nofile=1024", {"nofile": (1024, 1024)}),
        ("NOFILE=64:128", {"nofile": (64, 128)}),
        ("core=0:unlimited", {"core": (0, None)}),
        ("as=unlimited", {"as": (None, None)}),
        ("fsize=1G", {"fsize": (1 << 30, 1 << 30)}),
    ],
)
def test_resource_limits(text: str, value: dict[str, tuple[int | None, int | None]]) -> None:
    assert parse.rlimits([text]) == value


@pytest.mark.parametrize("text", ["", "nofile", "=5", "nofile=", "nofile=1:", "nofile=-1", "nofile=a:b"])
def test_no_resource_limits(text: str) -> None:
    with pytest.raises(ValueError, match="is no "):
        parse.rlimits([text])


def test_rates_by_path_whose_names_may_hold_anything() -> None:
    assert parse.rates(["/a=b=10M", "/c=1"], parse.size) == {"/a=b": 10 << 20, "/c": 1}
    for text in ("/data", "=10M", ""):
        with pytest.raises(ValueError, match="is no rate"):
            parse.rates([text], parse.size)


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("-20", -20), ("+3", 3)])
def test_integers(text: str, value: int) -> None:
    assert parse.integer(text) == value


@pytest.mark.parametrize("text", ["", "-", "1.0", "low", "٣", "9999999999"])
def test_no_integers(text: str) -> None:
    with pytest.raises(ValueError, match="no whole number"):
        parse.integer(text)
