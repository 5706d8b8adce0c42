"""What people type becomes the value they mean, or a clause that says what is accepted."""

import signal
from collections.abc import Callable
from contextlib import suppress

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
    for text in ("0", "-1", "1.5", "x", "", "٣"):
        with pytest.raises(ValueError, match="whole number above 0"):
            parse.count(text)
    for text in ("-1", "1.5", "x", ""):
        with pytest.raises(ValueError, match="is no offset"):
            parse.offset(text)


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


READERS = [parse.size, parse.seconds, parse.cores, parse.count, parse.offset, parse.signal]


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
