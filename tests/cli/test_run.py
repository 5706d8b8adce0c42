"""`jobctl run`: as if the program were here."""

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Jobctl, command, read_until
from tests.conftest import MakeWorker
from tests.harness import Worker, programs
from tests.harness.probes import needs_full_device
from tests.harness.worker import CHECKOUT, PATIENCE

BOTH_WAYS = pytest.mark.parametrize("options", [[], ["--verbose"]], ids=["short way", "with options"])


@BOTH_WAYS
def test_streams_and_status(jobctl: Jobctl, options: list[str]) -> None:
    done = jobctl("run", *options, "--", *programs.say(out="out\n", err="err\n", exit_code=3))
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


def test_the_programs_options_are_its_own(jobctl: Jobctl) -> None:
    for words in (["--"], []):
        done = jobctl("run", *words, "echo", "-n", "--name", "x", "-o", "json", "--", "y")
        assert done.stdout == b"--name x -o json -- y"


@BOTH_WAYS
@pytest.mark.parametrize(
    ("program", "status"),
    [
        (programs.fail(0), 0),
        (programs.fail(255), 255),
        (programs.die("TERM"), 143),
        (programs.die("KILL"), 137),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
        (["no-such-program"], 127),
        (["/no/such/program"], 127),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_exit_statuses(jobctl: Jobctl, options: list[str], program: list[str], status: int) -> None:
    assert jobctl("run", *options, "--", *program).returncode == status


def test_a_timeout_is_124_and_said(jobctl: Jobctl) -> None:
    done = jobctl("run", "--timeout", "300ms", "--", *programs.sleep())
    assert done.returncode == 124
    assert done.stderr.startswith(b"note: job ")
    assert b"timed out" in done.stderr


@BOTH_WAYS
def test_two_lines_for_a_program_that_is_not_there(jobctl: Jobctl, options: list[str]) -> None:
    done = jobctl("run", *options, "--", "no-such-program")
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("error: cannot start 'no-such-program': not found in PATH=/")
    assert lines[1].startswith("hint: ")
    assert (len(lines), done.stdout) == (2, b"")


def test_bytes_are_bytes(jobctl: Jobctl) -> None:
    done = jobctl("run", "--", *programs.write_bytes(3_000_000))
    assert done.stdout == (b"\x01\xffbinary\n" * 400_000)[:3_000_000]


def test_nothing_is_loaded_that_the_short_way_does_not_use(worker: Worker) -> None:
    """Nor is a configuration file read when the environment says it all."""
    script = (
        "import sys; sys.argv = ['jobctl', 'run', '--', 'true']\n"
        "import jobctl.cli\n"
        "jobctl.cli.leave = lambda status: print(status, *{m.split('.')[0] for m in sys.modules})\n"
        "jobctl.cli._plain_run and __import__('jobctl.cli.runloop')\n"
        "from jobctl.cli.runloop import run_plain; jobctl.cli.leave(run_plain(['true']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, env=worker.environment("alice"), text=True,
        capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    status, *modules = done.stdout.split()
    assert status == "0", done.stderr
    heavy = {
        "cyclopts",
        "rich",
        "betterproto",
        "generated",
        "google",
        "dateutil",
        "tomllib",
        "json",
        "datetime",
    }
    assert heavy & set(modules) == set()


@BOTH_WAYS
def test_ctrl_c_stops_the_job(jobctl: Jobctl, options: list[str]) -> None:
    process = jobctl.begin(
        "run",
        *options,
        "--",
        *programs.sh("trap 'echo stopping; exit 9' TERM; echo ready; while :; do sleep 0.05; done"),
    )
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"ready\n")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (9, b"stopping\n")
    assert b"error" not in err  # the shell itself may say that its child was terminated


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_kills_it(jobctl: Jobctl, number: signal.Signals) -> None:
    process = jobctl.begin(
        "run", "--", *programs.sh("trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done")
    )
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"ready\n")
    process.send_signal(number)
    read_until(process.stdout.fileno(), b"no\n")
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 137


def test_a_signal_that_is_ignored_stays_ignored(jobctl: Jobctl) -> None:
    """As in the background of a script: only the SIGTERM counts, and it is the first."""
    script = "trap 'sleep 2; exit 4' TERM; echo ready; while :; do sleep 0.05; done"
    arguments = command("run", "--", *programs.sh(script))
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *arguments], cwd=CHECKOUT, env=jobctl.environment,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"ready\n")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 4


def test_a_terminal_is_told_what_ctrl_c_does(jobctl: Jobctl, terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    process = jobctl.begin("run", "--", *programs.ready_then_sleep(), stdout=theirs, stderr=theirs)
    read_until(ours, b"ready\r\n")
    process.send_signal(signal.SIGINT)
    read_until(ours, b"note: stopping the job; Ctrl-C again kills it\r\n")
    assert process.wait(PATIENCE) == 143


def test_a_reader_that_leaves_ends_it_quietly(jobctl: Jobctl) -> None:
    process = jobctl.begin("run", "--name", "endless", "--", "yes")
    assert process.stdout is not None
    assert process.stderr is not None
    os.read(process.stdout.fileno(), 10)
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr.read() == b""
    assert jobctl("wait", "endless").returncode == 143


def test_ctrl_c_works_while_nobody_reads(jobctl: Jobctl) -> None:
    process = jobctl.begin("run", "--name", "unread", "--", "yes")
    assert process.stdout is not None
    os.read(process.stdout.fileno(), 10)  # and no more: the pipe is full soon
    process.send_signal(signal.SIGINT)
    assert jobctl("wait", "unread").returncode == 143
    process.stdout.read()
    assert process.wait(PATIENCE) == 143


@needs_full_device
def test_a_full_disk_is_an_error(jobctl: Jobctl) -> None:
    with open("/dev/full", "wb") as full:
        process = jobctl.begin("run", "--", *programs.say(out="x"), stdout=full.fileno())
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (125, b"error: cannot write the output: no space left on device\n")


def test_output_that_nobody_wants(jobctl: Jobctl) -> None:
    """Started with stdout closed, the job's bytes must not end in whatever gets descriptor 1."""
    script = 'exec "$0" -m jobctl.cli run -- sh -c "echo out; echo err >&2" >&-'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], cwd=CHECKOUT, env=jobctl.environment, capture_output=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"err\n")


def test_a_file_gets_everything_and_keeps_what_it_had(jobctl: Jobctl, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before\n")
    with open(tmp_path / "log", "ab") as log:
        process = jobctl.begin("run", "--", *programs.lines(1000), stdout=log.fileno(), stderr=log.fileno())
        assert process.wait(PATIENCE) == 0
    assert (tmp_path / "log").read_bytes() == b"before\n" + b"".join(b"line %d\n" % n for n in range(1, 1001))


def test_json_lines(jobctl: Jobctl) -> None:
    done = jobctl("run", "-o", "json", "--name", "x", "--", *programs.say(out="\xff", exit_code=3))
    started, chunk, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (3, b"")
    assert (started["event"], started["job"]["name"], started["job"]["owner"]) == ("started", "x", "alice")
    assert (chunk["event"], chunk["stream"], chunk["offset"]) == ("chunk", "stdout", 0)
    assert base64.b64decode(chunk["data"]) == "\xff".encode()
    assert (end["event"], end["final_offset"], end["result"]["exit_code"]) == ("end", 2, 3)
    assert end["result"]["reason"] == "exited"


def test_the_same_request_is_the_same_job(jobctl: Jobctl) -> None:
    for _ in range(2):
        done = jobctl("run", "--request-id", "run-once", "--", "cat", "/proc/sys/kernel/random/uuid")
        assert done.returncode == 0
    again = jobctl("run", "--request-id", "run-once", "--", "cat", "/proc/sys/kernel/random/uuid")
    assert again.stdout == done.stdout


@pytest.mark.parametrize("options", [[], ["--verbose"]])
def test_a_restart_of_the_worker_is_not_noticed_unless_asked(
    make_worker: MakeWorker, options: list[str]
) -> None:
    worker = make_worker()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobctl.cli", "run", *options, "--", *programs.lines(100, pause=0.02)],
        cwd=CHECKOUT, env=worker.environment("alice"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        begun = read_until(process.stdout.fileno(), b"line 3\n")
        worker.restart()
        rest, err = process.communicate(timeout=PATIENCE)
    assert begun + rest == b"".join(b"line %d\n" % n for n in range(1, 101))
    assert process.returncode == 0
    assert (b"is lost; going on at the next byte" in err) == bool(options)


def test_nobody_there(jobctl: Jobctl) -> None:
    done = jobctl("run", "--", "true", JOBCTL_ADDRESS="127.0.0.1:1")
    assert done.returncode == 125
    assert done.stderr.startswith(b"error: no worker answers on 127.0.0.1:1: connection refused\nhint: ")
