"""Who did what, from where, with what result: rows that are only ever added.

Written behind with everything else of the same turn, so that an entry costs a request next to nothing;
the database itself refuses to change or erase one. Who reads it uses SQL.
"""

from __future__ import annotations

from jobworker.store.database import Database, Statement

INSERT = "INSERT INTO audit (unix_nano, client, verb, job, peer, decision, result) VALUES (?,?,?,?,?,?,?)"


class AuditStore:
    """The audit table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(
        self, *, unix_nano: int, client: str, verb: str, job: str, peer: str, decision: str, result: str
    ) -> None:
        """Adds an entry: `decision` "allowed" or "denied", `result` a word for how it came out ("ok")."""
        statement: Statement = (INSERT, (unix_nano, client, verb, job, peer, decision, result))
        self._database.later(object(), lambda: statement)
