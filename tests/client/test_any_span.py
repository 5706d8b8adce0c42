"""Any part of a real job's output, over connections cut anywhere, is what an obvious oracle takes out of the whole."""

import asyncio
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from jobctl import Chunk, Client, Stream
from tests.client.conftest import PATIENCE, client_of
from tests.client.proxy import proxy_to
from tests.harness import Worker, programs

PIECES = 40
SCRIPT = """
    i=0
    while [ $i -lt $1 ]; do
        i=$((i + 1))
        if [ $((i % 3)) = 0 ]; then echo "err $i" >&2; else printf 'out %s\\nmore %s\\n' $i $i; fi
        sleep 0.003
    done
    printf unfinished"""


class Whole:
    """A job's output piece by piece: the oracle."""

    def __init__(self, job_id: str, chunks: list[Chunk]) -> None:
        self.job_id = job_id
        self.chunks = chunks
        self.size = chunks[-1].offset + len(chunks[-1].data)

    def part(self, options: dict[str, Any]) -> list[tuple[int, int]]:
        """Offset and value of every byte that is to be delivered."""
        ends = [options.get("until_offset", self.size), self.size]
        if "until" in options:
            ends.append(self._at(options["until"]))
        stop = min(ends)
        mine = [one for one in self._bytes(options.get("streams") or list(Stream)) if one[0] < stop]
        begins = [options.get("offset", 0)]
        if "since" in options:
            begins.append(self._at(options["since"]))
        if "tail_bytes" in options:
            begins.append(last([offset for offset, _ in mine], options["tail_bytes"], stop))
        if "tail_lines" in options:
            starts = [after for (_, byte), (after, _) in pairwise([(0, 10), *mine]) if byte == 10]
            begins.append(last(starts, options["tail_lines"], stop))
        return [one for one in mine if one[0] >= max(begins)]

    def _at(self, time: datetime) -> int:
        """Where what was taken at this time or later begins."""
        return next((chunk.offset for chunk in self.chunks if chunk.time >= time), self.size)

    def _bytes(self, streams: list[Stream]) -> list[tuple[int, int]]:
        chunks = [chunk for chunk in self.chunks if chunk.stream in streams]
        return [(chunk.offset + n, byte) for chunk in chunks for n, byte in enumerate(chunk.data)]


def last(starts: list[int], count: int, stop: int) -> int:
    """Where the last so many of these begin."""
    return 0 if count >= len(starts) else starts[-count] if count else stop


@pytest.fixture(scope="module")
def whole(worker: Worker) -> Whole:
    async def write() -> Whole:
        async with client_of(worker, "alice") as client:
            job = await client.start(programs.sh(SCRIPT, str(PIECES)))
            chunks = [chunk async for chunk in job.output(timeout=PATIENCE)]
            await job.wait(timeout=PATIENCE)
            return Whole(job.id, chunks)

    made = asyncio.run(write())
    assert len(made.chunks) > PIECES // 2
    return made


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_part(worker: Worker, whole: Whole, data: st.DataObject) -> None:
    options = data.draw(spans(whole), "options")
    cuts = data.draw(st.lists(st.integers(3_000, 5_500), max_size=3), "cuts")
    expected = whole.part(options)
    note(f"expected {len(expected)} bytes")

    async def follow() -> list[tuple[int, int]]:
        async with (
            proxy_to(worker.address) as proxy,
            client_of(worker, "alice", address=proxy.address) as client,
        ):
            await client.worker()
            proxy.cut_after(*cuts)
            return await delivered(client, whole.job_id, options)

    assert asyncio.run(follow()) == expected


async def delivered(client: Client, job_id: str, options: dict[str, Any]) -> list[tuple[int, int]]:
    return [
        (chunk.offset + n, byte)
        async for chunk in client.job(job_id).output(timeout=PATIENCE, **options)
        for n, byte in enumerate(chunk.data)
    ]


def spans(whole: Whole) -> st.SearchStrategy[dict[str, Any]]:
    """What `output` may be asked for, the ends not before the beginnings."""
    times = st.sampled_from([chunk.time for chunk in whole.chunks])
    offsets = st.integers(0, whole.size)
    drawn = st.fixed_dictionaries(
        {},
        optional={
            "offset": offsets,
            "until_offset": offsets,
            "since": times,
            "until": times,
            "tail_lines": st.integers(0, 2 * PIECES),
            "tail_bytes": offsets,
            "follow": st.booleans(),
            "streams": st.sampled_from([[], [Stream.STDOUT], [Stream.STDERR], list(Stream)]),
        },
    )
    return drawn.filter(lambda options: is_in_order(options, whole.size))


def is_in_order(options: dict[str, Any], size: int) -> bool:
    timed = "since" in options and "until" in options
    return options.get("offset", 0) <= options.get("until_offset", size) and not (
        timed and options["since"] > options["until"]
    )
