"""`jobctl start`: stdout gets the id and nothing else."""

import json
import re

import pytest

from tests.cli.conftest import Jobctl
from tests.harness import probes, programs

JOBS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\n")


def test_the_id_and_nothing_else(jobctl: Jobctl) -> None:
    done = jobctl("start", "--", "true")
    assert (done.returncode, done.stderr) == (0, b"")
    assert UUID.fullmatch(done.stdout.decode())


def test_without_the_two_dashes(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--name", "x", "echo", "-n", "--name", "y")
    assert jobctl("logs", "-f", job).stdout == b"--name y"


@probes.needs_limits
def test_everything_that_can_be_said(jobctl: Jobctl) -> None:
    mine = "0199f0c2-1111-4222-8333-444455556666"
    (record,) = jobctl.json(
        "start", "--name", "full", "--label", "ci=42", "--label", "flag", "--env", "A=1", "--env", "PWD_NONE",
        "--workdir", "/usr", "--cpus", "1.5", "--memory", "256M", "--pids", "30", "--timeout", "10m",
        "--stop-signal", "INT", "--stop-grace", "3s", "--wait-for-tree", "--id", mine, "--",
        *programs.sh('echo "$A"; pwd'),
    )  # fmt: skip
    assert record["id"] == mine
    assert (record["name"], record["labels"]) == ("full", {"ci": "42", "flag": ""})
    assert record["limits_in_force"] == {"cpus": 1.5, "memory_bytes": 256 << 20, "pids": 30}
    assert record["timeout_seconds"] == 600
    assert record["workdir"] == "/usr"
    assert jobctl("logs", "-f", "full").stdout == b"1\n/usr\n"


def test_the_stop_signal_is_kept(jobctl: Jobctl) -> None:
    script = "trap 'echo int; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    jobctl.text("start", "--name", "int", "--stop-signal", "int", "--", *programs.sh(script))
    process = jobctl.begin("logs", "-f", "int")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    jobctl.text("stop", "int")
    assert process.stdout.read() == b"int\n"


def test_a_variable_of_ours_is_passed_on(jobctl: Jobctl) -> None:
    done = jobctl("run", "--env", "GREETING", "--", *programs.sh('echo "$GREETING"'), GREETING="hello")
    assert done.stdout == b"hello\n"


def test_no_such_program_is_known_at_once(jobctl: Jobctl) -> None:
    done = jobctl("start", "--", "no-such-program")
    assert (done.returncode, done.stdout) == (127, b"")
    assert done.stderr.decode().splitlines() == [
        f"error: cannot start 'no-such-program': not found in PATH={JOBS_PATH}",
        "hint: give an absolute path, or set the job's path with --env PATH=…",
    ]


def test_errors_for_programs(jobctl: Jobctl) -> None:
    done = jobctl("start", "-o", "json", "--", "no-such-program")
    assert (done.returncode, done.stdout) == (127, b"")
    (error,) = [json.loads(line)["error"] for line in done.stderr.splitlines()]
    assert (error["kind"], error["stage"], error["errno"]) == ("start_failed", "exec", 2)
    assert error["message"].startswith("cannot start 'no-such-program'")
    assert error["hint"]


def test_the_same_request_is_the_same_job(jobctl: Jobctl) -> None:
    first = jobctl.text("start", "--request-id", "start-once", "--", "true")
    assert jobctl.text("start", "--request-id", "start-once", "--", "true") == first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["start"], "no program given"),
        (["start", "--"], "no program given"),
        (["list", "one", "two"], "too many words: 'one two'"),
        (["start", "--nmae", "x", "--", "true"], "unknown option"),
        (["start", "--memory", "5x", "--", "true"], "--memory: '5x' is no size"),
        (["start", "--cpus", "0", "--", "true"], "--cpus: '0' is no number of cores"),
        (["start", "--timeout", "soon", "--", "true"], "--timeout: 'soon' is no length of time"),
        (["start", "--stop-signal", "NOPE", "--", "true"], "--stop-signal: 'NOPE' is no signal"),
        (["start", "--label", "=x", "--", "true"], "--label: '=x' is no label"),
        (["start", "--name", "not a name", "--", "true"], "spec.name is not valid"),
        (["start", "--", ""], "spec.argv[0] is empty"),
        (["start", "--name"], "--name"),
        (["strat", "--", "true"], "unknown command 'strat'"),
    ],
)
def test_wrong_usage_is_two_lines_and_2(jobctl: Jobctl, arguments: list[str], says: str) -> None:
    done = jobctl(*arguments)
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (2, b""), done
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert len(lines) <= 2
    assert not lines[0].endswith(".")


@pytest.mark.parametrize("verb", ["start", "run"])
def test_what_is_missing_is_shown_for_the_verb_that_was_typed(jobctl: Jobctl, verb: str) -> None:
    assert (
        jobctl(verb).stderr.decode().splitlines()[1]
        == f"hint: jobctl {verb} [OPTIONS] -- PROGRAM [ARGUMENTS]"
    )
