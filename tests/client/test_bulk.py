"""One GiB of output through the whole worker, compared with the same program run here."""

import asyncio
import hashlib

import pytest

from jobctl import Client

GIB = 1 << 30
ARGV = ["sh", "-c", f"seq 1 200000000 | head -c {GIB}"]


async def digest_here() -> str:
    process = await asyncio.create_subprocess_exec(*ARGV, stdout=asyncio.subprocess.PIPE, limit=1 << 20)
    assert process.stdout
    digest = hashlib.sha256()
    while data := await process.stdout.read(1 << 20):
        digest.update(data)
    await process.wait()
    return digest.hexdigest()


@pytest.mark.slow
async def test_a_gibibyte_arrives_live_and_again_byte_for_byte(alice: Client) -> None:
    expected = await digest_here()
    live, again = hashlib.sha256(), hashlib.sha256()
    async with alice.stream(ARGV) as output:
        async for chunk in output:
            live.update(chunk.data)
    assert (output.offset, live.hexdigest()) == (GIB, expected)
    job = alice.job(output.job_id)
    async for chunk in job.output():
        again.update(chunk.data)
    assert again.hexdigest() == expected
    await job.delete()
