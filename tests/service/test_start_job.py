"""StartJob: the record once the program runs, or the typed reason why it does not."""

import asyncio
import errno
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status

from generated.jobworker.v1 import JobSpec, JobState, Limits, StartJobRequest, StartStage
from tests.harness import Worker, probes, programs
from tests.service.client import Client, refusal


async def test_the_answer_is_the_record_of_a_running_job(alice: Client) -> None:
    job = await alice.start(*programs.sleep(0.2), name="nap", labels={"ci": "42"})
    assert job.state in (JobState.RUNNING, JobState.ENDED)
    assert (job.owner, job.spec.name, job.spec.labels) == ("alice", "nap", {"ci": "42"})
    assert uuid.UUID(job.job_id)
    assert job.started_at is not None
    assert job.created_at <= job.started_at
    assert job.pid
    assert (await alice.wait(job.job_id)).state == JobState.ENDED


async def test_the_caller_may_choose_the_id(alice: Client) -> None:
    job_id = str(uuid.uuid4())
    request = StartJobRequest(spec=JobSpec(argv=["/bin/true"]), job_id=job_id)
    assert (await alice.jobs.start_job(request)).job.job_id == job_id
    again = await refusal(alice.jobs.start_job(request))
    assert again.status is Status.ALREADY_EXISTS


async def test_a_request_id_starts_once(alice: Client) -> None:
    request_id = str(uuid.uuid4())
    records = await asyncio.gather(
        *(alice.start(*programs.say(out="once"), request_id=request_id) for _ in range(5))
    )
    assert len({record.job_id for record in records}) == 1


async def test_a_request_id_is_the_clients_own(alice: Client, bob: Client) -> None:
    request_id = str(uuid.uuid4())
    hers = await alice.start("/bin/true", request_id=request_id)
    his = await bob.start("/bin/true", request_id=request_id)
    assert hers.job_id != his.job_id


@pytest.fixture
def files(worker: Worker) -> Path:
    """A directory that every user can look into, with files that cannot be executed for one reason each."""
    place = worker.directory / "files"
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    (place / "plain").write_text("no program")
    (place / "plain").chmod(0o644)
    (place / "shebang").write_text("#!/no/such/interpreter\n")
    (place / "garbage").write_bytes(b"\x7fELF nothing of the kind")
    for name in ("shebang", "garbage"):
        (place / name).chmod(0o755)
    return place


FAILURES = [
    ("no-such-program", StartStage.EXEC, errno.ENOENT),
    ("/no/such/program", StartStage.EXEC, errno.ENOENT),
    ("FILES/plain", StartStage.EXEC, errno.EACCES),
    ("FILES", StartStage.EXEC, errno.EACCES),
    ("FILES/shebang", StartStage.EXEC, errno.ENOENT),
    ("FILES/garbage", StartStage.EXEC, errno.ENOEXEC),
]


@pytest.mark.parametrize(("program", "stage", "number"), FAILURES, ids=[failure[0] for failure in FAILURES])
async def test_a_program_that_cannot_be_executed(
    alice: Client, files: Path, program: str, stage: int, number: int
) -> None:
    refused = await refusal(alice.start(program.replace("FILES", str(files))))
    assert refused.status is Status.FAILED_PRECONDITION
    failure = refused.detail.start_failure
    assert failure is not None
    assert (failure.stage, failure.errno) == (stage, number)
    assert failure.detail
    assert refused.message.startswith("cannot start")


async def test_a_missing_working_directory(alice: Client) -> None:
    refused = await refusal(alice.start("/bin/true", workdir="/no/such/directory"))
    assert refused.detail.start_failure is not None
    assert refused.detail.start_failure.stage == StartStage.WORKDIR


async def test_an_argument_too_large_for_the_kernel_is_a_typed_failure(alice: Client) -> None:
    refused = await refusal(alice.start("/bin/echo", "x" * 1_000_000))
    assert refused.status is Status.FAILED_PRECONDITION
    assert refused.detail.start_failure is not None
    assert refused.detail.start_failure.errno == errno.E2BIG


async def test_a_failed_start_is_answered_the_same_again(alice: Client) -> None:
    request_id = str(uuid.uuid4())
    first = await refusal(alice.start("no-such-program", request_id=request_id))
    assert await refusal(alice.start("no-such-program", request_id=request_id)) == first


BAD: list[tuple[str, dict[str, Any]]] = [
    ("spec.argv", {"argv": []}),
    ("spec.argv[0]", {"argv": [""]}),
    ("spec.argv[1]", {"argv": ["echo", "a\0b"]}),
    ("spec.workdir", {"argv": ["true"], "workdir": "relative"}),
    ("spec.timeout", {"argv": ["true"], "timeout": timedelta(0)}),
    ("spec.limits.cpus", {"argv": ["true"], "limits": Limits(cpus=-1.0)}),
]


@pytest.mark.parametrize(("field", "spec"), BAD, ids=[field for field, _ in BAD])
async def test_a_bad_spec_names_its_field(alice: Client, field: str, spec: dict[str, Any]) -> None:
    refused = await refusal(alice.jobs.start_job(StartJobRequest(spec=JobSpec(**spec))))
    assert refused.status is Status.INVALID_ARGUMENT
    assert refused.detail.field == field
    assert refused.detail.hint


async def test_a_user_the_policy_does_not_name(alice: Client) -> None:
    refused = await refusal(alice.start("/bin/true", user="root"))
    assert refused.status is Status.PERMISSION_DENIED


@probes.needs_root
async def test_an_admin_that_names_a_user_nobody_knows(root: Client) -> None:
    refused = await refusal(root.start("/bin/true", user="no_such_user"))
    assert refused.status in (Status.INVALID_ARGUMENT, Status.FAILED_PRECONDITION)


async def test_a_viewer_starts_nothing(carol: Client) -> None:
    refused = await refusal(carol.start("/bin/true"))
    assert refused.status is Status.PERMISSION_DENIED
    assert "viewer" in refused.message


async def test_two_hundred_starts_at_once(alice: Client) -> None:
    jobs = await asyncio.gather(*(alice.start(*programs.say(out=str(n))) for n in range(200)))
    assert len({job.job_id for job in jobs}) == 200
    ended = await asyncio.gather(*(alice.wait(job.job_id) for job in jobs))
    assert {job.termination.exit_code for job in ended if job.termination} == {0}
