"""StreamOutput: from any offset, one stream or both, to the present or to the end."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import grpclib.client
import pytest
from betterproto import which_one_of
from grpclib.config import Configuration
from grpclib.const import Status

from generated.jobworker.v1 import (
    Chunk,
    End,
    EndReason,
    JobServiceStub,
    Position,
    StreamOutputRequest,
)
from jobwire.codec import Codec
from jobwire.scalars import EPOCH
from tests.harness import Worker, programs
from tests.service.client import (
    PATIENCE,
    Client,
    Run,
    address,
    close,
    collect,
    next_of,
    refusal,
    tls,
    until_said,
)


async def test_an_ended_job_is_read_from_any_offset(alice: Client) -> None:
    job = await alice.start(*programs.say(out="abc", err="def"))
    await alice.wait(job.job_id)
    whole = await collect(alice.follow(job.job_id))
    assert (whole.out, whole.err) == (b"abc", b"def")
    for offset in range(7):
        part = await collect(alice.follow(job.job_id, offset=offset))
        assert part.out + part.err == (whole.out + whole.err)[offset:]
        assert part.end == whole.end


async def test_without_follow_it_ends_at_the_present(alice: Client) -> None:
    job = await alice.start(*programs.ready_then_sleep())
    await until_said(alice, job.job_id, b"ready\n")
    now = await collect(alice.follow(job.job_id, follow=False))
    assert now.out == b"ready\n"
    assert (now.end.termination, now.end.final_offset) == (None, 6)
    await alice.stop(job.job_id)


async def test_a_follower_that_comes_back_misses_nothing_and_gets_nothing_twice(alice: Client) -> None:
    job = await alice.start(*programs.lines(300, pause=0.002))
    got, offset = b"", 0
    while True:
        events = alice.follow(job.job_id, offset=offset)
        run = Run([await next_of(events)])
        await events.aclose()
        if not run.out:
            break
        got, offset = got + run.out, offset + len(run.out)
    assert got == b"".join(b"line %d\n" % n for n in range(1, 301))


@pytest.mark.parametrize("streams", [[], [1], [2], [1, 2], [0]], ids=str)
async def test_streams_may_be_chosen(alice: Client, streams: list[int]) -> None:
    job = await alice.start(*programs.say(out="out", err="err"))
    await alice.wait(job.job_id)
    run = await collect(alice.follow(job.job_id, streams=streams))
    assert run.out == (b"out" if 2 not in streams or 1 in streams else b"")
    assert run.err == (b"err" if 1 not in streams or 2 in streams else b"")
    assert run.end.final_offset == 6


async def test_the_last_lines_begin_at_a_position_from_which_to_resume(alice: Client) -> None:
    job = await alice.start(*programs.lines(50, pause=0))
    await alice.wait(job.job_id)
    run = await collect(alice.follow(job.job_id, tail_lines=2))
    assert run.out == b"line 49\nline 50\n"
    assert run.events[0] == Position(offset=run.end.final_offset - 16)
    again = await collect(alice.follow(job.job_id, offset=run.end.final_offset - 16))
    assert again.events == run.events[1:]


async def test_times_are_those_of_the_chunks(alice: Client) -> None:
    job = await alice.start(*programs.lines(20, pause=0.01))
    chunks = [e async for e in alice.follow(job.job_id) if isinstance(e, Chunk)]
    later = chunks[(len(chunks) - 1) // 2]  # some come after it, or more of its own
    border = EPOCH + timedelta(microseconds=-(-later.time_unix_nano // 1000))
    since = await collect(alice.follow(job.job_id, since=border))
    until = await collect(alice.follow(job.job_id, until=border))
    whole = b"".join(chunk.data for chunk in chunks)
    assert until.out + since.out == whole
    assert since.events[0] == Position(offset=len(until.out))
    assert (until.out, since.out) != (whole, b"")
    both = await collect(alice.follow(job.job_id, since=border, until=border))
    assert both.out == b""


async def test_following_ends_at_a_time_and_the_job_runs_on(alice: Client) -> None:
    job = await alice.start(*programs.ready_then_sleep())
    await until_said(alice, job.job_id, b"ready\n")
    run = await collect(alice.follow(job.job_id, until=datetime.now(UTC) + timedelta(seconds=0.2)))
    assert (run.out, run.end) == (b"ready\n", End(final_offset=6))
    await alice.stop(job.job_id)


@pytest.mark.parametrize(
    ("field", "span"),
    [
        ("until_offset", {"offset": 2, "until_offset": 1}),
        ("until", {"since": datetime(2030, 1, 2, tzinfo=UTC), "until": datetime(2030, 1, 1, tzinfo=UTC)}),
        ("tail_lines", {"tail_lines": 2**63}),
    ],
)
async def test_a_span_that_ends_before_it_begins_is_refused(
    alice: Client, field: str, span: dict[str, Any]
) -> None:
    refused = await refusal(collect(alice.follow("any", **span)))
    assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, field)


async def test_what_is_streamed_is_what_lies_on_the_disk(alice: Client, worker: Worker) -> None:
    job = await alice.start(*programs.write_bytes(20_000_000))
    run = await collect(alice.follow(job.job_id))
    stored = (worker.job_directory(job.job_id) / "output.log").read_bytes()
    assert hashlib.sha256(run.out).digest() == hashlib.sha256(stored).digest()
    assert run.end.final_offset == len(stored) == 20_000_000


async def test_many_followers_see_the_same(alice: Client, carol: Client) -> None:
    job = await alice.start(*programs.lines(50, pause=0.005))
    runs = await asyncio.gather(
        *(collect(client.follow(job.job_id)) for client in (alice, carol) for _ in range(25))
    )
    assert {run.out for run in runs} == {b"".join(b"line %d\n" % n for n in range(1, 51))}


async def test_an_offset_beyond_the_output(alice: Client) -> None:
    job = await alice.start(*programs.say(out="abc"))
    await alice.wait(job.job_id)
    refused = await refusal(collect(alice.follow(job.job_id, offset=4)))
    assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, "offset")


async def test_a_job_that_closes_its_streams_and_stays(alice: Client) -> None:
    job = await alice.start(*programs.close_streams_and_stay())
    await until_said(alice, job.job_id, b"bye\n")
    following = asyncio.ensure_future(collect(alice.follow(job.job_id)))
    await alice.stop(job.job_id)
    end = (await following).end
    assert end.termination is not None
    assert end.termination.reason == EndReason.STOPPED


async def test_another_clients_output_is_not_there(alice: Client, bob: Client) -> None:
    job = await alice.start(*programs.say(out="secret"))
    refused = await refusal(collect(bob.follow(job.job_id)))
    assert refused.status is Status.NOT_FOUND


async def test_unknown_streams_are_refused(alice: Client) -> None:
    refused = await refusal(collect(alice.follow("any", streams=[3])))
    assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, "streams[0]")


@pytest.mark.parametrize("window", [65_535, 300_000, 4 << 20])
async def test_a_client_with_small_windows_and_frames_gets_the_same(
    alice: Client, worker: Worker, window: int
) -> None:
    """grpclib's own channel announces frames of 16 KiB; other clients have windows of 64 KiB."""
    job = await alice.start(*programs.write_bytes(3_000_000))
    windows = Configuration(http2_connection_window_size=window, http2_stream_window_size=window)
    context = tls(worker.certificates.of("alice"), worker.certificates.authority)
    channel = grpclib.client.Channel(*address(worker), codec=Codec(), ssl=context, config=windows)
    data = b""
    request = StreamOutputRequest(job_id=job.job_id, follow=True)
    async for response in JobServiceStub(channel).stream_output(request, timeout=PATIENCE):
        data += response.chunk.data if which_one_of(response, "event")[0] == "chunk" else b""
    await close(channel)
    assert data == (b"\x01\xffbinary\n" * 400_000)[:3_000_000]
