"""`jobctl wait`: exit as the job did."""

import signal

from tests.cli.conftest import Jobctl
from tests.harness import programs


def test_it_exits_as_the_job_did(jobctl: Jobctl) -> None:
    statuses = [
        jobctl("wait", jobctl.text("start", "--", *program)).returncode
        for program in (programs.fail(0), programs.fail(42), programs.die("TERM"))
    ]
    assert statuses == [0, 42, 143]
    late = jobctl.text("start", "--timeout", "200ms", "--", *programs.sleep())
    done = jobctl("wait", late)
    assert (done.returncode, done.stdout) == (124, b"")
    assert b"timed out" in done.stderr


def test_of_a_job_that_could_not_be_started(jobctl: Jobctl) -> None:
    jobctl("start", "--name", "never", "--", "no-such-program")
    assert jobctl("wait", "never").returncode == 127


def test_it_gives_up_when_told(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.sleep())
    done = jobctl("wait", "--timeout", "300ms", job)
    assert (done.returncode, done.stderr) == (125, b"error: not done within 0.3 s\n")
    assert jobctl.json("status", job)[0]["state"] == "running"
    jobctl("stop", job)


def test_ctrl_c_stops_waiting_and_nothing_else(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--name", "waited", "--", *programs.sh("echo x; sleep 3600"))
    process = jobctl.begin("wait", job)
    follower = jobctl.begin("logs", "-f", job)
    assert follower.stdout is not None
    follower.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")
    assert jobctl.json("status", job)[0]["state"] == "running"
    jobctl("stop", job)


def test_for_programs(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.fail(3))
    done = jobctl("wait", "-o", "json", job)
    assert done.returncode == 3
    assert b'"exit_status": 3' in done.stdout


def test_a_job_that_is_not_there(jobctl: Jobctl) -> None:
    assert jobctl("wait", "no-such-job").returncode == 125
    assert jobctl("wait").returncode == 2
