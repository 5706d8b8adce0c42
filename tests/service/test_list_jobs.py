"""ListJobs: newest first, page by page, only what the caller may see."""

import uuid

import pytest
from grpclib.const import Status

from generated.jobworker.v1 import JobFilter, JobState, ListJobsRequest
from tests.harness import programs
from tests.service.client import Client, refusal


async def ids(client: Client, *, page_size: int = 0, **fields: object) -> list[str]:
    """Ids of all pages."""
    found: list[str] = []
    token = ""
    while True:
        selection = JobFilter(**fields)  # type: ignore[arg-type]
        request = ListJobsRequest(filter=selection, page_size=page_size, page_token=token)
        page = await client.jobs.list_jobs(request)
        if page_size:
            assert len(page.jobs) <= page_size
        found += [job.job_id for job in page.jobs]
        token = page.next_page_token
        if not token:
            return found


async def test_newest_first_and_every_job_once(alice: Client) -> None:
    mark = uuid.uuid4().hex
    started = [(await alice.start("/bin/true", labels={"run": mark})).job_id for _ in range(7)]
    for page_size in (0, 1, 3, 7, 1000, 2**32 - 1):
        assert await ids(alice, page_size=page_size, labels={"run": mark}) == started[::-1]


async def test_every_field_of_the_filter_must_hold(alice: Client) -> None:
    mark = uuid.uuid4().hex
    sleeping = await alice.start(*programs.sleep(), name=f"n{mark}", labels={"run": mark, "kind": "a"})
    done = await alice.start("/bin/true", name=f"n{mark}", labels={"run": mark, "kind": "b"})
    await alice.wait(done.job_id)
    running, ended = JobState(JobState.RUNNING), JobState(JobState.ENDED)
    assert await ids(alice, name=f"n{mark}") == [done.job_id, sleeping.job_id]
    assert await ids(alice, name=f"n{mark}", states=[running]) == [sleeping.job_id]
    assert await ids(alice, labels={"run": mark}, states=[running, ended]) == [done.job_id, sleeping.job_id]
    assert await ids(alice, labels={"run": mark, "kind": "b"}) == [done.job_id]
    assert await ids(alice, labels={"run": mark, "kind": "c"}) == []
    assert await ids(alice, id_prefix=done.job_id) == [done.job_id]
    assert done.job_id in await ids(alice, id_prefix=done.job_id[:8])
    assert await ids(alice, owner="bob", labels={"run": mark}) == []
    await alice.stop(sleeping.job_id)


async def test_operators_see_their_own_admin_and_viewer_all(
    alice: Client, bob: Client, root: Client, carol: Client
) -> None:
    mark = uuid.uuid4().hex
    hers = (await alice.start("/bin/true", labels={"run": mark})).job_id
    his = (await bob.start("/bin/true", labels={"run": mark})).job_id
    assert await ids(alice, labels={"run": mark}) == [hers]
    assert await ids(bob, labels={"run": mark}) == [his]
    assert await ids(root, labels={"run": mark}) == [his, hers]
    assert await ids(carol, labels={"run": mark}) == [his, hers]
    assert await ids(carol, labels={"run": mark}, owner="alice") == [hers]
    assert await ids(bob, labels={"run": mark}, owner="alice") == []


@pytest.mark.parametrize("token", ["nonsense", "!", "AAAA", "ü"])
async def test_a_token_that_is_not_ours_is_refused(alice: Client, token: str) -> None:
    refused = await refusal(alice.jobs.list_jobs(ListJobsRequest(page_token=token)))
    assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, "page_token")


async def test_an_unknown_state_is_refused(alice: Client) -> None:
    selection = JobFilter(states=[JobState.try_value(99)])
    refused = await refusal(alice.jobs.list_jobs(ListJobsRequest(filter=selection)))
    assert (refused.status, refused.detail.field) == (Status.INVALID_ARGUMENT, "filter.states[0]")
