"""Recorded output: every byte, in order, tagged by stream, whatever the job does with its pipes or the disk."""

import hashlib
import os
import sys

import pytest

from jobworker import outputindex
from tests.harness.paced import ERR, OUT, Paced
from tests.harness.probes import needs_root
from tests.supervisor.peer import Peer, Supervisor, wait_for_output

ALL_BYTES = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 3)"
PYTHON = [sys.executable, "-S", "-E", "-s", "-c"]
NOISE = """
import hashlib, random, sys
total = hashlib.sha256()
for number in range(int(sys.argv[1]) // 65536):
    block = random.Random(number).randbytes(65536)
    total.update(block)
    sys.stdout.buffer.write(block)
sys.stdout.flush()
sys.stderr.write(total.hexdigest())
"""


def streams(supervisor: Supervisor, job: str) -> dict[int, bytes]:
    """The log taken apart by its index, which must account for every byte of it."""
    directory = supervisor.job_directory(job)
    log = (directory / outputindex.LOG_NAME).read_bytes()
    index = (directory / outputindex.INDEX_NAME).read_bytes()
    assert outputindex.plan_repair(index, log_size=len(log), log_mtime_ns=0) is None
    records = outputindex.read_records(index, 0, limit=10**9)
    times = [record.time_ns for record in records]
    assert times == sorted(times)
    return {
        stream: b"".join(log[record.start : record.end] for record in records if record.stream == stream)
        for stream in (outputindex.STDOUT, outputindex.STDERR)
    }


def test_no_output_is_an_empty_log_and_an_index_without_records(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    assert peer.run(job, ["true"])["output_bytes"] == 0
    assert streams(supervisor, job) == {1: b"", 2: b""}


def test_a_last_line_without_newline_is_kept(supervisor: Supervisor, peer: Peer, job: str) -> None:
    record = peer.run(job, ["printf", "first\\nlast"])
    assert supervisor.output(job) == b"first\nlast"
    assert record["output_bytes"] == 10


def test_binary_output_is_kept_as_it_is(supervisor: Supervisor, peer: Peer, job: str) -> None:
    peer.run(job, [*PYTHON, ALL_BYTES])
    assert supervisor.output(job) == bytes(range(256)) * 3


def test_streams_are_told_apart_in_order_of_arrival(supervisor: Supervisor, peer: Peer, job: str) -> None:
    pieces = [piece for n in (1, 2, 3) for piece in ((OUT, f"out{n}\n"), (ERR, f"err{n}\n"))]
    paced = Paced(supervisor.state.parent, pieces)
    peer.launch(job, paced.argv)
    paced.let_go_on(supervisor.job_directory(job) / outputindex.LOG_NAME)
    peer.exited(job)
    assert supervisor.output(job) == b"out1\nerr1\nout2\nerr2\nout3\nerr3\n"
    assert streams(supervisor, job) == {1: b"out1\nout2\nout3\n", 2: b"err1\nerr2\nerr3\n"}


@pytest.mark.parametrize("user", [None, pytest.param(61190, marks=needs_root)])
def test_writing_to_dev_stderr_does_not_truncate_the_log(
    supervisor: Supervisor, peer: Peer, job: str, user: int | None
) -> None:
    script = "echo one; echo two > /dev/stderr; echo three > /dev/stdout; echo four | tee -a /dev/stderr"
    peer.run(job, ["sh", "-c", script], uid=user, gid=user)
    assert streams(supervisor, job) == {1: b"one\nthree\nfour\n", 2: b"two\nfour\n"}


@needs_root
def test_no_other_user_can_write_into_an_output(supervisor: Supervisor, peer: Peer, job: str) -> None:
    pid = peer.launch(job, ["sleep", "1000"], uid=61190, gid=61190)["pid"]
    script = f"echo mine > /proc/{pid}/fd/1"
    for number, (user, code) in enumerate([(61191, 2), (61190, 0)]):
        assert peer.run(f"{job}-{number}", ["sh", "-c", script], uid=user, gid=user)["exit_code"] == code
    peer.stop(job)
    peer.exited(job)
    assert supervisor.output(job) == b"mine\n"


def test_64_mib_arrive_byte_for_byte(supervisor: Supervisor, peer: Peer, job: str) -> None:
    size = 64 * 1024 * 1024
    assert peer.run(job, [*PYTHON, NOISE, str(size)])["output_bytes"] == size + 64
    parts = streams(supervisor, job)
    assert len(parts[1]) == size
    assert hashlib.sha256(parts[1]).hexdigest().encode() == parts[2]


def test_what_is_in_the_pipe_at_the_end_is_stored(supervisor: Supervisor, peer: Peer, job: str) -> None:
    """A last burst that fills the pipe, and then an exit at once."""
    script = "import os; os.write(1, b'x' * 65536); os.write(2, b'y' * 65536); os._exit(0)"
    assert peer.run(job, [*PYTHON, script])["output_bytes"] == 131072
    assert streams(supervisor, job) == {1: b"x" * 65536, 2: b"y" * 65536}


def test_a_job_that_closes_its_streams_and_stays_is_running(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    launched = peer.launch(job, ["sh", "-c", "echo before; exec >&- 2>&-; sleep 60"])
    wait_for_output(supervisor.job_directory(job) / "output.log", b"before\n")
    assert [(listed["job"], listed["pid"]) for listed in peer.jobs()] == [(job, launched["pid"])]
    peer.stop(job)
    assert peer.exited(job)["stop_requested"]


def test_a_grandchild_that_keeps_stdout_does_not_hold_up_the_end(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    record = peer.run(
        job,
        ["sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' & read line < /dev/null; echo done; exit 5"],
    )
    assert record["exit_code"] == 5
    assert record["signal"] is None


def test_a_loud_job_does_not_starve_a_quiet_one(supervisor: Supervisor, peer: Peer, job: str) -> None:
    peer.launch(job, [*PYTHON, "import os\nwhile True: os.write(1, bytes(1 << 20))"])
    for number in range(20):
        assert peer.run(f"{job}-{number}", ["echo", "hi"])["output_bytes"] == 3
    peer.stop(job, grace_ms=0)
    record = peer.exited(job)
    assert record["output_bytes"] == supervisor.job_directory(job).joinpath("output.log").stat().st_size
    assert sum(map(len, streams(supervisor, job).values())) == record["output_bytes"]


def test_output_of_many_jobs_at_once_is_kept_apart(supervisor: Supervisor, peer: Peer, job: str) -> None:
    jobs = [f"{job}-{number}" for number in range(16)]
    for name in jobs:
        peer.launch(name, ["sh", "-c", f"i=0; while [ $i -lt 300 ]; do echo {name} $i; i=$((i+1)); done"])
    for name in jobs:
        assert peer.exited(name)["exit_code"] == 0
        assert supervisor.output(name).decode() == "".join(f"{name} {number}\n" for number in range(300))


def test_files_are_for_the_worker_only(supervisor: Supervisor, peer: Peer, job: str) -> None:
    peer.run(job, ["echo", "secret"])
    directory = supervisor.job_directory(job)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {entry.name: entry.stat().st_mode & 0o777 for entry in directory.iterdir()} == dict.fromkeys(
        ("output.log", "output.idx", "exit"), 0o600
    )
    assert os.listdir(supervisor.state / "jobs")
