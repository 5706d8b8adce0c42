"""Flags, then environment, then the file: for each value by itself, and a key stays with its certificate."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobctl import contexts
from jobctl.cli.context import with_context, with_current
from jobctl.contexts import Context, choose, parse_config, split_address
from jobctl.errors import ConfigError

LAB = """\
current = "lab"

[context.lab]
address = "worker.example:9090"
ca = "ca.pem"
cert = "alice.pem"

[context.far]
address = "far.example"
ca = "/etc/far/ca.pem"
cert = "~/far.pem"
key = "keys/far.key"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config.toml").write_text(LAB)
    return {"JOBCTL_CONFIG": str(tmp_path / "config.toml")}


def test_the_current_context_with_paths_from_its_own_folder(tmp_path: Path, environ: dict[str, str]) -> None:
    expected = Context(
        "worker.example:9090", str(tmp_path / "ca.pem"), str(tmp_path / "alice.pem"), None, "lab"
    )
    assert choose(environ=environ) == expected


def test_a_named_context(tmp_path: Path, environ: dict[str, str]) -> None:
    by_argument = choose("far", environ=environ)
    by_environment = choose(environ={**environ, "JOBCTL_CONTEXT": "far"})
    assert by_argument == by_environment
    assert by_argument.endpoint == ("far.example", 9090)
    assert by_argument.key == str(tmp_path / "keys/far.key")
    assert by_argument.cert == str(Path("~/far.pem").expanduser())


@pytest.mark.parametrize(
    ("flag", "env", "what"), [*product([True, False], [True, False], ["address", "ca", "cert"])]
)
def test_the_heaviest_place_wins_for_each_value(
    flag: bool, env: bool, what: str, environ: dict[str, str]
) -> None:
    values = {**environ, **({f"JOBCTL_{what.upper()}": "from-environment"} if env else {})}
    chosen = choose(environ=values, **({what: "from-flag"} if flag else {}))
    plain = choose(environ=environ)
    expected = "from-flag" if flag else "from-environment" if env else getattr(plain, what)
    assert getattr(chosen, what) == expected
    others = {"address", "ca", "cert"} - {what}
    assert [getattr(chosen, other) for other in others] == [getattr(plain, other) for other in others]


def test_a_key_is_not_used_with_a_certificate_from_elsewhere(environ: dict[str, str]) -> None:
    assert choose("far", cert="mine.pem", environ=environ).key is None
    assert choose(cert="mine.pem", environ={**environ, "JOBCTL_KEY": "other.key"}).key is None
    assert choose(environ={**environ, "JOBCTL_CERT": "mine.pem", "JOBCTL_KEY": "mine.key"}).key == "mine.key"
    assert choose("far", key="mine.key", environ=environ).key == "mine.key"


def test_no_file_is_read_when_everything_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[[[")
    told = {"JOBCTL_ADDRESS": "a:1", "JOBCTL_CA": "ca", "JOBCTL_CERT": "cert"}
    broken = {"JOBCTL_CONFIG": str(tmp_path / "broken.toml")}
    assert choose(environ={**told, **broken}) == Context("a:1", "ca", "cert")
    with pytest.raises(ConfigError, match="is not TOML"):
        choose(environ={**broken, "JOBCTL_ADDRESS": "a:1"})


def test_what_is_missing_is_said() -> None:
    nowhere = {"JOBCTL_CONFIG": "/nonexistent/config.toml"}
    with pytest.raises(ConfigError, match="no worker is configured"):
        choose(environ=nowhere)
    with pytest.raises(ConfigError, match="no ca is configured"):
        choose(address="a", cert="c", environ=nowhere)
    with pytest.raises(ConfigError, match="no context 'moon'") as raised:
        choose("moon", environ=nowhere)
    assert "jobctl context add" in raised.value.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("context = 3", "a table of contexts"),
        ("current = 3", "the name of a context"),
        ("[context]\nlab = 1", "context.lab is a table"),
        ("[context.lab]\naddress = 3", "context.lab.address is a text"),
        ("[context.lab]\nadress = 'x'", "has no use for adress"),
        ("[context.lab", "is not TOML"),
        ("a = '\udc80'", "is not TOML"),
    ],
)
def test_a_file_that_says_nonsense(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(text.encode(errors="surrogateescape"), "config.toml")


def test_a_context_that_is_not_whole(tmp_path: Path) -> None:
    config = parse_config(b"[context.lab]\naddress = 'x'", str(tmp_path / "c.toml"))
    with pytest.raises(ConfigError, match="has no ca"):
        config.context("lab")


def test_a_folder_in_the_files_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        contexts.read_config(str(tmp_path))


def test_where_the_file_is() -> None:
    assert contexts.config_path({"JOBCTL_CONFIG": "x.toml"}) == "x.toml"
    assert contexts.config_path({"XDG_CONFIG_HOME": "/x"}) == "/x/jobctl/config.toml"
    assert contexts.config_path({}).endswith("/.config/jobctl/config.toml")


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("host", ("host", 9090)),
        ("host:1", ("host", 1)),
        ("[::1]", ("::1", 9090)),
        ("[::1]:80", ("::1", 80)),
        ("::1", ("::1", 9090)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
    ],
)
def test_addresses(address: str, endpoint: tuple[str, int]) -> None:
    assert split_address(address) == endpoint


@pytest.mark.parametrize(
    "address", ["", ":9090", "host:", "host:0", "host:65536", "host:x", "[]:1", "host:-1"]
)
def test_no_addresses(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        split_address(address)


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
VALUES = st.fixed_dictionaries(
    {what: st.text(st.characters(codec="utf-8"), min_size=1) for what in ("address", "ca", "cert")}
)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), st.data())
def test_editing_keeps_what_was_there(tables: dict[str, dict[str, str]], data: st.DataObject) -> None:
    text = "# my workers\n"
    for name, values in tables.items():
        text = with_context(text, name, values)
    for _ in range(2):
        current = data.draw(st.sampled_from(sorted(tables)))
        text = with_current(text, current)
        config = parse_config(text.encode(), "config.toml")
        assert (config.current, config.tables) == (current, tables)
        assert "# my workers\n" in text


def test_choosing_the_current_one_changes_its_line_alone() -> None:
    before = '# top\ncurrent = "lab"  # mine\n\n[context.lab]\naddress = "x"\n'
    assert with_current(before, "far") == before.replace('current = "lab"  # mine', 'current = "far"')
    assert with_current('[context.lab]\nca = "current = 1"\n', "lab").startswith('current = "lab"\n[context')
