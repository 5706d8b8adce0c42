"""Followers that vanish, never read, are many, are revoked, or meet the end of the server."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

import jobctl
from generated.jobworker.v1 import Chunk, GetWorkerRequest, RevokeClientRequest, SignalJobRequest
from tests.harness import Worker, programs
from tests.harness.worker import CHECKOUT, clean_environment, jobworker
from tests.service.client import (
    PATIENCE,
    Client,
    Events,
    Run,
    as_refusal,
    collect,
    connected,
    next_of,
    refusal,
    transport_of,
)

MakeWorker = Callable[..., Worker]
MUCH = 200_000_000  # bytes; far more than windows and buffers hold
GONE = (GRPCError, StreamTerminatedError, OSError)


@asynccontextmanager
async def following(client: Client, job_id: str) -> AsyncIterator["asyncio.Task[Run]"]:
    """A follower that reads to the end; it has received something when the block begins."""
    begun = asyncio.Event()

    async def read() -> Run:
        run = Run()
        async for event in client.follow(job_id):
            run.events.append(event)
            begun.set()
        return run

    task = asyncio.create_task(read())
    await asyncio.wait_for(begun.wait(), PATIENCE)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def job_with_much_output(worker: Worker, client: Client) -> str:
    """One that has ended, and whose output is on the disk: the worker need not have it open for long to sync it."""
    job = await client.start(*programs.write_bytes(MUCH))
    await client.wait(job.job_id)
    with (worker.job_directory(job.job_id) / "output.log").open("rb") as log:
        await asyncio.to_thread(os.fsync, log.fileno())
    return job.job_id


async def read_into(run: Run, events: Events) -> None:
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            run.events.append(event)


async def drained(events: Events) -> None:
    """Reads until there is nothing more, or the connection's end is noticed."""
    async with asyncio.timeout(PATIENCE):
        async for _ in events:
            pass


# -- vanished


async def test_a_cancelled_follower_lets_go_at_once(worker: Worker) -> None:
    async with connected(worker) as alice:
        job = await alice.start(*programs.ready_then_sleep())
        async with following(alice, job.job_id):
            await until_open(worker, 2)
        await until_let_go(worker, seconds=5)
        await alice.stop(job.job_id)


@pytest.mark.parametrize("how", ["cancels", "closes", "aborts"])
async def test_a_follower_vanishes_while_the_server_is_blocked_in_send(worker: Worker, how: str) -> None:
    """It has stopped reading its stream, or its socket, and there is far more than fits."""
    async with connected(worker) as alice, connected(worker) as blocked:
        events = blocked.follow(await job_with_much_output(worker, alice))
        await next_of(events)
        transport = transport_of(blocked.channel)
        if how != "cancels":
            transport.pause_reading()
        await until_idle(worker)
        await until_open(worker, 2)
        if how == "cancels":
            await events.aclose()
        elif how == "closes":
            blocked.channel.close()
        else:
            transport.abort()
        await until_let_go(worker, seconds=5)
        with contextlib.suppress(*GONE):
            await events.aclose()


async def test_a_client_process_is_killed_while_the_server_is_blocked_in_send(worker: Worker) -> None:
    async with connected(worker) as alice:
        job_id = await job_with_much_output(worker, alice)
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "jobctl.cli", "logs", "-f", job_id,
            cwd=CHECKOUT, env=worker.environment("alice"), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert reader.stdout is not None
        await asyncio.wait_for(reader.stdout.read(100), PATIENCE)
        os.kill(reader.pid, signal.SIGSTOP)
        await until_idle(worker)
        await until_open(worker, 2)
        reader.kill()
        await asyncio.wait_for(reader.communicate(), PATIENCE)
        await until_let_go(worker, seconds=5)


# -- never reading


async def test_a_follower_that_never_reads_disturbs_nobody(worker: Worker) -> None:
    async with connected(worker) as alice, connected(worker) as lazy:
        job_id = await job_with_much_output(worker, alice)
        unread = [lazy.follow(job_id) for _ in range(5)]
        for events in unread:
            await next_of(events)
        await until_idle(worker)
        before = rss(worker.pid)
        # on its own connection
        await lazy.worker.get_worker(GetWorkerRequest(), timeout=PATIENCE)
        assert (await lazy.run(*programs.say(out="hi"))).out == b"hi"
        # on another one
        assert (await collect(alice.follow(job_id))).end.final_offset == MUCH
        assert rss(worker.pid) - before < 30 << 20
        for events in unread:
            await events.aclose()
        await until_let_go(worker, seconds=5)


async def test_a_connection_that_is_not_read_holds_little(worker: Worker) -> None:
    async with connected(worker) as alice, connected(worker) as lazy:
        job_id = await job_with_much_output(worker, alice)
        await lazy.worker.get_worker(GetWorkerRequest())
        before = rss(worker.pid)
        unread = [lazy.follow(job_id) for _ in range(20)]
        await asyncio.gather(*(next_of(events) for events in unread))
        transport_of(lazy.channel).pause_reading()
        await until_idle(worker)
        assert rss(worker.pid) - before < 100 << 20
        await alice.worker.get_worker(GetWorkerRequest(), timeout=PATIENCE)
        transport_of(lazy.channel).abort()
        await until_let_go(worker, seconds=5)
        for events in unread:
            with contextlib.suppress(*GONE):
                await events.aclose()


async def test_a_follower_that_takes_nothing_for_long_is_ended_and_can_resume(
    make_worker: MakeWorker,
) -> None:
    """What was sent is read, then the reason, then the rest from another call; the connection goes on all along."""
    worker = make_worker("--reader-patience", "1s")
    async with connected(worker) as alice:
        job_id = await job_with_much_output(worker, alice)
        slow, other = alice.follow(job_id), alice.follow(job_id)
        await next_of(slow)
        await other.aclose()
        assert (await collect(alice.follow(job_id))).end.final_offset == MUCH
        await until_let_go(worker, seconds=15)
        assert (await alice.run(*programs.say(out="hi"))).out == b"hi"
        run = Run()
        with pytest.raises(GRPCError) as told:
            await read_into(run, slow)
        refused = as_refusal(told.value)
        assert refused.status is Status.UNAVAILABLE
        assert "resume" in refused.detail.hint
        assert isinstance(run.events[-1], Chunk)
        reached = run.events[-1].offset + len(run.events[-1].data)
        assert 0 < reached < MUCH
        rest = await collect(alice.follow(job_id, offset=reached))
        assert rest.end.final_offset == MUCH
        assert isinstance(rest.events[0], Chunk)
        assert rest.events[0].offset == reached


async def test_the_library_resumes_by_itself_after_it_took_nothing_for_long(make_worker: MakeWorker) -> None:
    worker = make_worker("--reader-patience", "1s")
    certificates = worker.certificates
    async with jobctl.Client(
        worker.address, ca=certificates.authority, cert=certificates.of("alice")
    ) as client:
        job = await client.start(programs.write_bytes(30_000_000))
        await job.wait()
        received = 0
        async for chunk in job.output():
            assert chunk.offset == received
            received += len(chunk.data)
            if chunk.offset == 0:
                await until_let_go(worker, seconds=15)
        assert received == 30_000_000


async def test_a_follower_that_takes_a_little_again_and_again_stays(make_worker: MakeWorker) -> None:
    worker = make_worker("--reader-patience", "1s")
    async with connected(worker) as alice:
        job = await alice.start(*programs.write_bytes(20_000_000))
        await alice.wait(job.job_id)
        received = 0
        async for event in alice.follow(job.job_id):
            if isinstance(event, Chunk):
                received += len(event.data)
                await asyncio.sleep(0.05)  # a slow reader: four seconds for all
        assert received == 20_000_000


async def test_a_follower_of_a_silent_job_is_not_impatiently_ended(make_worker: MakeWorker) -> None:
    worker = make_worker("--reader-patience", "1s")
    async with connected(worker) as alice:
        job = await alice.start(*programs.ready_then_sleep())
        async with following(alice, job.job_id) as reading:
            await asyncio.wait({reading}, timeout=2)
            assert not reading.done()
            await alice.stop(job.job_id)
            assert (await reading).out == b"ready\n"


# -- many


async def test_150_streams_on_one_connection(worker: Worker) -> None:
    async with connected(worker) as alice, contextlib.AsyncExitStack() as followers:
        job = await alice.start(*programs.ready_then_sleep())
        reading = [await followers.enter_async_context(following(alice, job.job_id)) for _ in range(150)]
        waiting = [asyncio.create_task(alice.wait(job.job_id)) for _ in range(150)]
        await until_open(worker, 2)
        await alice.stop(job.job_id)
        runs = await asyncio.wait_for(asyncio.gather(*reading), PATIENCE)
        assert {run.out for run in runs} == {b"ready\n"}
        await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)


async def test_idle_followers_of_silent_jobs_use_no_cpu(worker: Worker) -> None:
    async with connected(worker) as alice, contextlib.AsyncExitStack() as followers:
        jobs = [await alice.start(*programs.ready_then_sleep()) for _ in range(20)]
        for job in jobs:
            for _ in range(5):
                await followers.enter_async_context(following(alice, job.job_id))
        await until_idle(worker)
        before = ticks(worker.pid)
        await asyncio.sleep(1.5)  # a while in which nothing is to happen
        assert ticks(worker.pid) == before
        for job in jobs:
            await alice.stop(job.job_id)


@pytest.mark.slow
async def test_500_followers_of_one_job(worker: Worker) -> None:
    """One pair of files, one watch; everybody gets everything, and to wait costs nothing."""
    async with contextlib.AsyncExitStack() as resources:
        clients = [await resources.enter_async_context(connected(worker)) for _ in range(5)]
        script = "trap 'seq 2000; exit 3' USR1; echo ready; while :; do sleep 3600 & wait; done"
        job = await clients[0].start(*programs.sh(script))
        reading = [
            await resources.enter_async_context(following(client, job.job_id))
            for client in clients
            for _ in range(100)
        ]
        await until_open(worker, 2)
        assert watches(worker) == 1
        await until_idle(worker)
        before = ticks(worker.pid)
        await asyncio.sleep(1)
        assert ticks(worker.pid) == before
        wanted = b"ready\n" + b"".join(b"%d\n" % n for n in range(1, 2001))
        await clients[0].jobs.signal_job(SignalJobRequest(job_id=job.job_id, signal=signal.SIGUSR1))
        runs = await asyncio.wait_for(asyncio.gather(*reading), 3 * PATIENCE)
        assert {run.out for run in runs} == {wanted}


@pytest.mark.slow
async def test_1000_idle_followers_of_1000_jobs(make_worker: MakeWorker) -> None:
    """One watch each, and no processor time in ten seconds."""
    worker = make_worker()
    async with contextlib.AsyncExitStack() as resources:
        clients = [await resources.enter_async_context(connected(worker)) for _ in range(4)]
        jobs = []
        for _ in range(50):
            jobs += await asyncio.gather(*(clients[0].start(*programs.ready_then_sleep()) for _ in range(20)))
        for number, job in enumerate(jobs):
            await resources.enter_async_context(following(clients[number % 4], job.job_id))
        await until_open(worker, 2000)
        assert watches(worker) == 1000
        await until_idle(worker)
        before = ticks(worker.pid)
        await asyncio.sleep(10)
        assert ticks(worker.pid) == before


async def test_where_descriptors_are_used_up_a_follower_comes_in_later(make_worker: MakeWorker) -> None:
    worker = make_worker()
    async with connected(worker) as alice:
        job = await alice.start(*programs.ready_then_sleep())
        _, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        used = {int(name) for name in os.listdir(f"/proc/{worker.pid}/fd")}
        lowest_free = next(number for number in range(len(used) + 1) if number not in used)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (lowest_free, hard))
        refused = await refusal(next_of(alice.follow(job.job_id)))
        assert refused.status is Status.UNAVAILABLE
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (hard, hard))
        async with following(alice, job.job_id) as stays:
            await alice.stop(job.job_id)
            assert (await asyncio.wait_for(stays, PATIENCE)).out == b"ready\n"
    assert "Traceback" not in "".join(worker.log)


async def test_followers_that_wait_hold_nothing_of_what_they_had(make_worker: MakeWorker) -> None:
    worker = make_worker()
    size, count = 1_000_000, 50  # the last batch of each is nearly half of it
    script = "head -c $1 /dev/zero; exec sleep 600"
    async with connected(worker) as alice, contextlib.AsyncExitStack() as followers:
        jobs = [await alice.start("sh", "-c", script, "sh", str(size)) for _ in range(count)]
        before = 0
        for job in jobs:
            events, got = alice.follow(job.job_id), 0
            await followers.enter_async_context(contextlib.aclosing(events))
            while got < size:
                chunk = await next_of(events)
                assert isinstance(chunk, Chunk)
                got += len(chunk.data)
            before = before or rss(worker.pid)
        await until_idle(worker)
        held = rss(worker.pid) - before
        for job in jobs:
            await alice.stop(job.job_id, grace=timedelta(0))
    assert held < count * size / 5


# -- revoked


async def revoke_by_call(worker: Worker) -> None:
    async with connected(worker, "root") as root:
        await root.clients.revoke_client(RevokeClientRequest(client_id="alice"), timeout=PATIENCE)


async def revoke_by_command(worker: Worker) -> None:
    command = [*jobworker("client", "revoke", "alice"), "--state", str(worker.state)]
    done = await asyncio.create_subprocess_exec(*command, cwd=CHECKOUT, env=clean_environment())
    assert await done.wait() == 0


@pytest.mark.parametrize("revoke", [revoke_by_call, revoke_by_command])
async def test_revocation_ends_open_streams_and_no_job(
    make_worker: MakeWorker, revoke: Callable[[Worker], "asyncio.Future[None]"]
) -> None:
    worker = make_worker()
    async with connected(worker) as alice, connected(worker, "bob") as bob, connected(worker, "root") as root:
        hers = await alice.start(*programs.ready_then_sleep())
        his = await bob.start(*programs.ready_then_sleep())
        async with following(alice, hers.job_id) as ended, following(bob, his.job_id) as stays:
            waiting = asyncio.create_task(alice.wait(hers.job_id))
            await alice.get(hers.job_id)
            await revoke(worker)
            with pytest.raises(GRPCError) as told:
                await asyncio.wait_for(ended, PATIENCE)
            assert as_refusal(told.value).status is Status.UNAUTHENTICATED
            assert (await refusal(waiting)).status is Status.UNAUTHENTICATED
            assert (await refusal(alice.get(hers.job_id))).status is Status.UNAUTHENTICATED
            assert (await root.get(hers.job_id)).pid
            await bob.stop(his.job_id)
            assert (await asyncio.wait_for(stays, PATIENCE)).out == b"ready\n"


async def test_who_is_registered_anew_with_lesser_rights_does_not_follow_on(make_worker: MakeWorker) -> None:
    """Also where the server has no time to look in between."""
    worker = make_worker()
    certificate = str(worker.certificates.of("carol"))
    async with connected(worker, "bob") as bob, connected(worker, "carol") as carol:
        job = await bob.start(*programs.ready_then_sleep())
        async with following(carol, job.job_id) as ended:
            os.kill(worker.pid, signal.SIGSTOP)
            try:
                for words in (["revoke", "carol"], ["add", "carol", "--cert", certificate]):
                    command = [*jobworker("client", *words), "--state", str(worker.state)]
                    done = await asyncio.create_subprocess_exec(
                        *command, cwd=CHECKOUT, env=clean_environment()
                    )
                    assert await done.wait() == 0
            finally:
                os.kill(worker.pid, signal.SIGCONT)
            with pytest.raises(GRPCError) as told:
                await asyncio.wait_for(ended, PATIENCE)
            assert as_refusal(told.value).status is Status.UNAVAILABLE
            assert (await refusal(carol.get(job.job_id))).status is Status.NOT_FOUND
        await bob.stop(job.job_id)


async def test_a_revoked_follower_that_takes_nothing_is_cut_off(make_worker: MakeWorker) -> None:
    worker = make_worker()
    async with connected(worker) as alice:
        events = alice.follow(await job_with_much_output(worker, alice))
        await next_of(events)
        transport_of(alice.channel).pause_reading()
        await until_idle(worker)
        await revoke_by_call(worker)
        await until_let_go(worker, seconds=10)
        transport_of(alice.channel).resume_reading()
        with pytest.raises(GONE):
            await drained(events)


# -- the server's end


async def test_a_killed_server_loses_no_byte(make_worker: MakeWorker) -> None:
    worker = make_worker()
    run = Run()
    async with connected(worker) as alice:
        with contextlib.suppress(*GONE):
            async for event in alice.running(*programs.lines(400, pause=0.005)):
                run.events.append(event)
                if run.out.count(b"\n") >= 50:
                    worker.kill9()
    assert run.out.count(b"\n") < 400
    worker.start()
    async with connected(worker) as alice:
        rest = await collect(alice.follow(run.started.job_id, offset=len(run.out)))
    assert run.out + rest.out == b"".join(b"line %d\n" % n for n in range(1, 401))
    assert rest.end.termination is not None
    assert rest.end.termination.exit_code == 0


# -- looking from outside


def open_outputs(worker: Worker) -> list[str]:
    """Output files that the server has open: those of jobs with followers."""
    found = []
    for entry in Path(f"/proc/{worker.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(entry))
    return [target for target in found if "/jobs/" in target and "/output." in target]


def watches(worker: Worker) -> int:
    """Files that the server has watched by the kernel."""
    count = 0
    for entry in Path(f"/proc/{worker.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(entry) == "anon_inode:inotify":
                info = Path(f"/proc/{worker.pid}/fdinfo/{entry.name}").read_text()
                count += info.count("inotify wd:")
    return count


async def until_let_go(worker: Worker, *, seconds: float) -> None:
    """Returns once the server has closed the files of all followers."""
    await until_open(worker, 0, seconds=seconds)


async def until_open(worker: Worker, count: int, *, seconds: float = PATIENCE) -> None:
    """Returns once so many output files are open: those of jobs that have just ended are, for their sync."""
    async with asyncio.timeout(seconds):
        while len(open_outputs(worker)) != count:  # noqa: ASYNC110 - another process' descriptors tell nobody
            await asyncio.sleep(0.01)


def ticks(pid: int) -> int:
    """Processor time of a process so far, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def until_idle(worker: Worker) -> None:
    """Returns once the server has used no processor time for a while: it waits for something."""
    async with asyncio.timeout(PATIENCE):
        before = -1
        while before != (before := ticks(worker.pid)):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.2)


def rss(pid: int) -> int:
    """Resident memory of a process, bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))
