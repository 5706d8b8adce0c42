"""`jobctl logs --output FILE`: the bytes as they are, under that name only when they are all there."""

import asyncio
import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import termios
from pathlib import Path

import pytest

from jobctl.cli.progress import line
from tests.cli.conftest import Jobctl, command, read_until
from tests.client.proxy import proxy_to
from tests.harness import Worker, programs
from tests.harness.probes import needs_full_device
from tests.harness.worker import CHECKOUT, PATIENCE

MIB = 1 << 20


@pytest.fixture(scope="module")
def mixed(worker: Worker) -> str:
    """A job that has written 20 MiB to both streams."""
    script = 'i=0; while [ $i -lt 10 ]; do i=$((i+1)); yes "out $i" | head -c 1M; yes "err $i" | head -c 1M >&2; done'
    job = worker.jobctl("start", "--", *programs.sh(script)).stdout.strip()
    worker.jobctl("wait", job)
    return job


def recorded(worker: Worker, job: str) -> bytes:
    return (worker.job_directory(job) / "output.log").read_bytes()


def test_a_file_is_the_log_byte_for_byte(jobctl: Jobctl, worker: Worker, mixed: str, tmp_path: Path) -> None:
    done = jobctl("logs", mixed, "--output", str(tmp_path / "log"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "log").read_bytes() == recorded(worker, mixed)
    assert os.listdir(tmp_path) == ["log"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o666 & ~mask


@pytest.mark.slow
def test_a_gibibyte(jobctl: Jobctl, worker: Worker, tmp_path: Path) -> None:
    job = jobctl.text("start", "--", *programs.sh(f"seq 1 200000000 | head -c {1 << 30}"))
    jobctl("wait", job)
    assert jobctl("logs", job, "--output", str(tmp_path / "log")).returncode == 0
    assert (
        subprocess.run(
            ["cmp", worker.job_directory(job) / "output.log", tmp_path / "log"], check=False
        ).returncode
        == 0
    )
    jobctl("rm", job)


def test_a_part_of_it_with_times(jobctl: Jobctl, mixed: str, tmp_path: Path) -> None:
    file = tmp_path / "log"
    for options in (["-n", "5"], ["-n", "5", "--stderr"], ["--offset", str(19 * MIB), "-n", "9"]):
        assert jobctl("logs", mixed, *options, "--output", str(file)).returncode == 0
        printed = jobctl("logs", mixed, *options)
        assert file.read_bytes() == printed.stdout + printed.stderr
    assert jobctl("logs", mixed, "-t", "-n", "3", "--output", str(file)).returncode == 0
    assert re.fullmatch(rb"(2\d{3}-\S+Z err 10\n){2}2\d{3}-\S+Z err \n", file.read_bytes())
    assert jobctl("logs", mixed, "-o", "json", "-n", "3", "--output", str(file)).stdout == b""
    events = [json.loads(text)["event"] for text in file.read_text().splitlines()]
    assert (events[0], events[-1]) == ("position", "end")


async def test_broken_connections_leave_no_mark(
    jobctl: Jobctl, worker: Worker, mixed: str, tmp_path: Path
) -> None:
    async with proxy_to(worker.address) as proxy:
        proxy.cut_after(
            3 * MIB, 2 * MIB, 4 * MIB
        )  # the first is that of the stream: a full id is not looked up
        process = await asyncio.create_subprocess_exec(
            *command("logs", mixed, "--output", str(tmp_path / "log")), cwd=CHECKOUT,
            env=jobctl.environment | {"JOBCTL_ADDRESS": proxy.address}, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert (process.returncode, err) == (0, b"")
        assert proxy.connections == 4
    assert (tmp_path / "log").read_bytes() == recorded(worker, mixed)


def test_what_is_interrupted_never_looks_whole(jobctl: Jobctl, tmp_path: Path) -> None:
    job = jobctl.text("start", "--", *programs.ready_then_sleep())
    (tmp_path / "log").write_bytes(b"before")
    process = jobctl.begin("logs", "-f", job, "--output", str(tmp_path / "log"))
    part = tmp_path / "log.part"
    wait_for_bytes(part, b"ready\n")
    busy = jobctl("logs", job, "--output", str(tmp_path / "log"))
    assert (busy.returncode, busy.stderr.splitlines()[0]) == (
        125,
        f"error: {part} is being written by another jobctl".encode(),
    )
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err.decode()) == (130, f"note: what has come so far is in {part}\n")
    assert (tmp_path / "log").read_bytes() == b"before"
    assert part.read_bytes() == b"ready\n"
    jobctl("stop", job)
    assert jobctl("logs", job, "--output", str(tmp_path / "log")).returncode == 0
    assert os.listdir(tmp_path) == ["log"]
    assert (tmp_path / "log").read_bytes() == b"ready\n"


def wait_for_bytes(path: Path, data: bytes) -> None:
    """Returns when a file begins with these bytes; `tail` is woken by the kernel."""
    tail = ["timeout", f"{PATIENCE:g}", "tail", "-c", "+1", "--follow=name", "--retry", str(path)]
    with subprocess.Popen(tail, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert read_until(process.stdout.fileno(), data).startswith(data)
        process.kill()


def test_nothing_is_left_of_what_did_not_begin(jobctl: Jobctl, tmp_path: Path) -> None:
    done = jobctl("logs", "no-such-job", "--output", str(tmp_path / "log"))
    assert (done.returncode, os.listdir(tmp_path)) == (125, [])
    done = jobctl("logs", "any", "--output", str(tmp_path / "log"), JOBCTL_ADDRESS="127.0.0.1:1")
    assert (done.returncode, os.listdir(tmp_path)) == (125, [])


def test_a_file_that_is_there_is_replaced_where_it_is(jobctl: Jobctl, mixed: str, tmp_path: Path) -> None:
    """Its permissions stay, and a link to it stays a link."""
    (tmp_path / "log").write_bytes(b"before")
    (tmp_path / "log").chmod(0o600)
    (tmp_path / "link").symlink_to("log")
    assert jobctl("logs", mixed, "-n", "1", "--output", str(tmp_path / "link")).returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "log").read_bytes() == b"err "
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_what_is_no_regular_file_is_written_as_it_is(jobctl: Jobctl, mixed: str) -> None:
    done = jobctl("logs", mixed, "-n", "2", "--output", "/dev/stdout")
    assert (done.returncode, done.stdout) == (0, b"err 10\nerr ")
    assert jobctl("logs", mixed, "--output", "/dev/null").returncode == 0


@needs_full_device
def test_a_device_that_is_full_is_an_error(jobctl: Jobctl, mixed: str) -> None:
    full = jobctl("logs", mixed, "--output", "/dev/full")
    assert (full.returncode, full.stderr) == (
        125,
        b"error: cannot write /dev/full: no space left on device\n",
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no/such/folder", "no such file or directory"),
        (".", "is a directory"),
        ("plain/log", "not a directory"),
    ],
)
def test_where_nothing_can_be_written_nobody_is_asked(
    jobctl: Jobctl, tmp_path: Path, path: str, reason: str
) -> None:
    (tmp_path / "plain").write_bytes(b"")
    done = jobctl("logs", "any", "--output", str(tmp_path / path), JOBCTL_ADDRESS="127.0.0.1:1")
    assert done.returncode == 125
    assert done.stderr.decode().splitlines()[0].startswith(f"error: cannot write {tmp_path}")
    assert done.stderr.decode().splitlines()[0].endswith(f": {reason}")


def test_a_folder_that_is_gone(jobctl: Jobctl, mixed: str, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", tmp_path / "gone", *command("logs", mixed, "--output", "log")], cwd=CHECKOUT,
        env={**jobctl.environment, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr == b"error: cannot write log: no such file or directory\n"


def test_a_file_without_a_name(jobctl: Jobctl, mixed: str) -> None:
    done = jobctl("logs", mixed, "--output", "")
    assert (done.returncode, done.stderr) == (2, b"error: --output: no file is named\n")


def test_a_disk_that_fills_leaves_a_part(jobctl: Jobctl, mixed: str, tmp_path: Path) -> None:
    """As a limit on the size of files stands for it: what was written stays, and is not taken for all."""
    script = 'ulimit -f 2048; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", script, "sh", *command("logs", mixed, "--output", str(tmp_path / "log"))], cwd=CHECKOUT,
        env=jobctl.environment, capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr.decode().splitlines() == [
        f"note: what has come so far is in {tmp_path}/log.part",
        f"error: cannot write {tmp_path}/log.part: file too large",
    ]
    assert os.listdir(tmp_path) == ["log.part"]


def test_a_terminal_sees_how_far_it_is(jobctl: Jobctl, terminal: tuple[int, int], tmp_path: Path) -> None:
    ours, theirs = terminal
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, b"\x18\0\x78\0\0\0\0\0")  # 120 columns
    job = jobctl.text("start", "--", *programs.sh("while :; do echo tick; sleep 0.02; done"))
    jobctl.begin("logs", "-f", job, "--output", str(tmp_path / "log"), stderr=theirs)
    seen = read_until(ours, b"B/s\r\x1b[Klog: ")
    assert re.match(rb"\r\x1b\[Klog: [\d.]+ (Ki)?B, [\d.]+ (Ki)?B/s\r", seen)
    jobctl("stop", job)
    seen = read_until(ours, b" stopped by alice")
    size = len((tmp_path / "log").read_bytes())
    assert re.search(rb"\r\x1b\[Knote: saved [\d.]+ (Ki)?B to log in [\d.]+ s, .*/s\r\nnote: job ", seen)
    assert size == jobctl.json("status", job)[0]["output"]["size"]


def test_without_a_terminal_there_is_no_bar(jobctl: Jobctl, mixed: str, tmp_path: Path) -> None:
    assert jobctl("logs", mixed, "--output", str(tmp_path / "log")).stderr == b""


@pytest.mark.parametrize(
    ("saved", "seconds", "share", "text"),
    [
        (0, 0, None, "log: 0 B"),
        (MIB, 2, None, "log: 1 MiB, 512 KiB/s"),
        (0, 0, 0.0, "log [------------------------] 0%, 0 B"),
        (256 * MIB, 2, 0.25, "log [######------------------] 25%, 256 MiB, 128 MiB/s, 6 s left"),
        (MIB, 1, 1.0, "log [########################] 100%, 1 MiB, 1 MiB/s, 0 s left"),
    ],
)
def test_the_line(saved: int, seconds: float, share: float | None, text: str) -> None:
    assert line("log", saved, seconds, share) == text
