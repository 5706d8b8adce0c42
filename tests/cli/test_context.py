"""`jobctl context list | use | add`: the configuration file."""

import os
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Jobctl
from tests.harness import Worker
from tests.harness.worker import PATIENCE


@pytest.fixture
def home(jobctl: Jobctl, tmp_path: Path) -> Path:
    """A configuration file of the test's own, and no other source."""
    for name in ("ADDRESS", "CA", "CERT"):
        del jobctl.environment[f"JOBCTL_{name}"]
    jobctl.environment["JOBCTL_CONFIG"] = str(tmp_path / "config" / "config.toml")
    return tmp_path / "config" / "config.toml"


def add(jobctl: Jobctl, worker: Worker, name: str, client: str) -> None:
    jobctl.text(
        "context", "add", name, "--address", worker.address,
        "--ca", str(worker.certificates.authority), "--cert", str(worker.certificates.of(client)),
    )  # fmt: skip


def test_from_nothing_to_a_job(jobctl: Jobctl, worker: Worker, home: Path) -> None:
    assert jobctl("run", "--", "true").stderr.startswith(
        b"error: no worker is configured\nhint: jobctl context add"
    )
    add(jobctl, worker, "lab", "alice")
    assert stat.S_IMODE(home.stat().st_mode) == 0o600
    assert jobctl("run", "--", "echo", "hi").stdout == b"hi\n"
    assert jobctl.json("worker")[0]["client_id"] == "alice"


def test_several(jobctl: Jobctl, worker: Worker, home: Path) -> None:
    add(jobctl, worker, "one", "alice")
    add(jobctl, worker, "two", "bob")
    home.write_text("# mine\n" + home.read_text())

    def who(*arguments: str) -> str:
        client_id: str = jobctl.json(*arguments, "worker")[0]["client_id"]
        return client_id

    assert who() == "alice"
    assert who("--context", "two") == "bob"
    assert jobctl.text("context", "use", "two") == ""
    assert who() == "bob"
    assert home.read_text().startswith("# mine\n")
    assert [(one["name"], one["current"]) for one in jobctl.json("context", "list")] == [
        ("one", False),
        ("two", True),
    ]
    assert [line.split("\t")[:2] for line in jobctl.text("context", "list").splitlines()] == [
        ["", "NAME"],
        ["", "one"],
        ["*", "two"],
    ]
    jobctl.environment["JOBCTL_CONTEXT"] = "one"
    assert who() == "alice"
    jobctl.environment["JOBCTL_CERT"] = str(worker.certificates.of("bob"))
    assert who() == "bob"
    assert who("--cert", str(worker.certificates.of("carol"))) == "carol"


def test_who_changes_it_at_the_same_time_loses_nothing(jobctl: Jobctl, worker: Worker, home: Path) -> None:
    names = [f"c{number}" for number in range(8)]
    paths = ("--ca", str(worker.certificates.authority), "--cert", str(worker.certificates.of("alice")))
    adding = [jobctl.begin("context", "add", name, "--address", "x:1", *paths) for name in names]
    assert [process.wait(PATIENCE) for process in adding] == [0] * len(names)
    assert {context["name"] for context in jobctl.json("context", "list")} == set(names)
    assert list(home.parent.iterdir()) == [home]


def test_a_link_stays_one_and_a_device_stays_itself(
    jobctl: Jobctl, worker: Worker, home: Path, tmp_path: Path
) -> None:
    home.parent.mkdir()
    home.symlink_to(tmp_path / "dotfiles.toml")
    add(jobctl, worker, "one", "alice")
    add(jobctl, worker, "two", "alice")
    assert home.is_symlink()
    assert jobctl.json("context", "list")[1]["name"] == "two"
    pipe = tmp_path / "pipe"  # stands for /dev/null
    os.mkfifo(pipe)
    paths = ("--ca", str(worker.certificates.authority), "--cert", str(worker.certificates.of("alice")))
    done = jobctl("context", "add", "one", "--address", "x:1", *paths, JOBCTL_CONFIG=str(pipe))
    assert (done.returncode, done.stderr.decode()) == (125, f"error: cannot write {pipe}: no regular file\n")
    assert pipe.is_fifo()


def test_what_goes_wrong(jobctl: Jobctl, worker: Worker, home: Path) -> None:
    add(jobctl, worker, "lab", "alice")
    before = home.read_text()
    again = jobctl("context", "add", "lab", "--address", "a", "--ca", "b", "--cert", "c")
    assert (again.returncode, again.stderr.splitlines()[0]) == (
        125,
        b"error: there is a context 'lab' already",
    )
    assert jobctl("context", "use", "moon").returncode == 125
    assert jobctl("context", "add", "a b", "--address", "a", "--ca", "b", "--cert", "c").returncode == 2
    assert jobctl("context", "add", "x", "--address", "a:b", "--ca", "b", "--cert", "c").returncode == 125
    assert jobctl("context", "add", "x", "--address", "a").returncode == 2
    assert home.read_text() == before
    home.write_text("current = 3")
    assert jobctl("list").stderr.startswith(f"error: {home}: current is the name of a context".encode())
    home.write_text("[[[")
    assert jobctl("context", "use", "lab").returncode == 125
    assert home.read_text() == "[[["
