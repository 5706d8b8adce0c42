"""Starting a job: what its program finds, what fails and how, ids and requests that are given twice."""

import asyncio
import errno
import os
import uuid
from dataclasses import dataclass
from datetime import timedelta

import pytest

from generated.jobworker.v1 import EndReason, JobSpec, JobState, Limits, StartStage
from jobworker import jobids
from jobworker.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    StartFailed,
)
from jobworker.policy import OPERATOR, Caller
from tests.harness import probes, programs
from tests.harness.domain import ALICE, BOB, ROOT, Domain, reason
from tests.harness.processes import leaves_of


def output(domain: Domain, job_id: str) -> str:
    return (domain.state.job(job_id) / "output.log").read_text()


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


@probes.needs_limits
async def test_the_shortest_jobs_have_their_limits_in_the_record_too(domain: Domain) -> None:
    """Their end may be told in the same breath as their start."""
    limits = Limits(pids=20, nice=1)
    started = await asyncio.gather(*(domain.start("true", limits=limits) for _ in range(40)))
    ended = [await domain.wait(record.job_id) for record in started]
    assert [record.limits_in_force for record in ended] == [limits] * 40
