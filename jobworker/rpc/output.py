"""JobService's streams: RunJob and StreamOutput, which are `follow` with a beginning.

Decides only how a request becomes a place in an output. What is yielded is ready-made messages, as many at
once as there are.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from generated.jobworker import v1
from jobworker import events
from jobworker.events import Event
from jobworker.follow import follow
from jobworker.jobs import Jobs, OutputSource
from jobworker.outputs import Outputs
from jobworker.records import unix_nano
from jobworker.rpc.calls import Call
from jobworker.span import ALL, Span

Events = AsyncGenerator[list[Event], None]


class OutputVerbs:
    """What the door calls for JobService's streaming methods."""

    def __init__(self, jobs: Jobs, outputs: Outputs) -> None:
        self._jobs = jobs
        self._outputs = outputs

    async def run_job(self, call: Call, request: v1.RunJobRequest) -> Events:
        wanted = request.job_id
        call.subject = wanted or ""
        record = await self._jobs.start(
            call.caller, request.spec, request_id=request.request_id, job_id=wanted
        )
        call.subject = job_id = record.job_id
        yield [events.started(record)]
        source = self._jobs.output(call.caller, job_id)
        async with aclosing(self._follow(source, Span(follow=True))) as batches:
            async for batch in batches:
                yield batch
                del batch  # while the next one is waited for

    def stream_output(self, call: Call, request: v1.StreamOutputRequest) -> Events:
        return self._follow(self._jobs.output(call.caller, request.job_id), _span(request))

    def _follow(self, source: OutputSource, span: Span) -> Events:
        return follow(source, outputs=self._outputs, span=span)


def _span(request: v1.StreamOutputRequest) -> Span:
    since, until = request.since, request.until
    streams = frozenset(map(int, request.streams))
    return Span(
        offset=request.offset,
        since_ns=None if since is None else unix_nano(since),
        tail_lines=request.tail_lines,
        tail_bytes=request.tail_bytes,
        until_offset=request.until_offset,
        until_ns=None if until is None else unix_nano(until),
        streams=ALL if v1.Stream.UNSPECIFIED in streams else streams,
        follow=request.follow,
    )
