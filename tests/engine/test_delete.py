"""Deleting: everything goes, once, and only of jobs that have ended."""

import asyncio
import os

import pytest

from jobworker.errors import (
    FailedPrecondition,
    NotFound,
)
from tests.harness import programs
from tests.harness.domain import ALICE, Domain


async def test_delete_takes_everything(domain: Domain) -> None:
    script = "mkdir -p a/b/c; ln -s / a/root; ln -s /etc/passwd link; mkfifo fifo; chmod 0 a/b; echo x"
    record = await domain.start("/bin/sh", "-c", script, request_id="r")
    await domain.wait(record.job_id)
    await domain.jobs.delete(ALICE, record.job_id)
    assert domain.directories() == os.listdir(domain.state.scratch) == []
    assert os.stat("/etc/passwd").st_size
    for call in (domain.jobs.get, domain.jobs.delete, domain.jobs.wait):
        with pytest.raises(NotFound):
            await call(ALICE, record.job_id)
    assert domain.jobs.counts() == (0, 0)
    assert (await domain.start("true", request_id="r")).job_id != record.job_id


async def test_a_running_job_is_not_deleted(domain: Domain) -> None:
    record = await domain.start(*programs.sleep())
    with pytest.raises(FailedPrecondition, match="has not ended") as raised:
        await domain.jobs.delete(ALICE, record.job_id)
    assert raised.value.hint == "stop it first"
    assert domain.jobs.counts() == (1, 0)


async def test_deleting_twice_at_once_is_once(domain: Domain) -> None:
    record = await domain.start("true")
    await domain.wait(record.job_id)
    results = await asyncio.gather(
        *(domain.jobs.delete(ALICE, record.job_id) for _ in range(2)), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), NotFound]
