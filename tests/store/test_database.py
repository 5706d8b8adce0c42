"""Opening: new, old, newer, foreign and damaged files; writing now and behind; what kill -9 leaves."""

import asyncio
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobworker.errors import FailedPrecondition, Internal, Unavailable
from jobworker.store.database import FILE_NAME, Conflict, Database
from jobworker.store.schema import APPLICATION_ID, MIGRATIONS

ADD = "INSERT INTO labels (job_id, key, value) VALUES (?, 'k', 'v')"
COUNT = "SELECT count(*) FROM labels"


def raw(directory: Path) -> sqlite3.Connection:
    return sqlite3.connect(directory / FILE_NAME, isolation_level=None)


def test_a_new_file_is_ours_and_private(tmp_path: Path) -> None:
    Database.open(tmp_path).close()
    mode = (tmp_path / FILE_NAME).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    connection = raw(tmp_path)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_opening_again_keeps_what_is_there(tmp_path: Path) -> None:
    first = Database.open(tmp_path)
    first.write((ADD, ("a",)))
    first.close()
    second = Database.open(tmp_path)
    assert second.rows(COUNT) == [(1,)]
    second.close()


def test_jobs_of_the_first_format_ended_when_they_were_made(tmp_path: Path) -> None:
    connection = raw(tmp_path)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for job_id, state in (("a", 4), ("b", 2)):
        connection.execute("INSERT INTO jobs VALUES (?, 'alice', '', ?, 17, NULL, x'')", (job_id, state))
    connection.close()
    database = Database.open(tmp_path)
    rows = database.rows("SELECT id, ended_unix_nano, output_bytes FROM jobs ORDER BY id")
    assert rows == [("a", 17, None), ("b", None, None)]
    database.close()


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    Database.open(tmp_path).close()
    connection = raw(tmp_path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(FailedPrecondition, match=f"has format {len(MIGRATIONS) + 1}") as raised:
        Database.open(tmp_path)
    assert "newer version" in raised.value.hint
    connection = raw(tmp_path)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    connection.close()


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    connection = raw(tmp_path)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    with pytest.raises(FailedPrecondition, match="another program"):
        Database.open(tmp_path)
    connection = raw(tmp_path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]
    connection.close()


@pytest.mark.parametrize(
    "content",
    [b"not a database, but long enough to be looked at " * 50, b"SQLite format 3\0" + b"\xff" * 4096],
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(FailedPrecondition, match=r"damaged, or not a database") as raised:
        Database.open(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(FailedPrecondition, match="cannot open"):
        Database.open(tmp_path)


def test_damage_found_later_is_an_internal_error(tmp_path: Path) -> None:
    database = Database.open(tmp_path)
    for number in range(500):
        database.write((ADD, (f"{number:040}",)))
    database.close()
    content = bytearray((tmp_path / FILE_NAME).read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    (tmp_path / FILE_NAME).write_bytes(content)
    database = Database.open(tmp_path)  # whose first pages, with the tables' names, are sound
    with pytest.raises(Internal, match="damaged"):
        database.rows("SELECT * FROM labels")
    database.close()


def test_two_processes_may_create_it_at_once(tmp_path: Path) -> None:
    code = f"from pathlib import Path\nfrom jobworker.store import Database\nDatabase.open(Path({str(tmp_path)!r})).close()"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]


def test_all_statements_of_a_write_or_none(tmp_path: Path) -> None:
    database = Database.open(tmp_path)
    database.write((ADD, ("taken",)))
    with pytest.raises(Conflict, match=r"labels.job_id, labels.key"):
        database.write((ADD, ("fresh",)), (ADD, ("taken",)))
    assert database.rows(COUNT) == [(1,)]
    database.write((ADD, ("fresh",)))
    database.close()


def test_an_error_inside_durably_undoes_it(tmp_path: Path) -> None:
    database = Database.open(tmp_path)

    def fail() -> None:
        with database.durably():
            database.write((ADD, ("a",)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert database.rows(COUNT) == [(0,)]
    assert database.rows("PRAGMA synchronous") == [(1,)]
    database.close()


def test_without_a_loop_later_is_now(tmp_path: Path) -> None:
    database, other = Database.open(tmp_path), Database.open(tmp_path)
    database.later("a", lambda: (ADD, ("a",)))
    assert other.rows(COUNT) == [(1,)]
    database.close()
    other.close()


async def test_later_writes_each_key_once_in_one_transaction(tmp_path: Path) -> None:
    database, other = Database.open(tmp_path, loop=asyncio.get_running_loop()), Database.open(tmp_path)
    before = other.changes_by_others()
    written = asyncio.Event()

    def last() -> tuple[str, tuple[str]]:
        written.set()
        return ADD, ("c",)

    database.later("a", lambda: (ADD, ("a",)))
    database.later("b", lambda: (ADD, ("b",)))
    database.later("b", lambda: (ADD, ("other b",)))
    database.later("c", last)
    assert other.rows(COUNT) == [(0,)]
    await asyncio.wait_for(written.wait(), timeout=10)
    assert other.rows("SELECT job_id FROM labels") == [("a",), ("c",), ("other b",)]
    assert other.changes_by_others() != before
    database.close()
    other.close()


async def test_reads_and_closing_see_what_was_written_behind(tmp_path: Path) -> None:
    database = Database.open(tmp_path, loop=asyncio.get_running_loop())
    database.later("a", lambda: (ADD, ("a",)))
    assert database.rows(COUNT) == [(1,)]
    database.later("b", lambda: (ADD, ("b",)))
    database.later("c", lambda: (ADD, ("c",)))
    database.forget("c")
    database.close()
    again = Database.open(tmp_path)
    assert again.rows(COUNT) == [(2,)]
    again.close()


class Listener(logging.Handler):
    """Waits for something to be logged."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def emit(self, record: logging.LogRecord) -> None:
        if not self.heard.done():
            self.heard.set_result(record.getMessage())


async def test_what_cannot_be_written_behind_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobworker.store.database.RETRY_SECONDS", 0.01)
    listener = Listener()
    logging.getLogger("jobworker.store.database").addHandler(listener)
    database = Database.open(tmp_path, loop=asyncio.get_running_loop())
    database.rows("PRAGMA busy_timeout = 0")
    blocker = raw(tmp_path)
    blocker.execute("BEGIN IMMEDIATE")
    written = asyncio.Event()

    def statement() -> tuple[str, tuple[str]]:
        written.set()
        return ADD, ("a",)

    database.later("a", statement)
    assert "database is locked; trying again" in await asyncio.wait_for(listener.heard, timeout=10)
    logging.getLogger("jobworker.store.database").removeHandler(listener)
    assert not written.is_set()
    with pytest.raises(Unavailable, match="locked"):
        database.write((ADD, ("b",)))
    blocker.execute("ROLLBACK")
    blocker.close()
    await asyncio.wait_for(written.wait(), timeout=10)
    assert raw_count(tmp_path) == 1
    database.close()


async def test_the_wal_is_copied_back_by_a_thread_and_used_again(tmp_path: Path) -> None:
    database = Database.open(tmp_path, loop=asyncio.get_running_loop())
    sizes = []
    for _ in range(3):
        while database._checkpointing is None or database._checkpointing.done():
            database.write((ADD, (os.urandom(8).hex(),)))
        await database._checkpointing
        sizes.append((tmp_path / f"{FILE_NAME}-wal").stat().st_size)
    assert (tmp_path / FILE_NAME).stat().st_size > 10 * 4096
    assert sizes[2] < 1.5 * sizes[0]
    database.close()


def raw_count(directory: Path) -> int:
    connection = raw(directory)
    count = connection.execute(COUNT).fetchone()[0]
    connection.close()
    return int(count)


def test_a_full_disk_is_unavailable_and_nothing_is_half_written(tmp_path: Path) -> None:
    database = Database.open(tmp_path)
    pages = database.rows("PRAGMA page_count")[0][0]
    database.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="full") as raised:
        database.write(*((ADD, (f"{number:0200}",)) for number in range(500)))
    assert "room" in raised.value.hint
    assert database.rows(COUNT) == [(0,)]
    database.close()


def test_a_committed_write_survives_kill_9(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom jobworker.store import Database\n"
        f"database = Database.open(Path({str(tmp_path)!r}))\n"
        f"database.write(({ADD!r}, ('a',)))\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    database = Database.open(tmp_path)
    assert database.rows(COUNT) == [(1,)]
    database.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FailedPrecondition, match="cannot open"):
        Database.open(tmp_path)
