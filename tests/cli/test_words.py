"""What was typed, in the order the parser wants it; and values as people read them."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobctl.cli import _plain_run, render
from jobctl.cli.app import SWITCHES, program_apart, verb_first, wants_json
from jobctl.cli.spec import JobFlags


@pytest.mark.parametrize(
    ("typed", "sorted_"),
    [
        ("list", "list"),
        ("--context lab list -q", "list --context lab -q"),
        ("-o json --context=lab list", "list -o json --context=lab"),
        ("--context lab client list -o json", "client list --context lab -o json"),
        ("--ca a --cert b context use x", "context use --ca a --cert b x"),
        ("--help", "--help"),
        ("--version", "--version"),
        ("--context lab", "--context lab"),
        ("--context lab start -- ls --context x", "start --context lab -- ls --context x"),
        ("", ""),
    ],
)
def test_options_before_the_verb(typed: str, sorted_: str) -> None:
    assert verb_first(typed.split()) == sorted_.split()


@pytest.mark.parametrize(
    ("typed", "apart"),
    [
        ("start ls -la", "start -- ls -la"),
        ("run -v ls -v", "run -v -- ls -v"),
        ("start --name x -e A=1 sh -c -- x", "start --name x -e A=1 -- sh -c -- x"),
        ("start --name=x --wait-for-tree ls", "start --name=x --wait-for-tree -- ls"),
        ("start -- --name", "start -- --name"),
        ("start --name x -- ls", "start --name x -- ls"),
        ("start --name", "start --name"),
        ("start --help", "start --help"),
        ("run -ojson ls", "run -ojson -- ls"),
        ("list -q", "list -q"),
        ("", ""),
    ],
)
def test_the_program_begins_at_the_first_word_that_is_no_option(typed: str, apart: str) -> None:
    assert program_apart(typed.split()) == apart.split()


def test_the_switches_are_those_of_the_flags() -> None:
    switches = {
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(JobFlags)
        if field.default is False
    }
    assert switches | {"--verbose", "-v"} == set(SWITCHES)


@pytest.mark.parametrize(
    ("typed", "argv"),
    [
        ("run -- ls -la", "ls -la"),
        ("run ls -la", "ls -la"),
        ("run -- --odd", "--odd"),
        ("run --", ""),
        ("run", ""),
        ("run -v -- ls", ""),
        ("run --name x ls", ""),
        ("start -- ls", ""),
        ("", ""),
    ],
)
def test_who_goes_the_short_way(typed: str, argv: str) -> None:
    assert _plain_run(typed.split()) == argv.split()


def test_json_is_noticed_before_anything_is_parsed() -> None:
    for typed in (
        "list -o json",
        "list -ojson -q",
        "list -o=json",
        "start --format json -- ls",
        "--format=json list",
    ):
        assert wants_json(typed.split()), typed
    for typed in ("list", "start -- ls -o json", "list -o text", "start --name json -- x"):
        assert not wants_json(typed.split()), typed


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (17, "17 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (512 << 20, "512 MiB"),
        (1258291, "1.2 MiB"),
        (1 << 60, "1024 PiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert render.size(count) == text


@given(st.integers(0, 2**53))
def test_a_size_is_short_and_right(count: int) -> None:
    number, unit = render.size(count).split()
    scale = 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB").index(unit)
    assert abs(float(number) * scale - count) <= max(0.06 * scale, 0.006 * count)
    assert len(number) <= 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (0.04, "0 s"),
        (3.2, "3.2 s"),
        (9.96, "10 s"),
        (41, "41 s"),
        (59.7, "1 m"),
        (130, "2 m 10 s"),
        (3600, "1 h"),
        (3660 * 5, "5 h 5 m"),
        (86400 * 5 + 3600 * 3, "5 d 3 h"),
    ],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert render.span(seconds) == text
    assert render.span(timedelta(seconds=seconds)) == text


def test_ages() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ages = {12: "12s", 60: "1m", 119: "1m", 3600: "60m", 7200: "2h", 86400: "24h", 86400 * 3: "3d", -5: "0s"}
    assert {ago: render.age(now - timedelta(seconds=ago), now) for ago in ages} == ages


def test_short_ids_tell_their_jobs_apart() -> None:
    assert render.short_ids(["0199f0c2-1111", "0299f0c2-2222"]) == ["0199f0c2", "0299f0c2"]
    assert render.short_ids(["0199f0c2-1111", "0199f0c2-1222"]) == ["0199f0c2-11", "0199f0c2-12"]
    assert render.short_ids(["0199f0c2-1111"]) == ["0199f0c2"]
    assert render.short_ids([]) == []


def test_tables_have_tabs_where_nobody_looks() -> None:
    assert render.table(("ID", "NAME"), [("1", "a"), ("22", "")]) == ["ID\tNAME", "1\ta", "22\t"]
