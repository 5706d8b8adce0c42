"""The reader of our output goes away while the job is silent: noticed at once, not by the next write."""

import asyncio
import os
import socket
import subprocess

import pytest

from jobctl.cli.sink import while_read
from tests.cli.conftest import Jobctl, command, read_until
from tests.harness import programs
from tests.harness.worker import CHECKOUT, PATIENCE


@pytest.mark.parametrize(
    "options",
    [[], ["-t"], ["-o", "json"], ["--stdout"], ["-n", "1", "--since", "1h"]],
    ids=lambda options: " ".join(options) or "plain",
)
def test_logs_ends_and_the_job_does_not(jobctl: Jobctl, options: list[str]) -> None:
    job = jobctl.text("start", "--", *programs.ready_then_sleep())
    process = jobctl.begin("logs", "-f", job, *options)
    assert process.stdout is not None
    assert process.stderr is not None
    os.read(process.stdout.fileno(), 10)
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr.read() == b""
    assert jobctl.json("status", job)[0]["state"] == "running"
    jobctl("stop", job)


def test_the_reader_of_stderr_counts_where_only_stderr_is_shown(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.sh("echo ready >&2; exec sleep 3600"))
    process = jobctl.begin("logs", "-f", "--stderr", job)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    read_until(process.stderr.fileno(), b"ready\n")
    process.stderr.close()
    assert process.wait(PATIENCE) == 141
    jobctl("stop", job)


@pytest.mark.parametrize("options", [[], ["--verbose"], ["-o", "json"]], ids=["short", "options", "json"])
def test_run_stops_the_job(jobctl: Jobctl, options: list[str]) -> None:
    mark = f"unread{len(options)}{len(''.join(options))}"
    process = jobctl.begin("run", *options, "--", *programs.sh("echo ready; exec sleep 3600", mark))
    assert process.stdout is not None
    assert process.stderr is not None
    os.read(process.stdout.fileno(), 1)
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr.read() == b""
    (job,) = [record for record in jobctl.json("list") if mark in record["argv"]]
    assert jobctl("wait", job["id"]).returncode == 143


def test_a_reader_that_was_never_there(jobctl: Jobctl) -> None:
    """It has left before there is a job that could be stopped: the job is stopped as soon as there is one."""
    script = '"$@" | exec true; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", script, "sh", *command("run", "--", *programs.sh("sleep 3600", "never-read"))],
        cwd=CHECKOUT, env=jobctl.environment, capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (b"141\n", b"")
    (job,) = [record for record in jobctl.json("list") if "never-read" in record["argv"]]
    assert jobctl("wait", job["id"]).returncode == 143


def test_a_socket_is_a_reader_too(jobctl: Jobctl) -> None:
    ours, theirs = socket.socketpair()
    job = jobctl.text("start", "--", *programs.ready_then_sleep())
    with ours:
        process = jobctl.begin("logs", "-f", job, stdout=theirs.fileno())
        theirs.close()
        assert ours.recv(10) == b"ready\n"
        ours.send(b"what it is told does not matter")
    assert process.wait(PATIENCE) == 141
    jobctl("stop", job)


def test_a_file_is_never_left(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.lines(3, pause=0.1))
    process = jobctl.begin("logs", "-f", job, stdout=subprocess.DEVNULL)
    assert process.wait(PATIENCE) == 0


async def test_leaving_is_an_error_of_ours_and_no_cancellation() -> None:
    """Whoever waits further up is not cancelled by it, and may set time limits after it."""
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError), while_read(writer):
        await asyncio.Event().wait()
    os.close(writer)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_a_cancellation_at_the_same_moment_is_not_lost() -> None:
    reader, writer = os.pipe()
    waiting = asyncio.Event()

    async def watch() -> None:
        with while_read(writer):
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(watch())
    await waiting.wait()
    os.close(reader)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    os.close(writer)


async def test_what_ends_by_itself_is_left_alone() -> None:
    reader, writer = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    with while_read(writer):
        await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(reader)
    await asyncio.sleep(0)
    os.close(writer)
