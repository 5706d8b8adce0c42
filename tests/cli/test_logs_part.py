"""`jobctl logs` of a part: tails, times, streams and offsets, alone and together, with times before the lines or without."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.cli.conftest import Jobctl, command, read_until
from tests.conftest import MakeWorker
from tests.harness import Worker, paced, programs
from tests.harness.worker import CHECKOUT, PATIENCE

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z "
OUT = [b"out %d\n" % n for n in range(1, 6)]
ERR = [b"err %d\n" % n for n in range(1, 6)]


def written(jobctl: Jobctl, worker: Worker, pieces: list[tuple[int, str]]) -> str:
    """A job that has written these pieces, one after the other."""
    writer = paced.Paced(worker.directory, pieces)
    job = jobctl.text("start", "--", *writer.argv)
    writer.let_go_on(worker.job_directory(job) / "output.log")
    assert jobctl("wait", job).returncode == 0
    return job


@pytest.fixture
def mixed(jobctl: Jobctl, worker: Worker) -> Iterator[str]:
    """A job that wrote five lines to each stream, in turn, at times that can be told apart."""
    pieces = [piece for n in range(1, 6) for piece in ((paced.OUT, f"out {n}\n"), (paced.ERR, f"err {n}\n"))]
    job = written(jobctl, worker, pieces)
    yield job
    jobctl("rm", job)


def times(jobctl: Jobctl, job: str) -> list[str]:
    """When each line was taken, in order, as `-t` tells it."""
    merged = jobctl("logs", "-t", "--output", "/dev/stdout", job).stdout.decode()
    return [line.split()[0] for line in merged.splitlines()]


def test_parts(jobctl: Jobctl, mixed: str) -> None:
    for options, out, err in (
        (["-n", "3"], OUT[4:], ERR[3:]),
        (["--tail", "3", "--stderr"], [], ERR[2:]),
        (["-n0"], [], []),
        (["-n", "100"], OUT, ERR),
        (["--offset", "48"], OUT[4:], ERR[4:]),
        (["--offset", "30", "-n", "9", "--stdout"], OUT[3:], []),
        (["--since", "1h", "--until", "0s"], OUT, ERR),
        (["--until", "1h"], [], []),
        (["-f", "-q", "-n", "2"], OUT[4:], ERR[4:]),
    ):
        done = jobctl("logs", mixed, *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"".join(out), b"".join(err)), options


def test_times_that_were_printed_are_understood(jobctl: Jobctl, mixed: str) -> None:
    when = times(jobctl, mixed)
    assert len(when) == 10
    assert when == sorted(when)
    done = jobctl("logs", mixed, "--since", when[4], "--until", when[7])
    assert (done.stdout, done.stderr) == (OUT[2] + OUT[3], ERR[2])
    done = jobctl("logs", mixed, "--since", when[2], "--until", when[8], "-n", "2", "--stderr", "-t")
    assert re.fullmatch(f"{STAMP}err 3\n{STAMP}err 4\n", done.stderr.decode())
    unix = f"@{datetime.fromisoformat(when[9]).timestamp():.6f}"
    assert jobctl("logs", mixed, "--since", unix).stderr == ERR[4]
    local = datetime.fromisoformat(when[8]).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")
    assert jobctl("logs", mixed, "--since", local).stdout == OUT[4]


def test_each_line_has_its_time_and_each_stream_its_lines(jobctl: Jobctl, worker: Worker) -> None:
    """Though both are written in pieces that come between each other, and neither ends with a newline."""
    pieces = [(paced.OUT, "o1"), (paced.ERR, "e1"), (paced.OUT, "o2\no3"), (paced.ERR, "e2\ne3")]
    job = written(jobctl, worker, pieces)
    done = jobctl("logs", "-t", job)
    assert re.fullmatch(f"{STAMP}o1o2\n{STAMP}o3\n", done.stdout.decode())
    assert re.fullmatch(f"{STAMP}e1e2\n{STAMP}e3\n", done.stderr.decode())
    together = jobctl("logs", "-t", "--output", "/dev/stdout", job).stdout.decode()
    assert re.fullmatch(f"{STAMP}o1o2\n{STAMP}e1e2\n{STAMP}o3\n{STAMP}e3\n", together)
    first, second = (line.split()[0] for line in together.splitlines()[:2])
    assert first < second


def test_lines_with_times_are_live(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.ready_then_sleep())
    process = jobctl.begin("logs", "-ft", job)
    assert process.stdout is not None
    assert re.fullmatch(f"{STAMP}ready\n", read_until(process.stdout.fileno(), b"ready\n").decode())
    jobctl("stop", job)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err.count(b"\n")) == (0, 1)


def test_following_ends_at_its_time_and_not_the_job(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.ready_then_sleep())
    done = jobctl("logs", "-f", "--until", f"@{time.time() + 1:.3f}", job)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ready\n", b"")
    assert jobctl.json("status", job)[0]["state"] == "running"
    jobctl("stop", job)


def test_how_it_ended_is_told_in_one_line(jobctl: Jobctl) -> None:
    name = "told"
    job = jobctl.text("start", "--name", name, "--", *programs.say(out="x", exit_code=3))
    done = jobctl("logs", "-f", name)
    assert re.fullmatch(
        rf"note: job told \({job}\) exited with code 3 after [\d.]+ m?s\n", done.stderr.decode()
    )
    assert jobctl("logs", "-f", "--quiet", job).stderr == b""
    assert jobctl("logs", job).stderr == b""
    *_, end = jobctl.json("logs", "-f", job)
    assert end["event"] == "end"


def test_what_is_told_begins_a_line(jobctl: Jobctl, terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    job = jobctl.text("start", "--name", "halfway", "--", *programs.say(out="out", exit_code=3))
    jobctl.begin("logs", "-f", job, stdout=theirs, stderr=theirs)
    assert read_until(ours, b"code 3").startswith(b"out\r\nnote: job halfway (")
    done = jobctl("run", "--timeout", "500ms", "--", *programs.sh("printf err >&2; sleep 100"))
    assert done.stderr.startswith(b"err\nnote: job ")
    done = jobctl("logs", "-f", job)
    assert (done.stdout, done.stderr.startswith(b"note: ")) == (b"out", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "yesterday"], "--since: 'yesterday' is no time"),
        (["--until", "1764417600"], "--until: '1764417600' is no time"),
        (["--tail", "-1"], "--tail: '-1' is no number of lines: a whole number from 0 on"),
        (["-n", "ten"], "--tail: 'ten' is no number of lines: a whole number from 0 on"),
        (["--since", "1m", "--until", "2m"], "--until: the end is before the beginning"),
        (["--offset", "x"], "--offset: 'x' is no offset: a whole number from 0 on"),
    ],
)
def test_what_is_no_part_is_wrong_usage_and_asks_nobody(
    jobctl: Jobctl, options: list[str], message: str
) -> None:
    done = jobctl("logs", "any", *options, JOBCTL_ADDRESS="127.0.0.1:1")
    first, *rest = done.stderr.decode().splitlines()
    assert (done.returncode, first) == (2, f"error: {message}")
    if "is no time" in message:
        assert rest == [
            "hint: a length of time ago (10m, 1d); a date, a time of day or both (12:30, 2026-11-29T12:00:00Z); or @UNIX"
        ]


@pytest.mark.parametrize("options", [[], ["--verbose"]], ids=["quiet", "verbose"])
def test_a_tail_goes_on_when_the_worker_restarts_and_says_nothing_unless_asked(
    make_worker: MakeWorker, options: list[str]
) -> None:
    worker = make_worker()
    gate = worker.directory / "gate"  # it does not end before the worker is there again
    os.mkfifo(gate)
    gate.chmod(0o666)
    script = 'for i in $(seq 100); do echo "line $i"; [ "$i" != 50 ] || read go <"$1"; sleep 0.02; done'
    job = worker.jobctl("start", "--", *programs.sh(script, str(gate))).stdout.strip()
    process = subprocess.Popen(
        command("logs", "-f", "-t", "-n", "1", *options, job), cwd=CHECKOUT,
        env=worker.environment("alice"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        begun = read_until(process.stdout.fileno(), b"\n")
        worker.restart()
        gate.write_text("\n")
        rest, err = process.communicate(timeout=PATIENCE)
    numbers = [int(line.split()[-1]) for line in (begun + rest).splitlines()]
    assert numbers == list(range(numbers[0], 101))
    assert process.returncode == 0
    assert (b"is lost; going on at the next byte" in err) == bool(options)
    assert err.splitlines()[-1].startswith(f"note: job {job} exited with code 0".encode())
