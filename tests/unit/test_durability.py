"""What is synced, when, and what becomes of errors; that it really is on the disk then, tests/failure shows."""

import asyncio
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from jobworker import durability, syscalls
from jobworker.durability import MANY, Durability
from jobworker.statedir import StateDirectory

PATIENCE = 10.0
Synced = list[list[str]]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    opened = StateDirectory.open(tmp_path / "state", scratch=tmp_path / "scratch")
    (opened.path / "jobs.db-wal").touch()
    yield opened
    opened.close()


def make_job(state: StateDirectory, job_id: str, *names: str) -> Path:
    directory = state.job(job_id)
    directory.mkdir()
    for name in names:
        (directory / name).touch()
    return directory


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is synced, in order."""
    names: list[str] = []
    fsync, syncfs = os.fsync, syscalls.syncfs

    def see(fd: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        fsync(fd)

    def see_all(fd: int) -> None:
        names.append("*")
        syncfs(fd)

    monkeypatch.setattr(os, "fsync", see)
    monkeypatch.setattr(syscalls, "syncfs", see_all)
    return names


def test_output_comes_before_the_records_that_tell_of_it(state: StateDirectory, synced: list[str]) -> None:
    ended = make_job(state, "one", "output.log", "output.idx", "exit")
    durability.sync(state, [ended])
    assert synced == ["output.log", "output.idx", "exit", "one", "jobs", "jobs.db-wal"]


def test_what_is_gone_is_no_trouble(state: StateDirectory, synced: list[str]) -> None:
    durability.sync(state, [make_job(state, "one", "exit"), state.job("deleted")])
    assert synced == ["exit", "one", "jobs", "jobs.db-wal"]
    (state.path / "jobs.db-wal").unlink()
    durability.sync(state, [])


def test_many_jobs_are_one_sync(state: StateDirectory, synced: list[str]) -> None:
    durability.sync(state, [make_job(state, str(number), "exit") for number in range(MANY + 1)])
    assert synced == ["*", "jobs.db-wal"]


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Synced:
    """The jobs of each sync."""
    seen: Synced = []

    def sync(_: StateDirectory, ended: Sequence[Path]) -> None:
        seen.append([directory.name for directory in ended])
        if len(seen) == 1:
            raise OSError(errno.EIO, "the disk is ill")

    monkeypatch.setattr(durability, "sync", sync)
    monkeypatch.setattr(durability, "MOMENT", 0.01)
    return seen


async def test_changes_are_collected_and_an_error_is_not_the_end(
    state: StateDirectory, syncs: Synced, caplog: pytest.LogCaptureFixture
) -> None:
    followed = Durability(state)
    for job_id in ("one", "two"):
        followed.job_ended(job_id)
        followed.record_written()
    await settled(followed)
    assert syncs == [["one", "two"]]
    assert "may not survive a power failure: [Errno 5]" in caplog.text
    followed.record_written()
    await settled(followed)
    assert syncs == [["one", "two"], []]
    followed.job_ended("three")
    followed.record_written()
    await followed.close()
    assert syncs == [["one", "two"], [], ["three"]]


async def settled(followed: Durability) -> None:
    assert followed._task is not None
    await asyncio.wait_for(asyncio.shield(followed._task), PATIENCE)
    assert followed._task is None, "it costs something while nothing changes"
