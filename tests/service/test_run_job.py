"""RunJob: started, output, end, in one call."""

import asyncio
import uuid

from grpclib.const import Status

from generated.jobworker.v1 import Chunk, EndReason, JobRecord, JobState, Stream
from tests.harness import Worker, programs
from tests.harness.paced import ERR, OUT, Paced
from tests.service.client import PATIENCE, Client, Run, collect, next_of, refusal


async def test_started_then_output_then_end(alice: Client) -> None:
    run = await alice.run(*programs.say(out="out\n", err="err\n", exit_code=3))
    assert run.started.state in (JobState.RUNNING, JobState.ENDED)
    assert (run.out, run.err) == (b"out\n", b"err\n")
    assert run.end.termination is not None
    assert (run.end.termination.reason, run.end.termination.exit_code) == (EndReason.EXITED, 3)
    assert run.end.final_offset == 8
    assert run.end.usage is not None


async def test_a_program_that_says_nothing(alice: Client) -> None:
    run = await alice.run("/bin/true")
    assert len(run.events) == 2
    assert run.end.final_offset == 0


async def test_started_comes_before_the_job_has_said_or_done_anything(alice: Client) -> None:
    events = alice.running(*programs.sleep())
    record = await next_of(events)
    await events.aclose()
    assert isinstance(record, JobRecord)
    assert record.state == JobState.RUNNING
    await alice.stop(record.job_id)


async def test_output_arrives_while_the_job_runs(alice: Client) -> None:
    run = Run()
    async for event in alice.running(*programs.ready_then_sleep()):
        run.events.append(event)
        if run.out == b"ready\n":
            await alice.stop(run.started.job_id)
    assert run.end.termination is not None
    assert run.end.termination.reason == EndReason.STOPPED


async def test_the_same_request_follows_the_same_job_from_the_first_byte(alice: Client) -> None:
    request_id = str(uuid.uuid4())
    first = await alice.run(*programs.say(out="only once"), request_id=request_id)
    again = await alice.run(*programs.say(out="only once"), request_id=request_id)
    assert again.started.job_id == first.started.job_id
    assert again.out == b"only once"
    assert again.end == first.end


async def test_a_broken_stream_leaves_the_job_running(alice: Client) -> None:
    events = alice.running(*programs.sh("echo one; sleep 0.3; echo two"))
    record = await next_of(events)
    await events.aclose()
    assert isinstance(record, JobRecord)
    ended = await alice.wait(record.job_id)
    assert ended.termination is not None
    assert ended.termination.exit_code == 0
    assert (await collect(alice.follow(record.job_id))).out == b"one\ntwo\n"


async def test_a_start_that_fails_is_an_error_and_no_event(alice: Client) -> None:
    refused = await refusal(alice.run("no-such-program"))
    assert refused.status is Status.FAILED_PRECONDITION
    assert refused.detail.start_failure is not None
    assert refused.detail.job_id


async def test_binary_output_without_a_newline_is_exact(alice: Client) -> None:
    run = await alice.run(*programs.write_bytes(3_000_001))
    expected = (b"\x01\xffbinary\n" * 400_000)[:3_000_001]
    assert run.out == expected


async def test_a_grandchild_that_keeps_stdout_does_not_hold_the_end_back(alice: Client) -> None:
    run = await asyncio.wait_for(alice.run(*programs.grandchild_keeps_stdout()), PATIENCE)
    assert run.out == b"parent\n"
    assert run.end.termination is not None
    assert run.end.termination.exit_code == 5


async def test_both_streams_keep_their_order(alice: Client, worker: Worker) -> None:
    pieces = [piece for n in range(1, 6) for piece in ((OUT, f"o{n}\n"), (ERR, f"e{n}\n"))]
    paced = Paced(worker.directory, pieces)
    events = alice.running(*paced.argv)
    started = await next_of(events)
    assert isinstance(started, JobRecord)
    running = asyncio.ensure_future(collect(events))
    await asyncio.to_thread(paced.let_go_on, worker.job_directory(started.job_id) / "output.log")
    run = await running
    order = [(int(event.stream), event.data) for event in run.events if isinstance(event, Chunk)]
    assert order == [
        (stream, b"%s%d\n" % (letter, n))
        for n in range(1, 6)
        for stream, letter in ((int(Stream(1)), b"o"), (int(Stream(2)), b"e"))
    ]
