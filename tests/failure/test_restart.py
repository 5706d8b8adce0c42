"""Server and supervisor ended at awkward moments: what jobs, records and requests look like afterwards."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from generated.jobworker.v1 import EndReason, JobRecord, JobSpec, JobState, StartStage
from jobwire.codec import decode
from jobworker import records
from jobworker.errors import FailedPrecondition, StartFailed, Unavailable
from jobworker.statedir import StateDirectory
from jobworker.store import Database, JobStore
from jobworker.supervisor.protocol import FrameReader, pack
from jobworker.supervisorconnection import SOCKET_NAME
from jobworker.supervisorlink import SupervisorLink
from jobworker.supervisorprocess import start_supervisor
from tests.harness import Worker, programs
from tests.harness.domain import ALICE, PATIENCE, Domain, running, until_content
from tests.harness.processes import alive, wait_gone

JOB = "01990000-0000-7000-8000-00000000000{}"


@pytest.fixture
async def domain() -> AsyncIterator[Domain]:
    async with running() as opened:
        yield opened


def reason(record: JobRecord) -> EndReason:
    assert record.termination is not None
    return record.termination.reason


async def held(domain: Domain, count: int = 1) -> tuple[list[str], list[Path]]:
    """Jobs that run until the file that each is given is written to; their ids, and the files."""
    ids, gates = [], []
    for number in range(count):
        gate = domain.directory / f"gate-{number}"
        os.mkfifo(gate)
        os.chmod(gate, 0o666)
        job = await domain.start(
            "/bin/sh", "-c", 'read code < "$0"; echo "read $code"; exit "$code"', str(gate)
        )
        ids.append(job.job_id)
        gates.append(gate)
    return ids, gates


def release(gate: Path, code: int) -> None:
    """Lets a held job exit with a code; returns once it has been told."""
    gate.write_text(f"{code}\n")


# the server


async def test_jobs_outlive_a_crash_of_the_server(domain: Domain) -> None:
    (running_on, ended_meanwhile), gates = await held(domain, 2)
    async with observed(domain) as ended:
        await domain.crash()  # the records still say that both are about to start
        release(gates[1], 5)
        assert await asyncio.wait_for(ended.get(), PATIENCE) == ended_meanwhile
    await domain.open()
    now = await domain.jobs.get(ALICE, running_on)
    assert now.state == JobState.RUNNING
    assert now.pid is not None
    assert alive(now.pid)
    then = await domain.wait(ended_meanwhile)
    assert then.termination is not None
    assert (reason(then), then.termination.exit_code) == (EndReason.EXITED, 5)
    assert then.output is not None
    assert then.output.size == len("read 5\n")
    assert domain.jobs.counts() == (1, 1)
    release(gates[0], 0)
    assert reason(await domain.wait(running_on)) == EndReason.EXITED


async def test_a_stop_is_remembered_over_a_crash(domain: Domain) -> None:
    job = await domain.start(*programs.ignore_term(), stop_grace=None)
    await domain.jobs.stop(ALICE, job.job_id, signal=10, grace=None)
    await domain.crash()
    await domain.open()
    record = await domain.jobs.get(ALICE, job.job_id)
    assert record.stopped_by == "alice"
    await domain.jobs.stop(ALICE, job.job_id, signal=9, grace=None)
    ended = await domain.wait(job.job_id)
    assert ended.termination is not None
    assert (reason(ended), ended.termination.stopped_by) == (EndReason.STOPPED, "alice")


async def test_an_intent_that_was_never_carried_out_is_one_failed_start(domain: Domain) -> None:
    intend(domain, JOB.format(1), request_id="r")
    await domain.restart()
    with pytest.raises(StartFailed, match="stopped before the program was started") as raised:
        await domain.start("sleep", "60", request_id="r")
    assert (raised.value.job_id, raised.value.stage) == (JOB.format(1), StartStage.SETUP)
    assert domain.jobs.counts() == (0, 1)


async def test_a_request_whose_answer_was_lost_is_the_same_job(domain: Domain) -> None:
    spec = JobSpec(argv=programs.sleep())
    task = asyncio.create_task(domain.jobs.start(ALICE, spec, request_id="r", job_id=None))
    await asyncio.sleep(0)  # recorded and asked for
    await domain.crash()
    with pytest.raises(Unavailable):
        await task
    await domain.open()
    record = await domain.start("true", request_id="r")
    assert record.spec.argv == programs.sleep()
    assert record.state == JobState.RUNNING
    assert domain.jobs.counts() == (1, 0)


async def test_a_second_server_is_refused(domain: Domain) -> None:
    with pytest.raises(
        FailedPrecondition, match=rf"another worker serves .* \(pid {os.getpid()}\)"
    ) as raised:
        StateDirectory.open(domain.path)
    assert "--state" in raised.value.hint


def test_a_server_that_is_killed_finds_its_jobs_again(make_worker: Callable[[], Worker]) -> None:
    worker = make_worker()
    gate = worker.directory / "gate"
    os.mkfifo(gate)
    gate.chmod(0o666)
    script = 'read code < "$0"; echo "read $code"; exit "$code"'
    started = worker.jobctl("start", "--name", "held", "--", "/bin/sh", "-c", script, str(gate))
    assert started.returncode == 0
    worker.kill9()
    gate.write_text("5\n")
    worker.restart()
    assert worker.jobctl("wait", "held").returncode == 5
    assert worker.jobctl("logs", "held").stdout == "read 5\n"
    assert worker.jobctl("start", "--name", "next", "--", "true").returncode == 0


# the supervisor


async def test_jobs_outlive_their_supervisor_and_others_can_start(domain: Domain) -> None:
    (job_id,), (gate,) = await held(domain)
    waiter = asyncio.create_task(domain.wait(job_id))
    old = domain.supervisor_pid
    os.kill(old, signal.SIGKILL)
    await until_connected(domain)
    assert domain.supervisor_pid != old
    fresh = await domain.start(*programs.sleep())
    await domain.jobs.stop(ALICE, fresh.job_id, signal=9, grace=None)
    assert reason(await domain.wait(fresh.job_id)) == EndReason.STOPPED
    assert not waiter.done()
    await asyncio.to_thread(release, gate, 5)
    record = await waiter
    assert record.termination is not None
    assert (reason(record), record.termination.exit_code) == (EndReason.EXITED, 5)


async def test_while_the_supervisor_is_away_callers_are_told_to_try_again(domain: Domain) -> None:
    (job_id,), _ = await held(domain)
    os.kill(domain.supervisor_pid, signal.SIGKILL)
    await asyncio.wait_for(domain.link._connection.closed.wait(), PATIENCE)  # type: ignore[union-attr]
    with pytest.raises(Unavailable, match="supervisor") as raised:
        await domain.start("true")
    assert "try again" in raised.value.hint
    assert (await domain.jobs.get(ALICE, job_id)).job_id == job_id
    assert len(domain.jobs.list(ALICE, None, page_size=0, page_token="")[0]) == 1
    await until_connected(domain)
    await domain.jobs.stop(ALICE, job_id, signal=9, grace=None)
    assert reason(await domain.wait(job_id)) == EndReason.STOPPED


async def test_a_supervisor_that_dies_over_a_launch(domain: Domain) -> None:
    os.kill(domain.supervisor_pid, signal.SIGSTOP)
    task = asyncio.create_task(domain.start(*programs.sleep(), request_id="r"))
    for _ in range(3):
        await asyncio.sleep(0)
    os.kill(domain.supervisor_pid, signal.SIGKILL)
    with pytest.raises(Unavailable, match="while the job was being started") as raised:
        await task
    record = await domain.wait(raised.value.job_id)
    assert reason(record) == EndReason.START_FAILED
    with pytest.raises(StartFailed) as again:
        await domain.start(*programs.sleep(), request_id="r")
    assert again.value.job_id == raised.value.job_id


async def test_a_supervisor_that_is_told_to_end_takes_its_jobs_along_in_order(domain: Domain) -> None:
    (job_id,), _ = await held(domain)
    pid = domain.supervisor_pid
    await domain.close()
    os.kill(pid, signal.SIGTERM)
    assert await asyncio.to_thread(wait_gone, pid, seconds=PATIENCE)
    await domain.open()
    record = await domain.wait(job_id)
    assert record.termination is not None
    assert (reason(record), record.termination.signal) == (EndReason.STOPPED, signal.SIGKILL)
    assert record.termination.stopped_by is None


async def test_jobs_of_another_boot_are_lost(domain: Domain) -> None:
    for number, state in enumerate((JobState.STARTING, JobState.RUNNING, JobState.STOPPING)):
        intend(domain, JOB.format(number), state=JobState(state))
        domain.state.job(JOB.format(number)).mkdir()
        (domain.state.job(JOB.format(number)) / "output.log").write_bytes(b"left over")
        (domain.state.job(JOB.format(number)) / "output.idx").write_bytes(b"")
    await domain.restart()
    for number in range(3):
        record = await domain.wait(JOB.format(number))
        assert reason(record) == EndReason.LOST
        assert record.output is not None
        assert record.output.size == len("left over")


async def test_a_supervisor_that_cannot_start_says_why(domain: Domain) -> None:
    await domain.end_supervisor()
    await domain.close()
    (domain.path / "supervisor.lock").unlink()
    (domain.path / "supervisor.lock").mkdir()
    with pytest.raises(Unavailable, match=r"the supervisor cannot start: .*director") as raised:
        await domain.open()
    assert "supervisor.log" in raised.value.hint
    (domain.path / "supervisor.lock").rmdir()
    await domain.open()


async def test_a_supervisor_that_is_on_its_way_up_is_awaited(domain: Domain) -> None:
    await domain.end_supervisor()
    await domain.close()
    lock = os.open(domain.path / "supervisor.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as one that a server before us has started
    opening = asyncio.create_task(domain.open())
    await until_content(domain.path / "supervisor.log", "already runs")
    os.close(lock)
    first = await start_supervisor(domain.path, cgroup_root=None)
    await opening
    first.forget()
    assert (await domain.wait((await domain.start("true")).job_id)).state == JobState.ENDED


async def test_a_supervisor_of_another_version_is_refused(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for request in FrameReader().feed(await reader.read(4096)):
            refusal = {
                "op": "error",
                "error": "bad_request",
                "errno": 0,
                "detail": "field 'protocol' must be 2",
            }
            writer.write(pack({**refusal, "seq": request["seq"]}))
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / SOCKET_NAME):
        link = SupervisorLink(tmp_path)

        async def never() -> None:
            raise AssertionError

        with pytest.raises(FailedPrecondition, match="another version: field 'protocol' must be 2"):
            await link.open(attach=never, launched=print, exited=print)
        await link.close()


@pytest.mark.parametrize("nonsense", [b"\x05\x00\x00\x00hello", b"\xff\xff\xff\xff", b""])
async def test_a_peer_that_talks_nonsense_is_not_waited_for(tmp_path: Path, nonsense: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(nonsense)
        if not nonsense:
            writer.close()
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / SOCKET_NAME):
        link = SupervisorLink(tmp_path)

        async def never() -> None:
            raise AssertionError

        with pytest.raises(Unavailable, match="does not answer"):
            await asyncio.wait_for(link.open(attach=never, launched=print, exited=print), PATIENCE)
        await link.close()


async def test_a_long_state_path_is_no_obstacle() -> None:
    domain = Domain()
    domain.path = domain.directory / ("d" * 100) / ("e" * 100)
    try:
        await domain.open()
        assert (await domain.wait((await domain.start("true")).job_id)).state == JobState.ENDED
        await domain.end_supervisor()
        await domain.close()
    finally:
        domain.remove()


# damage


GOOD_EXIT = {
    "version": 1, "job": "j", "boot_id": "b", "started_ns": 1, "main_exited_ns": 2, "ended_ns": 3, "exit_code": 0,
    "signal": None, "core_dumped": False, "stop_requested": False, "grace_expired": False, "timed_out": False,
    "oom_kills": 0, "start_failure": None, "usage": {}, "output_bytes": 0, "survivors": 0,
}  # fmt: skip
DAMAGED_EXITS = [
    b"",
    b"\x00" * 300,
    b"[]",
    b'{"version":1}',
    b'{"version":2}',
    json.dumps(GOOD_EXIT).encode()[:-20],
    json.dumps(GOOD_EXIT | {"oom_kills": "many"}).encode(),
    json.dumps(GOOD_EXIT | {"exit_code": 2**40}).encode(),
    json.dumps(GOOD_EXIT | {"ended_ns": 2**200}).encode(),
    json.dumps(GOOD_EXIT | {"usage": {"memory_bytes": -5}}).encode(),
    json.dumps(GOOD_EXIT | {"usage": None}).encode(),
    json.dumps(GOOD_EXIT | {"start_failure": {"stage": []}}).encode(),
]


async def test_damaged_exit_records_cost_one_job_each(domain: Domain) -> None:
    for number, content in enumerate([*DAMAGED_EXITS, json.dumps(GOOD_EXIT).encode()]):
        job_id = f"01990000-0000-7000-8000-0000000000{number:02}"
        intend(domain, job_id, state=JobState(JobState.RUNNING))
        domain.state.job(job_id).mkdir()
        (domain.state.job(job_id) / "exit").write_bytes(content)
    await domain.restart()
    page, _ = domain.jobs.list(ALICE, None, page_size=0, page_token="")
    reasons = [reason(decode(JobRecord, record)) for record in page]
    assert reasons == [EndReason.EXITED] + [EndReason.LOST] * len(DAMAGED_EXITS)
    assert (await domain.start("true")).job_id


async def test_a_damaged_record_costs_one_job(domain: Domain) -> None:
    intend(domain, JOB.format(1))
    await domain.close()
    database = Database.open(domain.path)
    database.write(("UPDATE jobs SET record = ?", (b"\xff\xff\xff",)))
    database.close()
    await domain.open()
    record = await domain.jobs.get(ALICE, JOB.format(1))
    assert (reason(record), record.owner) == (EndReason.LOST, "alice")
    assert (await domain.start("true")).job_id
    await domain.jobs.delete(ALICE, JOB.format(1))


async def test_what_a_deletion_left_goes_and_what_nobody_knows_stays(domain: Domain) -> None:
    for place in (domain.state.jobs, domain.state.scratch):
        (place / ".deleted-x" / "deep").mkdir(parents=True)
    (domain.state.jobs / "unknown").mkdir()
    await domain.restart()
    await domain.jobs.close()  # which waits for the cleaning
    assert domain.directories() == ["unknown"]
    assert os.listdir(domain.state.scratch) == []


async def test_a_full_database_refuses_starts_and_nothing_else(domain: Domain) -> None:
    (job_id,), gates = await held(domain)
    pages = domain.database.rows("PRAGMA page_count")[0][0]
    domain.database.rows(f"PRAGMA max_page_count = {pages}")

    async def fill() -> None:
        while True:
            await domain.start("true", name="x" * 4000)

    with pytest.raises(Unavailable, match="full"):
        await fill()
    running_jobs, _ = domain.jobs.counts()
    assert running_jobs >= 1
    release(gates[0], 4)
    ended = await domain.wait(job_id)
    assert ended.termination is not None
    assert ended.termination.exit_code == 4
    assert domain.jobs.list(ALICE, None, page_size=0, page_token="")[0]
    assert await domain.jobs.get(ALICE, job_id) == ended
    domain.database.rows("PRAGMA max_page_count = 100000")
    await domain.restart()
    assert (await domain.wait(job_id)).termination == ended.termination


def intend(domain: Domain, job_id: str, *, state: JobState | None = None, request_id: str = "") -> None:
    """Leaves a record of the state behind as a server does that is killed at that moment."""
    now = time.time_ns()
    record = records.accept(
        job_id, owner="alice", spec=JobSpec(argv=["sleep", "60"]), unix_nano=now, workdir="/"
    )
    record.state = state or record.state
    JobStore(domain.database).insert(record, created_unix_nano=now, request_id=request_id)


async def until_connected(domain: Domain) -> None:
    """Returns once the supervisor that died has a successor."""
    async with asyncio.timeout(PATIENCE):
        if domain.link._reconnecting is None:
            assert domain.link._connection is not None
            await domain.link._connection.closed.wait()
        assert domain.link._reconnecting is not None
        await asyncio.shield(domain.link._reconnecting)


@contextlib.asynccontextmanager
async def observed(domain: Domain) -> AsyncIterator[asyncio.Queue[str]]:
    """Ids of jobs as they end, by a connection of our own."""
    ended: asyncio.Queue[str] = asyncio.Queue()
    link = SupervisorLink(domain.path)

    async def ignore() -> None:
        """Settles nothing."""

    await link.open(attach=ignore, launched=print, exited=lambda event: ended.put_nowait(event["job"]))
    yield ended
    await link.close()
