"""`jobctl logs`: what there is, or also what comes."""

import base64
import os
import signal

from tests.cli.conftest import Jobctl, read_until
from tests.harness import Worker, programs


def test_what_there_is(jobctl: Jobctl) -> None:
    jobctl("run", "--name", "said", "--", *programs.say(out="out\n", err="err\n", exit_code=3))
    done = jobctl("logs", "said")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\n", b"err\n")
    assert jobctl("output", "said", "--stdout").stderr == b""
    assert jobctl("logs", "said", "--stderr").stdout == b""
    assert jobctl("logs", "said", "--stdout", "--stderr").stdout == b"out\n"
    assert jobctl("logs", "said", "--offset", "2").stdout == b"t\n"
    assert jobctl("logs", "said", "--offset", "8").stdout == b""


def test_of_a_running_job_without_following(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.ready_then_sleep())
    process = jobctl.begin("logs", "-f", job)
    assert process.stdout is not None
    process.stdout.readline()
    assert jobctl("logs", job).stdout == b"ready\n"
    jobctl("stop", job)


def test_following_ends_with_the_job(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.lines(20, pause=0.02))
    done = jobctl("logs", "--follow", "--quiet", job)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"".join(b"line %d\n" % n for n in range(1, 21))


def test_a_terminal_is_told_how_it_ended(jobctl: Jobctl, terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    job = jobctl.text("start", "--", *programs.fail(3))
    jobctl.begin("logs", "-f", job, stderr=theirs)
    read_until(ours, f"note: job {job} exited with code 3".encode())


def test_ctrl_c_only_stops_looking(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.ready_then_sleep())
    process = jobctl.begin("logs", "-f", job)
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"ready\n")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert jobctl.json("status", job)[0]["state"] == "running"
    jobctl("stop", job)


def test_a_large_log_byte_for_byte(jobctl: Jobctl, worker: Worker) -> None:
    job = jobctl.text("start", "--", *programs.write_bytes(30 << 20))
    assert jobctl("wait", job).returncode == 0
    saved = jobctl("logs", job).stdout
    assert len(saved) == 30 << 20
    assert saved == (worker.job_directory(job) / "output.log").read_bytes()


def test_a_reader_that_leaves_ends_it_quietly_and_not_the_job(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.lines(100_000, pause=0.001))
    process = jobctl.begin("logs", "-f", job)
    assert process.stdout is not None
    assert process.stderr is not None
    os.read(process.stdout.fileno(), 10)
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr.read() == b""
    assert jobctl.json("status", job)[0]["state"] == "running"
    jobctl("stop", job)


def test_output_that_is_gone_is_noted(jobctl: Jobctl, worker: Worker) -> None:
    jobctl("run", "--name", "damaged", "--", *programs.lines(100))
    (record,) = jobctl.json("status", "damaged")
    os.truncate(worker.job_directory(record["id"]) / "output.log", 0)
    done = jobctl("logs", "damaged")
    assert (done.returncode, done.stdout) == (0, b"")
    size = record["output"]["size"]
    assert done.stderr.decode() == f"note: bytes 0 to {size} of the output are gone: damaged on disk\n"
    (gap, end) = jobctl.json("logs", "damaged")
    assert gap == {"event": "gap", "start": 0, "end": size, "reason": "damaged"}
    assert end["final_offset"] == size


def test_for_programs(jobctl: Jobctl) -> None:
    jobctl("run", "--name", "json", "--", *programs.say(err="e"))
    chunk, end = jobctl.json("logs", "json")
    assert (chunk["stream"], base64.b64decode(chunk["data"])) == ("stderr", b"e")
    assert (end["event"], end["result"]["exit_code"]) == ("end", 0)


def test_wrong_usage(jobctl: Jobctl) -> None:
    jobctl("run", "--name", "short", "--", *programs.say(out="x"))
    assert jobctl("logs", "short", "--offset", "-1").returncode == 2
    assert jobctl("logs", "short", "--offset", "100").returncode == 2
    assert jobctl("logs").returncode == 2
    assert jobctl("logs", "no-such-job").returncode == 125
