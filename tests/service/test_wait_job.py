"""WaitJob: answers when the job has ended, however many wait."""

import asyncio

import pytest
from grpclib.const import Status

from generated.jobworker.v1 import JobState
from tests.harness import programs
from tests.service.client import PATIENCE, Client, refusal


async def test_a_job_that_has_ended_is_answered_at_once(alice: Client) -> None:
    job = await alice.start("/bin/true")
    first = await alice.wait(job.job_id)
    assert first.state == JobState.ENDED
    assert await alice.wait(job.job_id) == first


async def test_everybody_who_waits_is_told(alice: Client, carol: Client) -> None:
    job = await alice.start(*programs.sleep())
    waiting = [asyncio.ensure_future(client.wait(job.job_id)) for client in (alice, carol) * 20]
    await alice.get(job.job_id)  # by the time this is answered the others have been heard
    assert not any(each.done() for each in waiting)
    await alice.stop(job.job_id)
    records = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
    assert {int(record.state) for record in records} == {int(JobState.ENDED)}


async def test_who_stops_waiting_disturbs_nobody(alice: Client) -> None:
    job = await alice.start(*programs.sleep())
    stays = asyncio.ensure_future(alice.wait(job.job_id))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(alice.wait(job.job_id), 0.05)
    await alice.stop(job.job_id)
    assert (await asyncio.wait_for(stays, PATIENCE)).state == JobState.ENDED


async def test_another_clients_job_is_not_there(alice: Client, bob: Client) -> None:
    job = await alice.start("/bin/true")
    assert (await refusal(bob.wait(job.job_id))).status is Status.NOT_FOUND
