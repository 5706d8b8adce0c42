"""`jobctl list`: jobs, newest first."""

import os
import re
from collections.abc import Callable

import pytest

from tests.cli.conftest import Jobctl, read_until
from tests.harness import programs
from tests.harness.probes import needs_full_device
from tests.harness.worker import PATIENCE

HEAD = ["ID", "NAME", "STATE", "OWNER", "AGE", "RESULT", "COMMAND"]


def test_a_table_with_tabs_for_programs(jobctl: Jobctl) -> None:
    running = jobctl.text("start", "--name", "busy", "--label", "t=table", "--", *programs.sleep())
    jobctl("run", "--name", "failed", "--label", "t=table", "--", *programs.fail(3))
    head, failed, busy = [line.split("\t") for line in jobctl.text("list", "--label", "t=table").splitlines()]
    assert head == HEAD
    assert failed[1:4] + failed[5:6] == ["failed", "ended", "alice", "exit 3"]
    assert busy[1:4] == ["busy", "running", "alice"]
    assert running.startswith(busy[0])
    assert re.fullmatch(r"\d+s", busy[4])
    assert busy[6] == "/bin/sleep 3600"
    jobctl("stop", running)


def test_filters(jobctl: Jobctl) -> None:
    running = jobctl.text(
        "start", "--label", "f=1", "--label", "g=1", "--name", "fa", "--", *programs.sleep()
    )
    jobctl("run", "--label", "f=1", "--name", "fb", "--", "true")

    def names(*arguments: str) -> list[str]:
        return [job["name"] for job in jobctl.json("list", "--label", "f=1", *arguments)]

    assert names() == ["fb", "fa"]
    assert names("--state", "running") == ["fa"]
    assert names("--state", "ended") == ["fb"]
    assert names("--state", "ended", "--state", "running") == ["fb", "fa"]
    assert names("--label", "g=1") == ["fa"]
    assert names("--name", "fb") == ["fb"]
    assert names("--owner", "bob") == []
    assert names("-n", "1") == ["fb"]
    assert jobctl.text("ps", "-q", "--label", "g=1") == running
    jobctl("stop", running)


def test_results_in_a_word(jobctl: Jobctl) -> None:
    jobctl("run", "--label", "r=1", "--", "true")
    jobctl("run", "--label", "r=1", "--", *programs.die("SEGV"))
    jobctl("run", "--label", "r=1", "--timeout", "100ms", "--", *programs.sleep())
    jobctl("run", "--label", "r=1", "--", "no-such-program")
    stopped = jobctl.text("start", "--label", "r=1", "--", *programs.sleep())
    jobctl("stop", stopped)
    rows = [line.split("\t")[5] for line in jobctl.text("list", "--label", "r=1").splitlines()[1:]]
    assert rows == ["stopped", "not started", "timed out", "signal SEGV", "exit 0"]


def test_a_terminal_gets_columns_and_colour(jobctl: Jobctl, terminal: tuple[int, int]) -> None:
    jobctl("run", "--label", "c=1", "--name", "x", "--", "false")
    ours, theirs = terminal
    jobctl.begin("list", "--label", "c=1", stdout=theirs).wait(20)
    shown = read_until(ours, b"false").decode()
    assert "ID        " in shown
    assert "\x1b[31m" in shown
    jobctl.environment["NO_COLOR"] = "1"
    jobctl.begin("list", "--label", "c=1", stdout=theirs).wait(20)
    assert b"\x1b[31m" not in read_until(ours, b"false")


def test_nothing_to_list(jobctl: Jobctl) -> None:
    assert jobctl.text("list", "--label", "none=1").split("\t") == HEAD
    assert jobctl.json("list", "--label", "none=1") == []
    assert jobctl.text("list", "--label", "none=1", "-q") == ""


def test_everybodys_jobs_for_those_who_may(jobctl: Jobctl, as_client: Callable[[str], Jobctl]) -> None:
    job = jobctl.text("start", "--label", "e=1", "--", "true")
    assert [one["id"] for one in as_client("carol").json("list", "--label", "e=1")] == [job]
    assert as_client("bob").json("list", "--label", "e=1") == []


def test_no_command_gives_orders_to_the_terminal(jobctl: Jobctl) -> None:
    job = jobctl.text(
        "start", "--name", "colourful", "--", "printf", "\x1b[2J\r\t%s", "two\nlines \x9b\u2028"
    )
    row = jobctl.text("list", "--name", "colourful").split("\n")[1]
    assert row.split("\t")[-1] == r"printf '\x1b[2J\r\t%s' 'two\nlines \x9b\u2028'"
    assert r"printf '\x1b[2J\r\t%s'" in jobctl.text("status", job)
    wrong = jobctl("start", "--", "no\x1b[2J\nsuch").stderr.decode().splitlines()
    assert wrong[0].startswith(r"error: cannot start 'no\x1b[2J\nsuch'")
    assert len(wrong) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_locale_gets_utf_8(jobctl: Jobctl, encoding: str) -> None:
    job = jobctl("start", "--name", "letters", "--", "printf", "ünï…", PYTHONIOENCODING=encoding)
    for arguments in (["list", "--name", "letters"], ["status", "letters"], ["list", "-o", "json"]):
        done = jobctl(*arguments, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, b"")
        assert "ünï…" in done.stdout.decode()
    assert "PATH=…" in jobctl("start", "--", "no-such", PYTHONIOENCODING=encoding).stderr.decode()
    jobctl("rm", job.stdout.decode().strip())


@needs_full_device
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [["list"], ["list", "-q"], ["worker"], ["start", "--", "true"], ["context", "list"], ["list", "--help"]],
)
def test_data_that_cannot_be_written_is_an_error(
    jobctl: Jobctl, arguments: list[str], unbuffered: str
) -> None:
    jobctl.text("start", "--", "true")
    jobctl.environment["PYTHONUNBUFFERED"] = unbuffered
    with open("/dev/full", "wb") as full:
        process = jobctl.begin(*arguments, stdout=full.fileno())
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (125, b"error: cannot write the output: no space left on device\n")


def test_wrong_usage(jobctl: Jobctl) -> None:
    done = jobctl("list", "--state", "asleep")
    assert done.returncode == 2
    assert b"'asleep' is no state: starting, running, stopping, ended" in done.stderr
    assert jobctl("list", "-n", "0").returncode == 2
    assert jobctl("list", "extra").returncode == 2


def test_a_reader_that_leaves(jobctl: Jobctl) -> None:
    read, write = os.pipe()
    os.close(read)
    process = jobctl.begin("list", stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (141, b"")
