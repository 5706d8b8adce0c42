"""Every verb of `Jobs` with real processes, and what it refuses."""

import asyncio
import errno
import os
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from generated.jobworker.v1 import EndReason, JobFilter, JobRecord, JobSpec, JobState, Limits, StartStage
from jobwire.codec import decode
from jobworker import jobids
from jobworker.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    JobworkerError,
    NotFound,
    PermissionDenied,
    StartFailed,
)
from jobworker.policy import OPERATOR, Caller
from tests.harness import probes, programs
from tests.harness.domain import ALICE, BOB, CAROL, PATIENCE, ROOT, Domain, running
from tests.harness.processes import alive, leaves_of

NO_SUCH_JOB = "01990000-0000-7000-8000-000000000000"


@pytest.fixture
async def domain() -> AsyncIterator[Domain]:
    async with running() as opened:
        yield opened


def output(domain: Domain, job_id: str) -> str:
    return (domain.state.job(job_id) / "output.log").read_text()


def reason(record: JobRecord) -> EndReason:
    assert record.termination is not None
    return record.termination.reason


# start


async def test_a_job_starts_runs_and_ends(domain: Domain) -> None:
    started = await domain.start(
        *programs.say(out="out", err="err", exit_code=3), name="n", labels={"ci": "1"}
    )
    assert started.state in (JobState.RUNNING, JobState.ENDED)
    assert started.owner == "alice"
    record = await domain.wait(started.job_id)
    assert record.state == JobState.ENDED
    assert record.termination is not None
    assert (record.termination.reason, record.termination.exit_code) == (EndReason.EXITED, 3)
    assert record.created_at <= record.started_at <= record.ended_at  # type: ignore[operator]
    assert record.pid is None
    assert record.usage is not None
    assert record.output is not None
    assert record.output.size == 6
    assert sorted(output(domain, started.job_id)) == sorted("outerr")


async def test_the_database_has_what_the_future_told(domain: Domain) -> None:
    started = await domain.start("true")
    ended = await domain.wait(started.job_id)
    assert await domain.wait(started.job_id) == ended
    assert await domain.jobs.get(ALICE, started.job_id) == ended
    await domain.restart()
    assert await domain.jobs.get(ALICE, started.job_id) == ended


@probes.needs_root
async def test_the_environment_is_clean_and_the_jobs_own(domain: Domain) -> None:
    os.environ["JOBWORKER_TEST_LEAK"] = "leaked"
    try:
        record = await domain.start(
            "/bin/sh", "-c", "env; pwd; id -u; id -G", env={"EXTRA": "1", "LANG": "C"}
        )
        await domain.wait(record.job_id)
    finally:
        del os.environ["JOBWORKER_TEST_LEAK"]
    lines = output(domain, record.job_id).splitlines()
    scratch = str(domain.state.job_scratch(record.job_id))
    variables = dict(line.split("=", 1) for line in lines if "=" in line)
    assert (
        variables.items()
        >= {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": scratch,
            "TMPDIR": scratch,
            "USER": "alice",
            "LOGNAME": "alice",
            "SHELL": "/bin/sh",
            "LANG": "C",
            "EXTRA": "1",
            "JOBWORKER_JOB_ID": record.job_id,
        }.items()
    )
    assert "JOBWORKER_TEST_LEAK" not in variables
    assert lines[-3:] == [scratch, "61184", "61184"]
    assert record.workdir == scratch
    assert record.uid == 61184


@dataclass
class Failure:
    """A spec that cannot be started, and what is said of it."""

    argv: list[str]
    number: int
    detail: str
    hint: str
    stage: int = StartStage.EXEC
    workdir: str | None = None

    def __str__(self) -> str:
        return f"{errno.errorcode[self.number]} {self.argv[0]}"


FAILURES = [
    Failure(["no-such-program"], errno.ENOENT, "not found in PATH=", "absolute path"),
    Failure(["/no/such/program"], errno.ENOENT, "not found", "path is one on the worker"),
    Failure(["/etc/passwd"], errno.EACCES, "not executable", "chmod"),
    Failure(["/tmp"], errno.EACCES, "is a directory", "executable file"),
    Failure(["true"], errno.ENOENT, "", "make the directory", StartStage.WORKDIR, "/no/such"),
    Failure(["true", "x" * 2**21], errno.E2BIG, "", "in a file"),
    Failure(["true", "\x01" * 2**21, "\x01" * 2**20], errno.E2BIG, "argument list too long", "in a file"),
]


@pytest.mark.parametrize("case", FAILURES, ids=str)
async def test_a_failed_start_is_typed_and_leaves_only_its_record(domain: Domain, case: Failure) -> None:
    spec = JobSpec(argv=case.argv, workdir=case.workdir)
    with pytest.raises(StartFailed) as raised:
        await domain.jobs.start(ALICE, spec, request_id="r", job_id=None)
    error = raised.value
    assert (error.stage, error.errno) == (case.stage, case.number)
    assert str(error).startswith(f"cannot start '{case.argv[0]}': ")
    assert case.detail in error.detail
    assert case.hint in error.hint
    assert len(str(error)) < 1000
    record = await domain.jobs.get(ALICE, error.job_id)
    assert reason(record) == EndReason.START_FAILED
    assert await domain.wait(error.job_id) == record
    assert domain.directories() == os.listdir(domain.state.scratch) == []
    assert error.job_id not in {leaf.name for leaf in leaves_of(domain.path)}
    with pytest.raises(StartFailed) as again:
        await domain.jobs.start(ALICE, spec, request_id="r", job_id=None)
    assert (again.value.job_id, again.value.detail) == (error.job_id, error.detail)


async def test_a_script_without_its_interpreter(domain: Domain) -> None:
    script = domain.directory / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(StartFailed, match="interpreter '/no/such/interpreter' not found"):
        await domain.start(str(script))


async def test_unknown_and_forbidden_users(domain: Domain) -> None:
    admin = Caller("root", ROOT.role, uid=61187)
    with pytest.raises(StartFailed, match="no user 'no-such-user' on the worker") as raised:
        await domain.start("true", caller=admin, user="no-such-user")
    assert raised.value.stage == StartStage.USER
    with pytest.raises(PermissionDenied, match="may not run jobs as user 'root'"):
        await domain.start("true", user="root")
    gone = Caller("dave", OPERATOR, unix_user="deleted-user")
    with pytest.raises(StartFailed, match="no user 'deleted-user'"):
        await domain.start("true", caller=gone)
    assert domain.jobs.counts() == (0, 2)


@probes.needs_root
async def test_a_job_runs_as_the_unix_user_its_policy_names(domain: Domain) -> None:
    caller = Caller("dave", OPERATOR, unix_user="nobody")
    record = await domain.start("/bin/sh", "-c", 'id -un; echo "$USER"', caller=caller, user="nobody")
    await domain.wait(record.job_id, caller=caller)
    assert output(domain, record.job_id) == "nobody\nnobody\n"
    with pytest.raises(FailedPrecondition, match="has no uid"):
        await domain.start("true", caller=Caller("erin", OPERATOR))


async def test_an_id_may_be_chosen_once(domain: Domain) -> None:
    chosen = str(uuid.uuid4())
    spec = JobSpec(argv=["true"])
    record = await domain.jobs.start(ALICE, spec, request_id="", job_id=chosen)
    assert record.job_id == chosen
    for caller in (ALICE, BOB):
        with pytest.raises(AlreadyExists, match=chosen):
            await domain.jobs.start(caller, spec, request_id="", job_id=chosen)
    for wrong in ("", "x", chosen.upper(), f"{{{chosen}}}", "../" + chosen[3:]):
        with pytest.raises(InvalidArgument) as raised:
            await domain.jobs.start(ALICE, spec, request_id="", job_id=wrong)
        assert raised.value.field == "job_id"


async def test_a_directory_of_an_unknown_job_is_not_touched(domain: Domain) -> None:
    chosen = str(uuid.uuid4())
    domain.state.job(chosen).mkdir()
    (domain.state.job(chosen) / "output.log").write_text("precious")
    with pytest.raises(StartFailed, match="was launched before"):
        await domain.jobs.start(ALICE, JobSpec(argv=["true"]), request_id="", job_id=chosen)
    assert output(domain, chosen) == "precious"


async def test_ids_sort_by_time(domain: Domain) -> None:
    ids = [(await domain.start("true")).job_id for _ in range(5)]
    assert ids == sorted(ids)
    assert all(jobids.is_canonical(job_id) and job_id[14] == "7" for job_id in ids)


async def test_the_same_request_is_the_same_job_also_at_once(domain: Domain) -> None:
    starts = [domain.start("sleep", "60", request_id="r") for _ in range(5)]
    ids = {record.job_id for record in await asyncio.gather(*starts)}
    assert len(ids) == 1
    theirs = await domain.start("sleep", "60", caller=BOB, request_id="r")
    assert theirs.job_id not in ids
    await domain.restart()
    assert (await domain.start("true", request_id="r")).job_id in ids
    assert domain.jobs.counts() == (2, 0)


async def test_two_hundred_starts_at_once(domain: Domain) -> None:
    started = await asyncio.gather(*(domain.start("true") for _ in range(200)))
    ended = await asyncio.gather(*(domain.wait(record.job_id) for record in started))
    assert {reason(record) for record in ended} == {EndReason.EXITED}
    assert domain.jobs.counts() == (0, 200)


async def test_a_cancelled_start_goes_on_and_its_record_is_right(domain: Domain) -> None:
    spec = JobSpec(argv=["sleep", "60"])
    task = asyncio.create_task(domain.jobs.start(ALICE, spec, request_id="r", job_id=None))
    await asyncio.sleep(0)
    assert domain.jobs.counts() == (1, 0)  # the launch is on its way
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    record = await domain.start("sleep", "60", request_id="r")
    assert record.state == JobState.RUNNING
    assert domain.jobs.counts() == (1, 0)


@probes.needs_limits
async def test_limits_are_read_back_and_a_time_limit_is_kept(domain: Domain) -> None:
    limits = Limits(cpus=0.5, memory_bytes=64 * 2**20, pids=20)
    record = await domain.start("sleep", "60", limits=limits, timeout=timedelta(milliseconds=200))
    assert record.limits_in_force == limits
    assert reason(await domain.wait(record.job_id)) == EndReason.TIMED_OUT


# stop and signal


async def test_stop_tells_who_and_when_and_is_idempotent(domain: Domain) -> None:
    record = await domain.start(*programs.sleep())
    stopped = await domain.jobs.stop(ROOT, record.job_id, signal=None, grace=None)
    assert stopped.stopped_by == "root"
    at = stopped.stopped_at
    again = await domain.jobs.stop(ALICE, record.job_id, signal=None, grace=None)
    assert (again.stopped_by, again.stopped_at) == ("root", at)
    ended = await domain.wait(record.job_id)
    assert ended.termination is not None
    assert (reason(ended), ended.termination.stopped_by) == (EndReason.STOPPED, "root")
    assert await domain.jobs.stop(ALICE, record.job_id, signal=9, grace=None) == ended


async def test_stop_uses_the_specs_signal_and_grace(domain: Domain) -> None:
    script = "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done"
    record = await domain.start("/bin/sh", "-c", script, stop_signal=10)
    await until_output(domain, record.job_id, "ready")
    await domain.jobs.stop(ALICE, record.job_id, signal=None, grace=None)
    ended = await domain.wait(record.job_id)
    assert ended.termination is not None
    assert (reason(ended), ended.termination.exit_code) == (EndReason.STOPPED, 7)


async def test_a_job_that_ignores_the_signal_is_killed_after_the_grace(domain: Domain) -> None:
    record = await domain.start(*programs.ignore_term(), stop_grace=timedelta(milliseconds=100))
    await until_output(domain, record.job_id, "ready")
    await domain.jobs.stop(ALICE, record.job_id, signal=None, grace=None)
    ended = await domain.wait(record.job_id)
    assert ended.termination is not None
    assert (reason(ended), ended.termination.signal) == (EndReason.STOPPED, 9)


@probes.needs_root
@probes.needs_cgroup2
async def test_stopping_kills_sessions_that_were_forked(domain: Domain) -> None:
    record = await domain.start(*programs.fork_sessions(20))
    await until_output(domain, record.job_id, "ready")
    members = [(leaf / "cgroup.procs").read_text().split() for leaf in leaves_of(domain.path)]
    tree = {int(pid) for pids in members if str(record.pid) in pids for pid in pids}
    assert len(tree) > 20
    await domain.jobs.stop(ALICE, record.job_id, signal=None, grace=timedelta(0))
    await domain.wait(record.job_id)
    assert [pid for pid in tree if alive(pid)] == []


async def test_a_job_that_is_starting_is_stopped_once_it_runs(domain: Domain) -> None:
    spec = JobSpec(argv=programs.sleep())
    task = asyncio.create_task(domain.jobs.start(ALICE, spec, request_id="", job_id=None))
    await asyncio.sleep(0)
    (page, _) = domain.jobs.list(ALICE, None, page_size=0, page_token="")
    job_id = decode(JobRecord, page[0]).job_id
    await domain.jobs.stop(ALICE, job_id, signal=None, grace=None)
    assert (await task).job_id == job_id
    assert reason(await domain.wait(job_id)) == EndReason.STOPPED


async def test_signals_to_the_main_process_and_to_the_tree(domain: Domain) -> None:
    script = "trap 'echo main' USR1; (trap 'echo child' USR1; echo ready; while :; do sleep 0.05; done) & while :; do wait; done"
    record = await domain.start("/bin/sh", "-c", script)
    await until_output(domain, record.job_id, "ready")
    await domain.jobs.signal(ALICE, record.job_id, signal=10, tree=False)
    await until_output(domain, record.job_id, "main")
    assert "child" not in output(domain, record.job_id)
    await domain.jobs.signal(ALICE, record.job_id, signal=10, tree=True)
    await until_output(domain, record.job_id, "child")
    await domain.jobs.signal(ALICE, record.job_id, signal=9, tree=False)
    ended = await domain.wait(record.job_id)
    assert ended.termination is not None
    assert (reason(ended), ended.termination.signal) == (EndReason.SIGNALED, 9)
    with pytest.raises(FailedPrecondition, match="has ended"):
        await domain.jobs.signal(ALICE, record.job_id, signal=9, tree=False)


# get, list, wait, output


async def test_a_running_job_shows_what_it_uses_now(domain: Domain) -> None:
    record = await domain.start(*programs.ready_then_sleep())
    await until_output(domain, record.job_id, "ready")
    now = await domain.jobs.get(ALICE, record.job_id)
    assert now.usage is not None
    assert now.output is not None
    assert now.output.size == len("ready\n")
    assert now.pid is not None
    assert alive(now.pid)


async def test_others_jobs_do_not_exist(domain: Domain) -> None:
    mine = (await domain.start(*programs.sleep())).job_id
    calls: list[Callable[[Caller, str], Awaitable[object]]] = [
        domain.jobs.get,
        domain.jobs.wait,
        lambda caller, job: domain.jobs.stop(caller, job, signal=None, grace=None),
        lambda caller, job: domain.jobs.signal(caller, job, signal=9, tree=False),
        domain.jobs.delete,
        as_coroutine(domain.jobs.output),
    ]
    for call in calls:
        with pytest.raises(NotFound) as others:
            await call(BOB, mine)
        with pytest.raises(NotFound) as nobodys:
            await call(ALICE, NO_SUCH_JOB)
        assert str(others.value).replace(mine, NO_SUCH_JOB) == str(nobodys.value) == f"no job '{NO_SUCH_JOB}'"
    for call in calls[2:5]:
        with pytest.raises(PermissionDenied):
            await call(CAROL, mine)
    assert (await domain.jobs.get(CAROL, mine)).job_id == (await domain.jobs.get(ROOT, mine)).job_id == mine
    assert domain.jobs.counts() == (1, 0)


def as_coroutine(call: Callable[[Caller, str], object]) -> Callable[[Caller, str], Awaitable[object]]:
    async def called(caller: Caller, job_id: str) -> object:
        return call(caller, job_id)

    return called


async def test_lists_hold_what_the_caller_may_see_and_asked_for(domain: Domain) -> None:
    first = (await domain.start("true", name="build", labels={"ci": "1"})).job_id
    second = (await domain.start(*programs.sleep(), name="build")).job_id
    theirs = (await domain.start("true", caller=BOB)).job_id
    await asyncio.gather(domain.wait(first), domain.wait(theirs, caller=BOB))

    def ids(caller: Caller, **selection: object) -> list[str]:
        chosen = JobFilter(**selection) if selection else None  # type: ignore[arg-type]
        page, token = domain.jobs.list(caller, chosen, page_size=0, page_token="")
        assert token == ""
        return [decode(JobRecord, record).job_id for record in page]

    assert ids(ALICE) == [second, first]
    assert ids(BOB) == [theirs]
    assert ids(CAROL) == ids(ROOT) == [theirs, second, first]
    assert ids(ALICE, owner="bob") == []
    assert ids(ROOT, owner="bob") == [theirs]
    assert ids(ALICE, name="build", states=[JobState(JobState.ENDED)]) == [first]
    assert ids(ALICE, states=[JobState(JobState.RUNNING)]) == [second]
    assert ids(ALICE, labels={"ci": "1"}) == [first]
    assert ids(ALICE, id_prefix=first) == [first]


async def test_pages_follow_each_other_and_tokens_are_checked(domain: Domain) -> None:
    ids = [(await domain.start("true")).job_id for _ in range(5)]
    found, token = [], ""
    while True:
        page, token = domain.jobs.list(ALICE, None, page_size=2, page_token=token)
        found += [decode(JobRecord, record).job_id for record in page]
        if not token:
            break
    assert found == ids[::-1]
    for wrong in (
        "x",
        "1",
        "1.x",
        "-1." + ids[0],
        f"{2**70}.{ids[0]}",
        "1." + ids[0].upper(),
        "\N{DIGIT ONE}\N{SUPERSCRIPT TWO}." + ids[0],
    ):
        with pytest.raises(InvalidArgument) as raised:
            domain.jobs.list(ALICE, None, page_size=0, page_token=wrong)
        assert raised.value.field == "page_token"


async def test_the_end_comes_after_the_last_byte(domain: Domain) -> None:
    record = await domain.start("/bin/sh", "-c", "head -c 3000000 /dev/zero")
    source = domain.jobs.output(ALICE, record.job_id)
    assert source.directory == domain.state.job(record.job_id)
    ended = await asyncio.wait_for(asyncio.shield(source.ended), PATIENCE)
    assert (source.directory / "output.log").stat().st_size == 3000000
    assert ended.output is not None
    assert ended.output.size == 3000000
    assert domain.jobs.output(ALICE, record.job_id).ended.result() == ended


async def test_waiters_that_leave_disturb_nobody(domain: Domain) -> None:
    record = await domain.start(*programs.sleep())
    waiters = [asyncio.create_task(domain.jobs.wait(ALICE, record.job_id)) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    await domain.jobs.stop(ALICE, record.job_id, signal=9, grace=None)
    ended = await asyncio.wait_for(asyncio.gather(*waiters[1:]), PATIENCE)
    assert [reason(record) for record in ended] == [EndReason.STOPPED] * 2


# delete


async def test_delete_takes_everything(domain: Domain) -> None:
    script = "mkdir -p a/b/c; ln -s / a/root; ln -s /etc/passwd link; mkfifo fifo; chmod 0 a/b; echo x"
    record = await domain.start("/bin/sh", "-c", script, request_id="r")
    await domain.wait(record.job_id)
    await domain.jobs.delete(ALICE, record.job_id)
    assert domain.directories() == os.listdir(domain.state.scratch) == []
    assert os.stat("/etc/passwd").st_size
    for call in (domain.jobs.get, domain.jobs.delete, domain.jobs.wait):
        with pytest.raises(NotFound):
            await call(ALICE, record.job_id)
    assert domain.jobs.counts() == (0, 0)
    assert (await domain.start("true", request_id="r")).job_id != record.job_id


async def test_a_running_job_is_not_deleted(domain: Domain) -> None:
    record = await domain.start(*programs.sleep())
    with pytest.raises(FailedPrecondition, match="has not ended") as raised:
        await domain.jobs.delete(ALICE, record.job_id)
    assert raised.value.hint == "stop it first"
    assert domain.jobs.counts() == (1, 0)


async def test_deleting_twice_at_once_is_once(domain: Domain) -> None:
    record = await domain.start("true")
    await domain.wait(record.job_id)
    results = await asyncio.gather(
        *(domain.jobs.delete(ALICE, record.job_id) for _ in range(2)), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), NotFound]


def test_every_error_is_one_clause() -> None:
    """Messages begin in lower case and end without a full stop."""
    folder = Path(__file__).parents[2] / "jobworker"
    raised = re.compile(
        rf"raise ({'|'.join(cls.__name__ for cls in JobworkerError.__subclasses__())})\(\s*f?\"([^\"]+)\""
    )
    for file in folder.glob("*.py"):
        for _, text in raised.findall(file.read_text()):
            assert not text[0].isupper(), text
            assert not text.endswith("."), text


async def until_output(domain: Domain, job_id: str, text: str) -> None:
    """Returns once the job has written the text; each look follows a change of its log."""
    path = domain.state.job(job_id) / "output.log"
    process = await asyncio.create_subprocess_exec(
        "tail", "-c", "+1", "-f", str(path), stdout=asyncio.subprocess.PIPE
    )
    seen = b""
    try:
        async with asyncio.timeout(PATIENCE):
            assert process.stdout is not None
            while text.encode() not in seen:
                seen += await process.stdout.read(4096)
    finally:
        process.terminate()
        await process.wait()
