"""Whose jobs one sees, and how they are found: find, get, list."""

import uuid

import pytest

import jobctl
from jobctl import Client, JobState
from tests.client.conftest import PATIENCE
from tests.harness import programs


async def test_a_job_is_found_by_what_people_call_it(alice: Client, bob: Client) -> None:
    name = f"find-{uuid.uuid4().hex[:8]}"
    older = await alice.start(["true"], name=name)
    newer = await alice.start(["true"], name=name)
    assert (await alice.find(name)).id == newer.id
    assert (await alice.find(older.id)).id == older.id
    assert (await alice.find(older.id[:-1])).id == older.id
    with pytest.raises(jobctl.AmbiguousJob) as raised:
        await alice.find(older.id[:4])
    assert {older.id, newer.id} <= set(raised.value.candidates) or len(raised.value.candidates) == 10
    for reference in ("no-such-name", "ffffffff", "", "not a name", "x" * 500, older.id[:-1] + "\0"):
        with pytest.raises(jobctl.JobNotFound):
            await alice.find(reference)
    with pytest.raises(jobctl.JobNotFound):
        await bob.find(name)


async def test_another_clients_job_does_not_exist(alice: Client, bob: Client, root: Client) -> None:
    job = await alice.start(programs.sleep())
    stranger = bob.job(job.id)
    for attempt in (
        stranger.refresh(),
        stranger.stop(),
        stranger.signal(15),
        stranger.delete(),
        stranger.wait(),
    ):
        with pytest.raises(jobctl.JobNotFound):
            await attempt
    with pytest.raises(jobctl.JobNotFound):
        await anext(stranger.output())
    assert (await root.get(job.id)).record.owner == "alice"
    await root.job(job.id).stop(grace=0)
    assert (await job.wait(timeout=PATIENCE)).termination.stopped_by == "root"


async def test_listing_is_paged_filtered_and_newest_first(alice: Client) -> None:
    label = uuid.uuid4().hex
    jobs = [await alice.start(["true"], labels={"batch": label}, name=f"n{i}") for i in range(7)]
    newest_first = [job.id for job in reversed(jobs)]
    found = [job.id async for job in alice.list(labels={"batch": label}, page_size=2)]
    assert found == newest_first
    limited = [job.id async for job in alice.list(labels={"batch": label}, limit=3)]
    assert limited == newest_first[:3]
    await jobs[0].wait(timeout=PATIENCE)
    ended = [job async for job in alice.list(labels={"batch": label}, states=[JobState.ENDED], name="n0")]
    assert [job.record.spec.name for job in ended] == ["n0"]
    assert [job async for job in alice.list(labels={"batch": "none"})] == []
