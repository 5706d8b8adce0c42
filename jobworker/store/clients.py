"""Registered clients: public key to name, role, and whom its jobs run as.

Decides that a name and a key belong together for ever (a revoked name may get a new key, a key never
another name), and which uid a client gets. A change is on the disk before it is answered: a revocation
must not come undone in a power cut. Reads see what other processes wrote, at once.
"""

from __future__ import annotations

import re
from typing import cast

from generated.jobworker.v1 import ClientRecord, Role
from jobwire.codec import decode
from jobwire.scalars import EPOCH, MICROSECOND
from jobworker import unixusers
from jobworker.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from jobworker.settingvalues import UidRange
from jobworker.store.database import Database

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
ROLES = frozenset(role for role in Role if role)

COLUMNS = "client_id, role, key_sha256, unix_user, uid, registered_unix_nano, revoked_unix_nano"
SELECT = f"SELECT {COLUMNS} FROM clients"  # noqa: S608 - fixed texts
UPSERT = (
    f"INSERT INTO clients ({COLUMNS}) VALUES (?,?,?,?,?,?,NULL) ON CONFLICT (client_id) DO UPDATE SET "  # noqa: S608
    "role = excluded.role, key_sha256 = excluded.key_sha256, unix_user = excluded.unix_user, "
    "registered_unix_nano = excluded.registered_unix_nano, revoked_unix_nano = NULL"
)
REVOKE = "UPDATE clients SET revoked_unix_nano = ? WHERE client_id = ? AND revoked_unix_nano IS NULL"

Row = tuple[str, int, bytes, str | None, int, int, int | None]
Rows = list[Row]  # the name `list` is a method's below
Records = list[ClientRecord]


class ClientStore:
    """The clients table."""

    def __init__(self, database: Database, *, uid_range: UidRange) -> None:
        self._database = database
        self._uid_range = uid_range
        self._by_key: dict[bytes, ClientRecord] = {}
        self._seen = -1

    def by_key(self, sha256: bytes) -> ClientRecord | None:
        """The client of this public key, a revoked one too; a few microseconds, so ask for every request."""
        version = self._database.changes_by_others()
        if version != self._seen:
            self._seen = version
            self._by_key.clear()
        known = self._by_key.get(sha256)
        if known is None:
            rows = self._rows(" WHERE key_sha256 = ?", sha256)
            if rows:
                known = self._by_key[sha256] = _record(rows[0])
        return known

    def add(
        self, client_id: str, *, role: Role, key_sha256: bytes, unix_user: str | None, unix_nano: int
    ) -> ClientRecord:
        """Registers a client, or a revoked one again; it keeps its uid.

        Raises InvalidArgument, AlreadyExists (the name, or the key under whatever name), ResourceExhausted.
        """
        _check(client_id, role, key_sha256, unix_user)
        uid = None
        while uid is None:
            spare = self._spare_uid()
            with self._database.durably():
                uid = self._uid_for(client_id, key_sha256, spare=spare)
                if uid is not None:
                    values = (client_id, int(role), key_sha256, unix_user, uid, unix_nano)
                    self._database.write((UPSERT, values))
        return self._get(client_id)

    def list(self) -> Records:
        """All clients, revoked ones too, by name."""
        return [_record(row) for row in self._rows(" ORDER BY client_id")]

    def revoke(self, client_id: str, *, unix_nano: int) -> ClientRecord:
        """Turns a client away from now on; NotFound. One that was revoked before stays as it was."""
        with self._database.durably():
            self._database.write((REVOKE, (unix_nano, client_id)))
        return self._get(client_id)

    def _get(self, client_id: str) -> ClientRecord:
        self._by_key.clear()
        rows = self._rows(" WHERE client_id = ?", client_id)
        if not rows:
            raise NotFound(f"no client '{client_id}'", hint="jobworker client list shows them")
        return _record(rows[0])

    def _rows(self, where: str, *values: object) -> Rows:
        """Nothing of a client is ever written behind."""
        return cast("Rows", self._database.committed_rows(SELECT + where, values))

    def _uid_for(self, client_id: str, key_sha256: bytes, *, spare: int | None) -> int | None:
        """The uid that this name has or gets, None when the spare one was given to another client meanwhile.

        Raises AlreadyExists when the name or the key is taken, ResourceExhausted when a uid is needed and none is spare.
        """
        namesake = self._rows(" WHERE client_id = ?", client_id)
        if namesake and namesake[0][6] is None:
            raise AlreadyExists(
                f"client '{client_id}' is registered already", hint="revoke it first, or take another name"
            )
        holder = self._rows(" WHERE key_sha256 = ?", key_sha256)
        if holder and holder[0][0] != client_id:
            revoked = "" if holder[0][6] is None else ", which was revoked"
            raise AlreadyExists(
                f"this public key is registered already, as client '{holder[0][0]}'{revoked}",
                hint="one key is one client; issue a certificate with a key of its own",
            )
        if namesake:
            return namesake[0][4]
        if spare is None:
            raise ResourceExhausted(
                f"no uid from {self._uid_range} is left", hint="give a larger --uid-range, or --unix-user"
            )
        return None if spare in self._given() else spare

    def _spare_uid(self) -> int | None:
        """A uid that neither a client nor the host has.

        Never asked for within a transaction: the host's user database may be a network away, and all writers wait.
        """
        given = self._given()
        uids = range(self._uid_range.first, self._uid_range.last + 1)
        return next((uid for uid in uids if uid not in given and unixusers.by_uid(uid) is None), None)

    def _given(self) -> set[int]:
        return {row[4] for row in self._rows("")}


def _check(client_id: str, role: Role, key_sha256: bytes, unix_user: str | None) -> None:
    if not NAME.fullmatch(client_id):
        raise InvalidArgument(
            f"'{client_id}' cannot be a client's name",
            field="client_id",
            hint="letters, digits and . _ @ -, 64 at most, beginning with a letter or digit",
        )
    if role not in ROLES:
        names = ", ".join(str(role.name).lower() for role in Role if role)
        raise InvalidArgument("a client needs a role", field="role", hint=f"one of {names}")
    if len(key_sha256) != 32:
        raise InvalidArgument("a key's SHA-256 has 32 bytes", field="certificate")
    if unix_user is not None and unixusers.by_name(unix_user) is None:
        raise InvalidArgument(f"no user '{unix_user}' on this host", field="unix_user")


def _record(row: Row) -> ClientRecord:
    client_id, role, key_sha256, unix_user, uid, registered, revoked = row
    record = decode(ClientRecord, b"")  # cheaper than the constructor
    record.client_id = client_id
    record.role = Role.try_value(role)
    record.public_key_sha256 = key_sha256
    record.registered_at = EPOCH + registered // 1000 * MICROSECOND
    record.revoked_at = None if revoked is None else EPOCH + revoked // 1000 * MICROSECOND
    record.unix_user = unix_user
    record.uid = uid if unix_user is None else None
    return record
