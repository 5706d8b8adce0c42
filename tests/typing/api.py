"""The public API as `mypy --strict` sees it from outside: checked, never run.

Imports nothing but jobctl. What users may write is here once; a change that breaks their types breaks this file.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_type

import jobctl
from jobctl import (
    Chunk,
    Client,
    EndReason,
    Gap,
    IoLimit,
    Job,
    JobState,
    Keep,
    Limits,
    OutputBlock,
    OutputCap,
    RLimit,
    Stream,
)


async def how_to_connect() -> None:
    async with jobctl.Client.from_context() as client:
        assert_type(client, Client)
    async with Client.from_context("lab", patience=60):
        pass
    explicit = Client("host:9090", ca="ca.pem", cert=Path("alice.pem"), key=None)
    await explicit.close()


async def how_to_start(client: Client) -> Job:
    await client.start(["make", "-j4"])
    await client.start(("make", Path("x")), name="build", timeout=600, stop_grace=timedelta(seconds=3))
    options: jobctl.JobOptions = {"labels": {"ci": "42"}, "env": {"A": "1"}, "wait_for_tree": True}
    await client.start(["make"], deadline=5, request_id="key", job_id=None, **options)
    await client.start(["make"], tiemout=600)  # type: ignore[call-arg]
    await client.start(["make"], timeout="10m")  # type: ignore[arg-type]
    await client.start(["make"], output_cap=2**20)  # type: ignore[arg-type]
    await client.start([1])  # type: ignore[list-item]
    return await client.start(
        ["make"],
        limits=Limits(cpus=1.5, memory_bytes=512 * 2**20, pids=100),
        workdir="/srv",
        user="ci",
        stop_signal=2,
        output_cap=OutputCap(max_bytes=512 * 2**20, keep=Keep.OLDEST),
    )


async def how_to_follow(job: Job, sink: list[bytes]) -> None:
    async for chunk in job.output():
        assert_type(chunk, Chunk)
        assert_type(chunk.data, bytes)
        assert_type(chunk.stream, Stream)
        assert_type(chunk.offset, int)
        assert_type(chunk.time, datetime)
        if chunk.stream is Stream.STDERR:
            sink.append(chunk.data)
    async with job.output(offset=10, follow=False, streams=[Stream.STDOUT], timeout=3.5) as output:
        assert_type(output, jobctl.Output)
        assert_type([c async for c in output], list[Chunk])
        assert_type(output.offset, int)
    job.output(tail_lines=20, since=timedelta(minutes=10), until=datetime.now(UTC), until_offset=1 << 40)
    job.output(tail_bytes=4096, since=60)  # type: ignore[arg-type]
    job.output(on_gap=told)
    job.output(streams="stdout")  # type: ignore[arg-type]


def told(gap: Gap) -> None:
    assert_type((gap.start, gap.end), tuple[int, int])
    assert_type(gap.reason, jobctl.GapReason)


async def how_it_ended(client: Client, job: Job) -> None:
    result = await job.wait(timeout=10)
    assert_type(result, jobctl.Result)
    assert_type(result.reason, EndReason)
    assert_type(result.exit_code, int | None)
    assert_type(result.signal, int | None)
    assert_type(result.usage, jobctl.Usage)
    assert_type(result.termination, jobctl.Termination)
    assert_type(result.check(), jobctl.Result)
    async with client.stream(["git", "--version"], timeout=5) as output:
        assert_type([chunk async for chunk in output], list[jobctl.Chunk])
    assert_type(output.job_id, str)
    assert_type(output.result, jobctl.Result | None)
    done = await client.run(["git", "--version"])
    assert_type(done.check(), jobctl.Completed)
    assert_type((done.stdout, done.stderr, done.exit_status), tuple[bytes, bytes, int])
    if result.reason == EndReason.TIMED_OUT:
        raise SystemExit(result.exit_status)


async def how_to_act(job: Job) -> None:
    await job.stop(signal=2, grace=timedelta(minutes=1), timeout=5)
    await job.signal(10, tree=True)
    await job.pause(timeout=5)
    await job.resume()
    disk = IoLimit(path="/data", read_bytes_per_second=10**7)
    wanted = Limits(nice=5, io=[disk], rlimits={"nofile": RLimit(soft=1, hard=2)})
    changed = await job.update(wanted, lift=["memory_bytes"], best_effort=True)
    assert_type(changed.limits_not_in_force[0].reason, str)
    assert_type(changed.paused, bool)
    await job.delete()
    record = await job.refresh()
    assert_type(record, jobctl.JobRecord)
    assert_type(record.spec, jobctl.JobSpec)
    assert_type(record.started_at, datetime | None)
    assert_type(record.termination, jobctl.Termination | None)
    assert_type(record.output, jobctl.OutputInfo | None)
    if record.output and record.output.blocked == OutputBlock.DISK:
        assert_type((record.output.size, record.output.head, record.output.dropped), tuple[int, int, int])
        await job.output(offset=record.output.head).aclose()
    assert_type(job.id, str)


async def how_to_find(client: Client) -> None:
    assert_type(await client.find("build"), Job)
    assert_type(await client.get("0199f0c2-0000-7000-8000-000000000000", timeout=1), Job)
    assert_type(client.job("0199f0c2-0000-7000-8000-000000000000"), Job)
    jobs = client.list(states=[JobState.RUNNING], labels={"ci": "42"}, owner="alice", limit=10)
    assert_type(jobs, AsyncIterator[Job])
    async for job in jobs:
        assert_type(job.record.job_id, str)


async def how_to_administer(client: Client) -> None:
    worker = await client.worker()
    assert_type(worker, jobctl.Worker)
    assert_type(worker.storage, jobctl.Storage | None)
    if worker.storage:
        assert_type(worker.storage.retention, jobctl.Retention)
        assert_type(worker.storage.blocked_jobs, int)
    assert_type(await client.list_clients(), Sequence[jobctl.ClientRecord])
    record = await client.register_client("bob", certificate=b"", role=jobctl.Role.OPERATOR, unix_user="bob")
    assert_type(record, jobctl.ClientRecord)
    assert_type(await client.revoke_client("bob"), jobctl.ClientRecord)


async def what_can_go_wrong(client: Client) -> None:
    try:
        (await client.run(["make"])).check()
    except jobctl.StartFailed as error:
        assert_type(error.stage, jobctl.StartStage)
        assert_type((error.errno, error.detail, error.exit_status), tuple[int, str, int])
    except jobctl.JobFailed as error:
        assert_type(error.result, jobctl.Result)
        assert_type(error.stderr_tail, bytes)
    except jobctl.InvalidArgument as error:
        assert_type(error.field, str)
    except jobctl.OutputGap as error:
        assert_type(error.gap, Gap)
    except jobctl.AmbiguousJob as error:
        assert_type(error.candidates, tuple[str, ...])
    except jobctl.Timeout as error:
        plain: TimeoutError = error
        raise plain from None
    except jobctl.JobctlError as error:
        assert_type((error.message, error.hint, error.job_id), tuple[str, str, str])
