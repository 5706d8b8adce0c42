"""`jobctl stop`: returns when the jobs have ended."""

import json

from tests.cli.conftest import Jobctl, read_until
from tests.harness import programs


def until_ready(jobctl: Jobctl, job: str) -> None:
    """Returns once the job has said so."""
    process = jobctl.begin("logs", "-f", job)
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"ready\n")


def test_it_returns_when_the_job_has_ended(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--name", "stop-me", "--", *programs.sleep())
    assert jobctl.text("stop", "stop-me") == ""
    (record,) = jobctl.json("status", job)
    assert record["state"] == "ended"
    assert record["result"]["reason"] == "stopped"
    assert (record["result"]["signal"], record["result"]["stopped_by"]) == ("TERM", "alice")


def test_twice_is_as_good(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", "true")
    assert jobctl("wait", job).returncode == 0
    assert jobctl.text("stop", job) == ""


def test_signal_and_grace(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.sleep())
    (record,) = jobctl.json("stop", "--signal", "INT", job)
    assert record["result"]["signal"] == "INT"
    stubborn = jobctl.text("start", "--", *programs.ignore_term())
    until_ready(jobctl, stubborn)
    (record,) = jobctl.json("stop", "--grace", "100ms", stubborn)
    assert record["result"]["signal"] == "KILL"


def test_a_tree_that_ignores_term_leaves_nothing(jobctl: Jobctl) -> None:
    jobctl.text("start", "--name", "tree", "--", *programs.fork_sessions(20))
    until_ready(jobctl, "tree")
    (record,) = jobctl.json("stop", "--grace", "0", "tree")
    assert "survivors" not in record["result"]


def test_several_and_those_that_are_not_there(jobctl: Jobctl) -> None:
    jobs = [jobctl.text("start", "--", *programs.sleep()) for _ in range(2)]
    done = jobctl("stop", jobs[0], "no-such-job", jobs[1])
    assert done.returncode == 125
    assert done.stderr.decode().splitlines() == [
        "error: no job 'no-such-job'",
        "hint: jobctl list shows your jobs",
    ]
    assert [jobctl.json("status", job)[0]["state"] for job in jobs] == ["ended", "ended"]


def test_none_at_all(jobctl: Jobctl) -> None:
    done = jobctl("stop", "-o", "json")
    assert done.returncode == 2
    assert json.loads(done.stderr)["error"]["kind"] == "invalid_argument"


def test_a_terminal_sees_that_it_waits(jobctl: Jobctl, terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    jobctl.text("start", "--name", "slow", "--", *programs.ignore_term())
    until_ready(jobctl, "slow")
    process = jobctl.begin("stop", "--grace", "3s", "slow", stderr=theirs)
    read_until(ours, b"stopping slow: 1 s")
    assert process.wait(20) == 0
