"""One SQLite file, opened safely, written now or behind.

Decides durability. The journal is a WAL with synchronous=NORMAL: a commit is in the kernel's hands when it
returns, so killing the process loses nothing that was committed, in particular not the intent that is
written before a job is launched. A power cut can lose the last commits (never the file's consistency) that
nobody has synced; each commit is told to who may do so. What must survive even that is written with `durably`.

Writes that something else can tell again after a crash are written behind: collected for a moment, the
last of each key only, and committed together. The WAL is copied back into the file by a thread, since that
waits for the disk. Knows no table but its own version.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from pathlib import Path

from jobworker.errors import FailedPrecondition, Internal, JobworkerError, Unavailable
from jobworker.store.schema import APPLICATION_ID, MIGRATIONS

FILE_NAME = "jobs.db"
WAL_NAME = FILE_NAME + "-wal"
BUSY_SECONDS = 5.0  # how long another process (`jobworker client add`) may hold the write lock
BEHIND_SECONDS = 0.02  # long enough that a short job's whole life is one write
RETRY_SECONDS = 1.0  # a full disk tells nobody when it has room again
CHECKPOINT_COMMITS = 250  # about a thousand pages of WAL
CHECKPOINT_PAGES = 8000  # where the thread cannot keep up, the writer itself catches up here

Values = Sequence[object]
Statement = tuple[str, Values]
Row = tuple[object, ...]

logger = logging.getLogger(__name__)


class Conflict(Exception):
    """A row with this key is there already; `columns` as SQLite names them ("jobs.id")."""

    def __init__(self, columns: str) -> None:
        super().__init__(columns)
        self.columns = columns


class Database:
    """An open jobs.db; used from one thread. With a loop, `later` writes behind; without, at once.

    `committed` is called after each commit.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        loop: asyncio.AbstractEventLoop | None,
        committed: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection
        self._path = path
        self._execute = connection.execute
        self._loop = loop
        self._behind: dict[Hashable, Callable[[], Statement]] = {}
        self._timer: asyncio.Handle | None = None
        self._told = committed
        self._commits = 0
        self._checkpointing: asyncio.Future[None] | None = None

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        committed: Callable[[], None] | None = None,
    ) -> Database:
        """Opens, makes or migrates <directory>/jobs.db; FailedPrecondition when it is not one we can use."""
        path = directory / FILE_NAME
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
        except (OSError, sqlite3.Error) as error:
            raise FailedPrecondition(f"cannot open '{path}': {error}") from error
        try:
            _prepare(connection, path)
            if loop is not None:
                connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        except BaseException:
            connection.close()
            raise
        return cls(connection, path, loop=loop, committed=committed)

    def rows(self, sql: str, values: Values = ()) -> list[Row]:
        """All rows of a query, what was written behind included."""
        if self._behind:
            self.flush()
        return self.committed_rows(sql, values)

    def committed_rows(self, sql: str, values: Values = ()) -> list[Row]:
        """All rows of a query to which nothing that is still to be written matters."""
        return list(self.each_committed_row(sql, values))

    def each_committed_row(self, sql: str, values: Values = ()) -> Generator[Row, None, None]:
        """The same, read row by row: who has enough stops, and closes it."""
        with _border():
            yield from self._execute(sql, values)

    def write(self, *statements: Statement) -> None:
        """All of the statements or none, committed; raises Conflict where a key is taken."""
        if len(statements) == 1:
            with _border():
                self._execute(*statements[0])
            self._committed()
            return
        with _border(), self._transaction():
            for sql, values in statements:
                self._execute(sql, values)

    @contextlib.contextmanager
    def durably(self) -> Iterator[None]:
        """What is read and written inside is one transaction, alone, and on the disk when the block is left."""
        self.flush()
        with _border():
            self._execute("PRAGMA synchronous = FULL")
            try:
                with self._transaction():
                    yield
            finally:
                self._execute("PRAGMA synchronous = NORMAL")

    def later(self, key: Hashable, make: Callable[[], Statement]) -> None:
        """Writes what `make` gives, a moment later; only the last `make` of a key counts."""
        self._behind[key] = make
        if self._loop is None:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(BEHIND_SECONDS, self._flush_in_loop)

    def settle(self, key: Hashable) -> None:
        """Writes what was to be written later, if something of this key is among it."""
        if key in self._behind:
            self.flush()

    def forget(self, key: Hashable) -> None:
        """Drops what was to be written later under this key."""
        self._behind.pop(key, None)

    def flush(self) -> None:
        """Writes everything that was to be written later; on an error it stays to be written."""
        if not self._behind:
            return
        with _border(), self._transaction():
            for key, make in list(self._behind.items()):
                try:
                    statement = make()
                except Exception:  # a defect in one record must not keep all others from the disk
                    logger.exception("%r cannot be written, and is not", key)
                else:
                    self._execute(*statement)
        self._behind.clear()

    def changes_by_others(self) -> int:
        """A number that is another one after another process has changed the file."""
        with _border():
            return int(self._execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Writes what was left for later, and closes the file."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            self.flush()
        finally:
            self._connection.close()

    def _flush_in_loop(self) -> None:
        self._timer = None
        try:
            self.flush()
        except JobworkerError as error:
            logger.error("%s; trying again", error)
            assert self._loop is not None
            self._timer = self._loop.call_later(RETRY_SECONDS, self._flush_in_loop)

    def _committed(self) -> None:
        if self._told is not None:
            self._told()
        self._commits += 1
        if self._loop is None or self._commits < CHECKPOINT_COMMITS:
            return
        if self._checkpointing is None or self._checkpointing.done():
            self._commits = 0
            self._checkpointing = self._loop.run_in_executor(None, _checkpoint, self._path)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
            self._committed()
        except BaseException:
            if self._connection.in_transaction:  # some errors have rolled back by themselves
                self._execute("ROLLBACK")
            raise


@contextlib.contextmanager
def _border() -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise Conflict(str(error).rpartition(": ")[2]) from error
    except sqlite3.OperationalError as error:
        raise Unavailable(
            f"the worker's database cannot be used at the moment: {error}",
            hint="see that its disk has room and that it can be written to",
        ) from error
    except sqlite3.DatabaseError as error:
        raise Internal(f"the worker's database is damaged: {error}") from error


def _checkpoint(path: Path) -> None:
    """Copies the WAL into the file as far as nobody is disturbed; in a thread, with a connection of its own."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        logger.warning("the database's write-ahead log could not be copied back: %s", error)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    try:
        _refuse_foreign(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        _migrate(connection, path)
    except sqlite3.OperationalError as error:
        raise FailedPrecondition(f"cannot use '{path}': {error}") from error
    except sqlite3.DatabaseError as error:
        raise FailedPrecondition(
            f"'{path}' is damaged, or not a database: {error}",
            hint="give another --state, or restore the file from a copy",
        ) from error


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and tables:
        raise FailedPrecondition(f"'{path}' is the database of another program", hint="give another --state")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")  # another process may be doing the same
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise FailedPrecondition(
                f"'{path}' has format {version}, this version knows formats up to {len(MIGRATIONS)}",
                hint="run the newer version that wrote it, or give another --state",
            )
        for step in MIGRATIONS[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
