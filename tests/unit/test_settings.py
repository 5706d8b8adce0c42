"""Where settings come from, in which order, and how a wrong one is named."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker import settings
from jobworker.errors import InvalidArgument
from jobworker.settings import Settings, read_file, resolve
from jobworker.settingvalues import (
    MAX_SIZE,
    Address,
    UidRange,
    parse_address,
    parse_age,
    parse_size,
    write_age,
    write_size,
)

NEEDED = {"cert": "server.pem", "client_ca": "ca.pem"}


def told(
    flags: dict[str, str | None] | None = None,
    environment: dict[str, str] | None = None,
    file: dict[str, str] | None = None,
) -> Settings:
    return resolve({**NEEDED, **(flags or {})}, environment=environment or {}, file=file or {})


def test_defaults() -> None:
    assert told() == Settings(
        cert=Path("server.pem"),
        client_ca=Path("ca.pem"),
        key=None,
        state=Path("state"),
        listen=Address("127.0.0.1", 9090),
        uid_range=UidRange(61184, 65519),
        scratch=None,
        cgroup_root=None,
        drain_seconds=10.0,
        stop_jobs=False,
        max_request_bytes=4 * 2**20,
        output_cap=4 * 2**30,
        retain_bytes=32 * 2**30,
        retain_for=timedelta(days=30),
        retain_jobs=10_000,
        reader_patience=timedelta(minutes=5),
    )


def test_flags_beat_the_environment_and_that_beats_the_file() -> None:
    environment, file = {"JOBWORKER_STATE": "/env"}, {"state": "/file", "drain_seconds": "3"}
    assert told({"state": "/flag"}, environment, file).state == Path("/flag")
    assert told({"state": None}, environment, file).state == Path("/env")
    assert told({}, {}, file).state == Path("/file")
    assert told({}, environment, file).drain_seconds == 3


def test_every_setting_can_be_said_in_all_three_places(tmp_path: Path) -> None:
    texts = {
        "cert": "c.pem",
        "client_ca": "a.pem",
        "key": "k.pem",
        "state": "/s",
        "listen": "[::1]:1",
        "uid_range": "5-6",
        "scratch": "/x",
        "cgroup_root": "/sys/fs/cgroup/x",
        "drain_seconds": "0.5",
        "stop_jobs": "true",
        "max_request_bytes": "7",
        "output_cap": "2G",
        "retain_bytes": "none",
        "retain_for": "12h",
        "retain_jobs": "3",
        "reader_patience": "0",
    }
    wanted = resolve(texts, environment={}, file={})
    assert set(texts) == set(vars(wanted))
    environment = {settings.variable(name): text for name, text in texts.items()}
    assert resolve({}, environment=environment, file={}) == wanted
    numbers = {"drain_seconds", "stop_jobs", "max_request_bytes", "retain_jobs", "reader_patience"}
    lines = [f"{name} = {text}" if name in numbers else f'{name} = "{text}"' for name, text in texts.items()]
    (tmp_path / "worker.toml").write_text("\n".join(lines))
    read = resolve({}, environment={}, file=read_file(tmp_path / "worker.toml"))
    assert read.cert == tmp_path / "c.pem"  # beside the file
    assert read.state == Path("/s")
    assert (read.listen, read.uid_range, read.max_request_bytes) == (Address("::1", 1), UidRange(5, 6), 7)
    assert (read.output_cap, read.retain_bytes, read.retain_for) == (2 * 2**30, None, timedelta(hours=12))
    assert (read.retain_jobs, read.reader_patience) == (3, None)


def test_what_is_missing_is_named_with_the_ways_to_give_it() -> None:
    with pytest.raises(InvalidArgument, match="setting 'cert' is missing") as raised:
        resolve({}, environment={}, file={})
    assert raised.value.field == "cert"
    assert raised.value.hint == "give --cert, or set JOBWORKER_CERT"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("listen", "localhost:http"),
        ("listen", "::1:9090"),
        ("listen", "h:65536"),
        ("listen", "h:-1"),
        ("uid_range", "61184"),
        ("uid_range", "0-5"),
        ("uid_range", "9-8"),
        ("uid_range", "1-4294967295"),
        ("uid_range", "-1-5"),
        ("drain_seconds", "soon"),
        ("drain_seconds", "-1"),
        ("drain_seconds", "nan"),
        ("drain_seconds", "inf"),
        ("max_request_bytes", "0"),
        ("max_request_bytes", "none"),
        ("output_cap", "-1"),
        ("output_cap", "4X"),
        ("output_cap", str(2**53)),
        ("retain_for", "1w"),
        ("retain_for", "0d"),
        ("retain_for", "1000000d"),
        ("retain_jobs", "1.5"),
        ("reader_patience", "soon"),
        ("state", ""),
        ("state", "a\0b"),
        ("cgroup_root", ""),
    ],
)
def test_a_wrong_value_names_setting_and_place(name: str, text: str) -> None:
    with pytest.raises(InvalidArgument) as by_flag:
        told({name: text})
    assert by_flag.value.field == name
    assert str(by_flag.value).startswith(f"--{name.replace('_', '-')} is wrong: ")
    assert by_flag.value.hint
    assert "could not convert" not in by_flag.value.hint  # Python's words, not ours
    with pytest.raises(InvalidArgument, match=f"JOBWORKER_{name.upper()} is wrong"):
        told(environment={f"JOBWORKER_{name.upper()}": text})
    with pytest.raises(InvalidArgument, match=f"'{name}' in the settings file is wrong"):
        told(file={name: text})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9090", Address("127.0.0.1", 9090)),
        ("worker.example", Address("worker.example", 9090)),
        (":0", Address("0.0.0.0", 0)),
        ("[::1]:5", Address("::1", 5)),
        ("[::1]", Address("::1", 9090)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "name", ["output_cap", "retain_bytes", "retain_for", "retain_jobs", "reader_patience"]
)
def test_what_is_on_by_default_can_be_switched_off(name: str) -> None:
    for text in ("none", "None", "0"):
        assert getattr(told({name: text}), name) is None


@given(size=st.integers(1, MAX_SIZE))
def test_sizes_are_read_as_they_are_written(size: int) -> None:
    assert parse_size(write_size(size)) == size


@given(age=st.integers(1, 999_999).map(lambda seconds: timedelta(seconds=seconds)))
def test_lengths_of_time_are_read_as_they_are_written(age: timedelta) -> None:
    assert parse_age(write_age(age)) == age


@pytest.mark.parametrize(
    ("text", "size"), [("7", 7), ("4k", 4096), ("512M", 2**29), ("1 GiB", 2**30), ("2TB", 2**41)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("content", "message", "field"),
    [
        ("state = ", "is not TOML", "config"),
        ("stat = 'x'", "'stat' is not a setting", "stat"),
        ("state = true", "'state' is not a setting with a text", "state"),
        ("[state]\nx = 1", "'state' is not a setting with a text", "state"),
        ("listen = ['a']", "'listen' is not a setting with a text", "listen"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: str, message: str, field: str) -> None:
    path = tmp_path / "worker.toml"
    path.write_text(content)
    with pytest.raises(InvalidArgument, match=message) as raised:
        read_file(path)
    assert str(path) in str(raised.value)
    assert raised.value.field == field


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"cannot read settings file .*: no such file"):
        read_file(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"state = '\xff'")
    with pytest.raises(InvalidArgument, match="is not TOML"):
        read_file(tmp_path / "latin.toml")
