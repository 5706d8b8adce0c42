"""Job records: written by `Jobs` alone, found by id, by request, or page by page.

Decides how a search becomes a query. Pages are the stored bytes, newest first, and go on exactly after the
last row given, whatever was started or deleted meanwhile. What an encoded record says of itself is not
looked at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from jobwire.codec import encode
from jobworker import records
from jobworker.errors import AlreadyExists, Unavailable
from jobworker.lifecycle import ENDED
from jobworker.store.database import Conflict, Database, Statement

if TYPE_CHECKING:
    from datetime import datetime

    from generated.jobworker.v1 import JobRecord

INSERT = (
    "INSERT INTO jobs (id, owner, name, state, created_unix_nano, request_id, record, ended_unix_nano)"
    " VALUES (?,?,?,?,?,?,?,?)"
)
INSERT_LABEL = "INSERT INTO labels (job_id, key, value) VALUES (?,?,?)"
UPDATE = "UPDATE jobs SET state = ?, record = ?, ended_unix_nano = ? WHERE id = ?"
UPDATE_BYTES = "UPDATE jobs SET output_bytes = ? WHERE id = ?"
SELECT = "SELECT record FROM jobs WHERE id = ?"
SELECT_REQUEST = "SELECT id FROM jobs WHERE owner = ? AND request_id = ?"
SELECT_UNFINISHED = "SELECT id, owner, record FROM jobs WHERE state <> 4 ORDER BY created_unix_nano, id"
SELECT_IDS = "SELECT id FROM jobs"
DELETE = "DELETE FROM jobs WHERE id = ?"
DELETE_LABELS = "DELETE FROM labels WHERE job_id = ?"
SELECT_BYTES = "SELECT ifnull(output_bytes, 0) FROM jobs WHERE id = ?"
SELECT_OLDEST = (
    "SELECT id, ended_unix_nano, ifnull(output_bytes, 0) FROM jobs WHERE ended_unix_nano IS NOT NULL"
    " ORDER BY ended_unix_nano, id LIMIT ?"
)
SELECT_UNMEASURED = "SELECT id FROM jobs WHERE ended_unix_nano IS NOT NULL AND output_bytes IS NULL"
TOTALS = "SELECT count(*), ifnull(sum(output_bytes), 0) FROM jobs WHERE ended_unix_nano IS NOT NULL"
HIGHEST_CHARACTER = "\U0010ffff"
PAGE_BYTES = 4 << 20  # a client takes larger messages, and nobody wants to wait for them


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the key of its last row."""

    created_unix_nano: int
    job_id: str


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for; everything given must hold. `states` empty means all."""

    owner: str = ""
    name: str = ""
    id_prefix: str = ""
    states: frozenset[int] = frozenset()
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of a page."""

    position: Position
    record: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended, at `ended_ns`; its output takes `size` bytes on the disk."""

    job_id: str
    ended_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Ended jobs, and what they take together on the disk in bytes."""

    jobs: int
    size: int


class JobStore:
    """The jobs table and its labels."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, record: JobRecord, *, created_unix_nano: int, request_id: str) -> None:
        """A new job, committed when it returns; AlreadyExists when the id, or the owner's request, is there."""
        fields = records.given(record)
        spec, job_id = records.given(fields["spec"]), fields["job_id"]
        values = (
            job_id,
            fields["owner"],
            spec.get("name", ""),
            int(fields["state"]),
            created_unix_nano,
            request_id or None,
            encode(record),
            _ended_ns(fields),
        )
        labels = [(INSERT_LABEL, (job_id, key, value)) for key, value in spec.get("labels", {}).items()]
        try:
            self._database.write((INSERT, values), *labels)
        except Conflict as conflict:
            what = f"job '{job_id}'" if conflict.columns == "jobs.id" else f"a job of request '{request_id}'"
            raise AlreadyExists(f"{what} is there already", job_id=job_id) from conflict

    def update(self, record: JobRecord) -> None:
        """Writes the record behind, as it is then; a crash before that loses the change, not the job."""

        fields = records.fields(record)

        def statement() -> Statement:
            return UPDATE, (int(fields["state"]), encode(record), _ended_ns(fields), fields["job_id"])

        self._database.later(fields["job_id"], statement)

    def update_now(self, record: JobRecord) -> None:
        """As `update`, but committed when it returns, unless the disk refuses: then that is tried again."""
        self.update(record)
        with contextlib.suppress(Unavailable):
            self._database.flush()

    def flush(self) -> None:
        """Writes all that was to be written later; Unavailable when that cannot be done now."""
        self._database.flush()

    def get(self, job_id: str) -> bytes | None:
        """The encoded record; Unavailable when its last change cannot be written."""
        self._database.settle(job_id)
        rows = self._database.committed_rows(SELECT, (job_id,))
        return cast("bytes", rows[0][0]) if rows else None

    def by_request(self, owner: str, request_id: str) -> bytes | None:
        """The encoded record of the job that this owner's request started."""
        ids = self._database.committed_rows(SELECT_REQUEST, (owner, request_id))
        return self.get(cast("str", ids[0][0])) if ids else None

    def page(
        self, search: Search, *, after: Position | None, limit: int, max_bytes: int = PAGE_BYTES
    ) -> tuple[list[Stored], bool]:
        """Up to `limit` records, newest first, from the one that follows `after`, and whether there are more.

        Together they have at most `max_bytes`, but for a first one that is larger by itself. While the disk refuses
        writes, records may be as they were a while ago.
        """
        sql, values = _query(search, after)
        with contextlib.suppress(Unavailable):
            self._database.flush()
        page: list[Stored] = []
        size = 0
        with contextlib.closing(
            self._database.each_committed_row(f"{sql} LIMIT ?", (*values, limit + 1))
        ) as rows:
            for created, job_id, record in cast("Iterator[tuple[int, str, bytes]]", rows):
                size += len(record)
                if len(page) == limit or (page and size > max_bytes):
                    return page, True
                page.append(Stored(Position(created, job_id), record))
        return page, False

    def unfinished(self) -> list[tuple[str, str, bytes]]:
        """Id, owner and encoded record of every job that has not ended, oldest first."""
        return cast("list[tuple[str, str, bytes]]", self._database.rows(SELECT_UNFINISHED))

    def ids(self) -> set[str]:
        """The ids of all jobs."""
        return {cast("str", row[0]) for row in self._database.rows(SELECT_IDS)}

    def set_output_bytes(self, job_id: str, size: int) -> None:
        """Writes behind what the output of an ended job takes on the disk; a crash before that loses it."""
        self._database.later((job_id, UPDATE_BYTES), lambda: (UPDATE_BYTES, (size, job_id)))

    def unmeasured(self) -> list[str]:
        """The ended jobs of which nobody has written that down; while the disk refuses writes, as far as it is known."""
        with contextlib.suppress(Unavailable):
            self._database.flush()
        return [cast("str", row[0]) for row in self._database.committed_rows(SELECT_UNMEASURED)]

    def oldest_ended(self, limit: int) -> list[Ended]:
        """Up to `limit` jobs, in the order in which they ended."""
        rows = cast("list[tuple[str, int, int]]", self._database.rows(SELECT_OLDEST, (limit,)))
        return [Ended(*row) for row in rows]

    def ended_totals(self) -> Totals:
        """How many jobs have ended, and what they take; while the disk refuses writes, as far as it is known."""
        with contextlib.suppress(Unavailable):
            self._database.flush()
        return Totals(*cast("tuple[int, int]", self._database.committed_rows(TOTALS)[0]))

    def delete(self, job_ids: Sequence[str]) -> Totals:
        """Forgets jobs, all or none; what they were. Those that are not there do not count."""
        statements: list[Statement] = []
        sizes: list[int] = []
        for job_id in job_ids:
            sizes += (cast("int", row[0]) for row in self._database.rows(SELECT_BYTES, (job_id,)))
            statements += ((DELETE, (job_id,)), (DELETE_LABELS, (job_id,)))
        self._database.write(*statements)
        return Totals(len(sizes), sum(sizes))


def _ended_ns(fields: Mapping[str, object]) -> int | None:
    ended_at = cast("datetime | None", fields.get("ended_at"))
    return None if ended_at is None else records.unix_nano(ended_at)


def _query(search: Search, after: Position | None) -> tuple[str, list[object]]:
    conditions: list[tuple[str, tuple[object, ...]]] = []
    if search.owner:
        conditions.append(("owner = ?", (search.owner,)))
    if search.name:
        conditions.append(("name = ? AND name <> ''", (search.name,)))
    if search.id_prefix:
        conditions.append(("id >= ? AND id < ?", (search.id_prefix, search.id_prefix + HIGHEST_CHARACTER)))
    if search.states:
        marks = ",".join("?" * len(search.states))
        conditions.append((f"state IN ({marks})", tuple(sorted(search.states))))
        if ENDED not in search.states:
            conditions.append(("state <> 4", ()))  # the words of the index on unfinished jobs
    for key, value in sorted((search.labels or {}).items()):
        conditions.append(("id IN (SELECT job_id FROM labels WHERE key = ? AND value = ?)", (key, value)))
    if after is not None:
        conditions.append(("(created_unix_nano, id) < (?, ?)", (after.created_unix_nano, after.job_id)))
    where = " WHERE " + " AND ".join(text for text, _ in conditions) if conditions else ""
    sql = f"SELECT created_unix_nano, id, record FROM jobs{where} ORDER BY created_unix_nano DESC, id DESC"  # noqa: S608 - only fixed texts above
    return sql, [value for _, values in conditions for value in values]
