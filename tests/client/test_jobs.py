"""Start, run, wait, stop, signal, delete: the library against a real worker."""

import asyncio
import uuid
from datetime import timedelta

import pytest

import jobctl
from jobctl import Client, EndReason, JobOptions, JobState, Limits, StartStage
from tests.client.conftest import PATIENCE
from tests.harness import probes, programs


async def test_start_and_wait(alice: Client) -> None:
    job = await alice.start(programs.say(out="hello", exit_code=3), name="greet", labels={"ci": "42"})
    assert job.record.spec.name == "greet"
    assert job.record.owner == "alice"
    result = await job.wait(timeout=PATIENCE)
    assert (result.reason, result.exit_code, result.signal) == (EndReason.EXITED, 3, None)
    assert (result.ok, result.exit_status, result.job_id) == (False, 3, job.id)
    assert job.record.state == JobState.ENDED
    assert job.record.spec.labels == {"ci": "42"}


async def test_run_collects_what_it_said(alice: Client) -> None:
    done = await alice.run(programs.say(out="out\n", err="err\n"))
    assert (done.stdout, done.stderr, done.exit_code) == (b"out\n", b"err\n", 0)
    assert done.check() is done
    assert done.usage.cpu_user_usec is not None
    assert done.stderr_tail == b""


async def test_stream_starts_and_follows_in_one_call(alice: Client) -> None:
    async with alice.stream(programs.say(out="out\n", err="err\n"), name="streamed") as output:
        chunks = [chunk async for chunk in output]
    assert {(chunk.stream, chunk.data) for chunk in chunks} == {
        (jobctl.Stream.STDOUT, b"out\n"),
        (jobctl.Stream.STDERR, b"err\n"),
    }
    assert output.offset == 8
    assert output.result is not None
    assert output.result.check().exit_code == 0
    assert (await alice.get(output.job_id)).record.spec.name == "streamed"


async def test_stream_of_what_cannot_be_started(alice: Client) -> None:
    with pytest.raises(jobctl.StartFailed):
        async with alice.stream(["no-such-program"]) as output:
            await anext(output)


async def test_leaving_a_stream_leaves_the_job(alice: Client) -> None:
    async with alice.stream(["sh", "-c", "echo begun; exec sleep 600"]) as output:
        assert (await anext(output)).data == b"begun\n"
    job = await alice.get(output.job_id)
    assert job.record.state == JobState.RUNNING
    await job.stop(grace=0)
    await job.wait(timeout=PATIENCE)


async def test_run_of_binary_output_without_a_newline(alice: Client) -> None:
    done = await alice.run(programs.write_bytes(300_000))
    assert len(done.stdout) == 300_000
    assert done.stdout == (b"\x01\xffbinary\n" * 40_000)[:300_000]


async def test_check_raises_with_the_tail_of_stderr(alice: Client) -> None:
    done = await alice.run(programs.say(err="went wrong\n", exit_code=4))
    with pytest.raises(jobctl.JobFailed, match="exited with code 4") as raised:
        done.check()
    assert raised.value.stderr_tail == b"went wrong\n"
    assert raised.value.job_id == done.job_id


async def test_wait_fetches_the_tail_of_stderr_of_a_failed_job(alice: Client) -> None:
    job = await alice.start(programs.sh("seq 20000; seq 3000 >&2; exit 1"))
    result = await job.wait(timeout=PATIENCE)
    everything = "".join(f"{n}\n" for n in range(1, 3001)).encode()
    assert len(result.stderr_tail) == 4096
    assert everything.endswith(result.stderr_tail)
    with pytest.raises(jobctl.JobFailed, match="3000"):
        result.check()


async def test_a_signal_that_ended_it(alice: Client) -> None:
    result = await alice.run(programs.die("SEGV"))
    assert (result.reason, result.signal, result.exit_status) == (EndReason.SIGNALED, 11, 139)


async def test_its_own_timeout(alice: Client) -> None:
    result = await alice.run(programs.sleep(), timeout=0.3)
    assert (result.reason, result.exit_status) == (EndReason.TIMED_OUT, 124)
    with pytest.raises(jobctl.JobFailed, match="timed out"):
        result.check()


async def test_no_such_program(alice: Client) -> None:
    with pytest.raises(jobctl.StartFailed, match="cannot start 'no-such-program'") as raised:
        await alice.start(["no-such-program"])
    error = raised.value
    assert (error.stage, error.errno, error.exit_status) == (StartStage.EXEC, 2, 127)
    assert "PATH" in error.detail
    assert error.hint
    assert error.__cause__ is not None
    with pytest.raises(jobctl.StartFailed):
        await alice.run(["no-such-program"])


async def test_not_executable_and_no_such_folder(alice: Client) -> None:
    with pytest.raises(jobctl.StartFailed) as raised:
        await alice.start(["/etc/passwd"])
    assert (raised.value.errno, raised.value.exit_status) == (13, 126)
    with pytest.raises(jobctl.StartFailed) as raised:
        await alice.start(["true"], workdir="/no/such/folder")
    assert (raised.value.stage, raised.value.exit_status) == (StartStage.WORKDIR, 125)


@pytest.mark.parametrize(
    ("argv", "options", "field"),
    [
        ([], {}, "spec.argv"),
        (["x\0y"], {}, "spec.argv[0]"),
        (["true"], {"name": "not a name"}, "spec.name"),
        (["true"], {"workdir": "relative"}, "spec.workdir"),
        (["true"], {"limits": Limits(cpus=-1)}, "spec.limits.cpus"),
    ],
)
async def test_what_the_worker_refuses(
    alice: Client, argv: list[str], options: JobOptions, field: str
) -> None:
    with pytest.raises(jobctl.InvalidArgument) as raised:
        await alice.start(argv, **options)
    assert raised.value.field == field
    assert raised.value.hint


async def test_the_same_request_is_the_same_job(alice: Client) -> None:
    key = uuid.uuid4().hex
    first = await alice.start(programs.say(out="once"), request_id=key)
    again = await alice.start(programs.say(out="once"), request_id=key)
    assert first.id == again.id
    assert (await alice.run(programs.say(out="once"), request_id=key)).stdout == b"once"


async def test_an_id_of_ones_own(alice: Client) -> None:
    mine = str(uuid.uuid4())
    job = await alice.start(["true"], job_id=mine)
    assert job.id == mine
    with pytest.raises(jobctl.AlreadyExists):
        await alice.start(["true"], job_id=mine)


@probes.needs_limits
async def test_limits_are_read_back(alice: Client) -> None:
    limits = Limits(cpus=1.5, memory_bytes=256 << 20, pids=20)
    job = await alice.start(["true"], limits=limits)
    assert job.record.limits_in_force == limits
    await job.wait(timeout=PATIENCE)


async def test_environment_and_working_directory(alice: Client) -> None:
    done = await alice.run(
        programs.sh('echo "$GREETING"; pwd'), env={"GREETING": "grüß dich"}, workdir="/usr"
    )
    assert done.stdout.decode() == "grüß dich\n/usr\n"


async def test_stop_is_term_then_wait(alice: Client) -> None:
    job = await alice.start(programs.ready_then_sleep())
    await job.stop()
    result = await job.wait(timeout=PATIENCE)
    assert (result.reason, result.signal, result.exit_status) == (EndReason.STOPPED, 15, 143)
    assert result.termination.stopped_by == "alice"
    await job.stop()
    assert job.record.state == JobState.ENDED


async def test_stop_kills_after_the_grace(alice: Client) -> None:
    job = await alice.start(programs.ignore_term())
    async with job.output() as output:
        async for chunk in output:
            assert chunk.data == b"ready\n"
            break
    await job.stop(grace=0.2)
    assert (await job.wait(timeout=PATIENCE)).signal == 9


async def test_stop_at_once(alice: Client) -> None:
    job = await alice.start(programs.ignore_term())
    await job.stop(grace=timedelta(0))
    assert (await job.wait(timeout=PATIENCE)).signal == 9


async def test_signals(alice: Client) -> None:
    job = await alice.start(
        programs.sh("trap 'echo got it; exit 7' USR1; echo ready; while :; do sleep 0.05; done")
    )
    said = b""
    async for chunk in job.output(timeout=PATIENCE):
        said += chunk.data
        if chunk.data == b"ready\n":
            await job.signal(10)
    assert said == b"ready\ngot it\n"
    assert (await job.wait(timeout=PATIENCE)).exit_code == 7
    with pytest.raises(jobctl.FailedPrecondition):
        await job.signal(10)


async def test_delete(alice: Client) -> None:
    job = await alice.start(programs.sleep())
    with pytest.raises(jobctl.FailedPrecondition):
        await job.delete()
    await job.stop(grace=0)
    await job.wait(timeout=PATIENCE)
    await job.delete()
    with pytest.raises(jobctl.JobNotFound) as raised:
        await job.refresh()
    assert raised.value.hint


async def test_wait_gives_up_and_the_job_goes_on(alice: Client) -> None:
    job = await alice.start(programs.sleep())
    with pytest.raises(jobctl.Timeout):
        await job.wait(timeout=0.2)
    with pytest.raises(TimeoutError):
        await job.wait(timeout=0)
    assert (await job.refresh()).state == JobState.RUNNING
    with pytest.raises(jobctl.JobctlError, match="has not ended"):
        await job.result()
    await job.stop(grace=0)


async def test_many_starts_at_once_over_one_client(alice: Client) -> None:
    results = await asyncio.gather(*(alice.run(programs.say(out=str(n))) for n in range(60)))
    assert [int(done.stdout) for done in results] == list(range(60))


async def test_a_handle_that_was_never_asked_for(alice: Client) -> None:
    with pytest.raises(jobctl.JobctlError, match="has not been asked for"):
        _ = alice.job(str(uuid.uuid4())).record


async def test_the_worker(alice: Client) -> None:
    worker = await alice.worker()
    assert (worker.client_id, worker.role) == ("alice", jobctl.Role.OPERATOR)
    assert worker.version == jobctl.__version__


async def test_clients_are_for_admins(alice: Client) -> None:
    with pytest.raises(jobctl.PermissionDenied):
        await alice.list_clients()
