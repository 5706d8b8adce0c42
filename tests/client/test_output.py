"""Output as an iterator: from any byte, live, over connections that break; never a byte twice or none."""

import asyncio
import os
from datetime import UTC, datetime, timedelta

import pytest

import jobctl
from jobctl import Chunk, Client, Stream
from tests.client.conftest import PATIENCE, client_of
from tests.client.proxy import Proxy, proxy_to
from tests.conftest import MakeWorker
from tests.harness import Worker, programs


def numbers(count: int) -> bytes:
    return b"".join(b"line %d\n" % n for n in range(1, count + 1))


async def everything(job: jobctl.Job, *, offset: int = 0) -> bytes:
    """The output, having checked that every chunk begins where the one before ended."""
    data = b""
    async for chunk in job.output(offset=offset, timeout=PATIENCE):
        assert chunk.offset == offset + len(data)
        data += chunk.data
    return data


async def test_chunks_have_stream_offset_and_time(alice: Client) -> None:
    job = await alice.start(programs.sh("echo out; sleep 0.05; echo err >&2"))
    chunks = [chunk async for chunk in job.output(timeout=PATIENCE)]
    assert [(c.stream, c.offset, c.data) for c in chunks] == [
        (Stream.STDOUT, 0, b"out\n"),
        (Stream.STDERR, 4, b"err\n"),
    ]
    for chunk in chunks:
        assert abs(chunk.time - datetime.now(UTC)) < timedelta(minutes=1)


async def test_it_is_live_and_replayable(alice: Client) -> None:
    job = await alice.start(programs.lines(20, pause=0.02))
    live = asyncio.create_task(everything(job))
    assert await live == numbers(20)
    assert await everything(job) == numbers(20)
    assert await everything(job, offset=15) == numbers(20)[15:]
    assert await everything(job, offset=len(numbers(20))) == b""


async def test_without_following_it_ends_with_the_present(alice: Client) -> None:
    job = await alice.start(programs.ready_then_sleep())
    assert (await anext(job.output(timeout=PATIENCE))).data == b"ready\n"
    output = job.output(follow=False, timeout=PATIENCE)
    assert [chunk.data async for chunk in output] == [b"ready\n"]
    assert output.offset == len(b"ready\n")
    assert output.result is None
    await job.stop(grace=0)


async def test_one_stream_alone(alice: Client) -> None:
    job = await alice.start(programs.say(out="out", err="err"))
    for stream, said in ((Stream.STDOUT, b"out"), (Stream.STDERR, b"err")):
        assert [chunk.data async for chunk in job.output(streams=[stream], timeout=PATIENCE)] == [said]


async def test_an_offset_beyond_the_output_is_refused(alice: Client) -> None:
    job = await alice.start(programs.say(out="out"))
    await job.wait(timeout=PATIENCE)
    with pytest.raises(jobctl.InvalidArgument):
        await everything(job, offset=1000)


async def test_following_gives_up_in_time_and_can_go_on(alice: Client) -> None:
    job = await alice.start(programs.ready_then_sleep())
    await anext(job.output(timeout=PATIENCE))  # it is there to be read
    output = job.output(timeout=0.5)
    assert (await anext(output)).data == b"ready\n"
    with pytest.raises(jobctl.Timeout):
        await anext(output)
    assert output.offset == 6
    await job.stop(grace=0)
    assert await everything(job, offset=output.offset) == b""


async def test_cancelling_closes_the_stream_and_not_the_job(worker: Worker) -> None:
    """The worker sends nothing more through the connection, though the job goes on writing."""
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        job = await client.start(programs.lines(200, pause=0.01))
        first = asyncio.Event()

        async def follow() -> None:
            async for _ in job.output():
                first.set()

        task = asyncio.create_task(follow())
        await asyncio.wait_for(first.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        before = proxy.received
        async with client_of(worker, "alice") as other:
            assert await everything(other.job(job.id)) == numbers(200)
        assert proxy.received - before < 2000


async def test_leaving_the_loop_closes_the_stream(worker: Worker) -> None:
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        job = await client.start(programs.lines(200, pause=0.01))
        async for _ in job.output():
            break
        before = proxy.received
        async with client_of(worker, "alice") as other:
            assert await everything(other.job(job.id)) == numbers(200)
        assert proxy.received - before < 2000


async def test_a_stream_that_is_not_read_holds_nothing_back(alice: Client) -> None:
    job = await alice.start(programs.write_bytes(20 << 20))
    async with job.output() as unread:
        await anext(unread)
        assert (await alice.run(programs.say(out="quick"))).stdout == b"quick"
        await job.wait(timeout=PATIENCE)
        size = sum([len(chunk.data) async for chunk in unread])
    assert 0 < size < 20 << 20


@pytest.mark.parametrize("cuts", [(4000,), (5000, 6000), (3700, 3800, 4200), (20_000, 100_000, 70_000)])
async def test_a_cut_connection_is_taken_up_at_the_next_byte(worker: Worker, cuts: tuple[int, ...]) -> None:
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        job = await client.start(programs.sh("i=0; while [ $i -lt 300 ]; do i=$((i+1)); seq 1000; done"))
        await job.wait(timeout=PATIENCE)
        proxy.cut_after(*cuts)
        expected = "".join(f"{n}\n" for n in range(1, 1001)).encode() * 300
        assert await everything(job) == expected
        assert proxy.connections >= 2 + len(cuts)


async def test_a_run_is_taken_up_as_well(worker: Worker) -> None:
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        await client.worker()
        proxy.cut_after(3600, 5000)
        done = await client.run(programs.lines(100, pause=0.005))
        assert done.stdout == numbers(100)
        assert proxy.connections >= 3


async def cut_often(proxy: Proxy, *, times: int) -> None:
    for _ in range(times):
        await proxy.passed(200)
        proxy.cut()


async def test_live_output_over_a_connection_that_is_cut_again_and_again(worker: Worker) -> None:
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        job = await client.start(programs.lines(150, pause=0.01))
        cutting = asyncio.create_task(cut_often(proxy, times=5))
        assert await everything(job) == numbers(150)
        cutting.cancel()


async def test_a_worker_that_restarts_is_waited_for(make_worker: MakeWorker) -> None:
    worker = make_worker()
    async with client_of(worker, "alice") as client:
        job = await client.start(programs.lines(150, pause=0.02))
        following = asyncio.create_task(everything(job))
        waiting = asyncio.create_task(job.wait(timeout=PATIENCE))
        run = client.stream(programs.lines(150, pause=0.02), deadline=PATIENCE)
        said = (await anext(run)).data
        await asyncio.to_thread(worker.restart)
        assert await following == numbers(150)
        assert said + b"".join([chunk.data async for chunk in run]) == numbers(150)
        assert (await waiting).exit_code == 0


async def test_a_worker_that_has_told_the_end_is_not_waited_for_without_end(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobctl.job.CALL_PATIENCE", 0.1)
    worker = make_worker()
    async with client_of(worker, "alice") as alice:
        job = await alice.start(programs.say(err="no luck", exit_code=3))
        await job.ended()
        worker.kill9()
        async with asyncio.timeout(PATIENCE):
            result = await job.result()
    assert (result.exit_code, result.stderr_tail) == (3, b"")


async def test_an_orderly_restart_too(make_worker: MakeWorker) -> None:
    worker = make_worker()
    async with client_of(worker, "alice") as client:
        job = await client.start(programs.lines(100, pause=0.02))
        following = asyncio.create_task(everything(job))
        await anext(job.output())
        await asyncio.to_thread(worker.terminate)
        await asyncio.to_thread(worker.start)
        assert await following == numbers(100)


async def test_a_start_whose_answer_is_lost_is_one_job(worker: Worker) -> None:
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        await client.worker()
        proxy.cut()
        proxy.cut_after(3000)  # in or after the handshake, before the answer is whole
        job = await client.start(programs.say(out="once"), name="lost-answer")
        found = [other.id async for other in client.list(name="lost-answer")]
        assert found == [job.id]


async def test_a_job_that_is_gone_meanwhile_is_an_error(worker: Worker) -> None:
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        job = await client.start(programs.ready_then_sleep())
        output = job.output(timeout=PATIENCE)
        await anext(output)
        proxy.refuse = True
        proxy.cut()
        rest = asyncio.ensure_future(anext(output))
        async with client_of(worker, "alice") as other:
            await other.job(job.id).stop(grace=0)
            await other.job(job.id).wait(timeout=PATIENCE)
            await other.job(job.id).delete()
        proxy.refuse = False
        with pytest.raises(jobctl.JobNotFound):
            await rest


async def test_patience_ends(worker: Worker) -> None:
    async with proxy_to(worker.address) as proxy:
        certificates = worker.certificates
        async with Client(
            proxy.address, ca=certificates.authority, cert=certificates.of("alice"), patience=0.3
        ) as client:
            job = await client.start(programs.ready_then_sleep())
            output = job.output(timeout=PATIENCE)
            await anext(output)
            proxy.refuse = True
            proxy.cut()
            with pytest.raises(jobctl.ConnectionLost):
                await anext(output)
        async with client_of(worker, "alice") as other:
            await other.job(job.id).stop(grace=0)


async def test_a_run_that_cannot_begin_is_not_waited_for_as_long(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though whoever follows would wait for ever: nobody knows yet whether there is anything to follow."""
    monkeypatch.setattr("jobctl.output.CALL_PATIENCE", 0.3)
    async with proxy_to(worker.address) as proxy, client_of(worker, "alice", address=proxy.address) as client:
        await client.worker()
        proxy.refuse = True
        proxy.cut()
        with pytest.raises(jobctl.ConnectionLost):
            await client.run(["true"], deadline=PATIENCE)


async def test_output_that_is_gone_is_a_gap(worker: Worker, alice: Client) -> None:
    """The stored bytes of a job that has ended are cut short on disk."""
    job = await alice.start(programs.lines(100))
    await job.wait(timeout=PATIENCE)
    os.truncate(worker.job_directory(job.id) / "output.log", 100)
    gaps: list[jobctl.Gap] = []
    said = b"".join([chunk.data async for chunk in job.output(on_gap=gaps.append, timeout=PATIENCE)])
    assert numbers(100).startswith(said)
    assert [(gap.start, gap.end) for gap in gaps] == [(len(said), len(numbers(100)))]
    assert gaps[0].reason == jobctl.GapReason.DAMAGED
    with pytest.raises(jobctl.OutputGap) as raised:
        async for _ in job.output(timeout=PATIENCE):
            pass
    assert raised.value.gap == gaps[0]
    assert isinstance(raised.value, jobctl.JobctlError)


def test_a_chunk_cannot_be_changed() -> None:
    chunk = Chunk(Stream.STDOUT, 0, b"x", 0)
    with pytest.raises(AttributeError):
        chunk.data = b"y"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        chunk.note = "y"  # type: ignore[attr-defined]
