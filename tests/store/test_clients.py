"""Clients: names, keys and uids that stay together, and changes that other processes see at once."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from generated.jobworker.v1 import Role
from jobworker import unixusers
from jobworker.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from jobworker.policy import ADMIN, OPERATOR
from jobworker.settingvalues import UidRange
from jobworker.store import AuditStore, ClientStore, Database
from jobworker.store.database import Conflict

UIDS = UidRange(61184, 61187)
ALICE, BOB = b"a" * 32, b"b" * 32
NOW = 1_767_225_600_123_456_789


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[ClientStore]:
    database = Database.open(tmp_path)
    yield ClientStore(database, uid_range=UIDS)
    database.close()


def add(
    clients: ClientStore,
    name: str = "alice",
    key: bytes = ALICE,
    *,
    role: Role = OPERATOR,
    user: str | None = None,
) -> int | None:
    return clients.add(name, role=role, key_sha256=key, unix_user=user, unix_nano=NOW).uid


def test_a_client_is_found_by_its_key(clients: ClientStore) -> None:
    add(clients)
    found = clients.by_key(ALICE)
    assert found is not None
    assert (found.client_id, found.role, found.uid, found.unix_user) == ("alice", OPERATOR, 61184, None)
    assert found.registered_at.isoformat() == "2026-01-01T00:00:00.123456+00:00"
    assert found.revoked_at is None
    assert clients.by_key(BOB) is None


def test_a_key_of_another_name_is_refused_even_when_revoked(clients: ClientStore) -> None:
    add(clients)
    with pytest.raises(AlreadyExists, match=r"registered already, as client 'alice'$"):
        add(clients, "bob")
    clients.revoke("alice", unix_nano=NOW)
    with pytest.raises(AlreadyExists, match="as client 'alice', which was revoked"):
        add(clients, "bob")


def test_a_name_in_use_is_refused(clients: ClientStore) -> None:
    add(clients)
    with pytest.raises(AlreadyExists, match="client 'alice' is registered already") as raised:
        add(clients, "alice", BOB)
    assert "revoke" in raised.value.hint
    with pytest.raises(AlreadyExists):
        add(clients)


def test_revoking_is_seen_and_stays_as_it_was_first(clients: ClientStore) -> None:
    add(clients)
    assert clients.by_key(ALICE) is not None
    first = clients.revoke("alice", unix_nano=NOW).revoked_at
    assert first is not None
    assert clients.revoke("alice", unix_nano=NOW + 10**9).revoked_at == first
    found = clients.by_key(ALICE)
    assert found is not None
    assert found.revoked_at == first
    with pytest.raises(NotFound, match="no client 'zed'"):
        clients.revoke("zed", unix_nano=NOW)


def test_a_revoked_name_may_get_a_new_key_and_keeps_its_uid(clients: ClientStore) -> None:
    uid = add(clients)
    clients.revoke("alice", unix_nano=NOW)
    assert add(clients, "alice", BOB, role=ADMIN) == uid
    assert clients.by_key(ALICE) is None
    found = clients.by_key(BOB)
    assert found is not None
    assert found.role == ADMIN
    assert found.revoked_at is None


def test_uids_are_given_once_and_run_out(clients: ClientStore) -> None:
    given = [add(clients, f"c{number}", bytes([number]) * 32) for number in range(3)]
    clients.revoke("c1", unix_nano=NOW)
    given.append(add(clients, "c3", b"3" * 32))
    assert given == [61184, 61185, 61186, 61187]
    with pytest.raises(ResourceExhausted, match="no uid from 61184-61187 is left"):
        add(clients, "c4", b"4" * 32)


def test_a_uid_that_the_host_knows_is_not_given(tmp_path: Path) -> None:
    nobody = unixusers.by_name("nobody")
    if nobody is None:
        pytest.skip("this host has no user nobody")
    database = Database.open(tmp_path)
    clients = ClientStore(database, uid_range=UidRange(nobody.uid, nobody.uid + 1))
    assert add(clients) == nobody.uid + 1
    database.close()


def test_nobody_waits_while_the_host_is_asked_and_no_uid_is_given_twice(
    tmp_path: Path, clients: ClientStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's user database may take its time; meanwhile another process registers clients, to its end."""
    database = Database.open(tmp_path)
    others = ClientStore(database, uid_range=UIDS)
    names = iter(("bob", "carol"))
    asked: list[int] = []

    def ask(uid: int) -> None:
        asked.append(uid)
        if len(asked) == 1:  # the others ask as well
            for name in names:
                add(others, name, name.encode().ljust(32))

    monkeypatch.setattr(unixusers, "by_uid", ask)
    assert add(clients) == 61186
    assert asked == [61184, 61184, 61185, 61186]
    assert [(c.client_id, c.uid) for c in clients.list()] == [
        ("alice", 61186),
        ("bob", 61184),
        ("carol", 61185),
    ]
    database.close()


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_who_was_faster_with_the_name_or_the_key_has_it(
    tmp_path: Path, clients: ClientStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    database = Database.open(tmp_path)
    others = ClientStore(database, uid_range=UIDS)
    key = BOB if name == "alice" else ALICE

    def ask(uid: int) -> None:
        monkeypatch.undo()
        add(others, name, key)

    monkeypatch.setattr(unixusers, "by_uid", ask)
    with pytest.raises(AlreadyExists):
        add(clients)
    assert [c.client_id for c in clients.list()] == [name]
    database.close()


def test_a_client_that_comes_back_needs_no_free_uid(clients: ClientStore) -> None:
    given = [add(clients, f"c{number}", bytes([number]) * 32) for number in range(4)]
    clients.revoke("c1", unix_nano=NOW)
    assert add(clients, "c1", ALICE) == given[1]
    with pytest.raises(AlreadyExists):
        add(clients, "c1", BOB)


def test_a_unix_user_is_kept_in_place_of_a_uid(clients: ClientStore) -> None:
    assert add(clients, user="root") is None
    found = clients.by_key(ALICE)
    assert found is not None
    assert found.unix_user == "root"


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a\n", "\N{SNOWMAN}", "a" * 65, ".."])
def test_names_are_plain(clients: ClientStore, name: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        add(clients, name)
    assert raised.value.field == "client_id"


def test_role_key_and_user_must_be_real(clients: ClientStore) -> None:
    for role in (Role(Role.UNSPECIFIED), Role.try_value(9)):
        with pytest.raises(InvalidArgument) as raised:
            add(clients, role=role)
        assert raised.value.field == "role"
    with pytest.raises(InvalidArgument) as raised:
        add(clients, key=b"short")
    assert raised.value.field == "certificate"
    for user in ("no-such-user", "a\0b", ""):
        with pytest.raises(InvalidArgument) as raised:
            add(clients, user=user)
        assert raised.value.field == "unix_user"
    assert clients.list() == []


def test_the_list_is_by_name_and_whole(clients: ClientStore) -> None:
    add(clients, "bob", BOB)
    add(clients)
    clients.revoke("bob", unix_nano=NOW)
    assert [(c.client_id, c.revoked_at is not None) for c in clients.list()] == [
        ("alice", False),
        ("bob", True),
    ]


def test_another_process_is_seen_at_once(tmp_path: Path, clients: ClientStore) -> None:
    add(clients)
    before = clients.by_key(ALICE)
    assert before is not None
    assert before.revoked_at is None
    code = (
        "from pathlib import Path\nfrom jobworker.store import Database, ClientStore\n"
        "from jobworker.settingvalues import UidRange\n"
        f"database = Database.open(Path({str(tmp_path)!r}))\n"
        "clients = ClientStore(database, uid_range=UidRange(61184, 61187))\n"
        f"clients.revoke('alice', unix_nano={NOW})\n"
        f"print(clients.add('bob', role=clients.list()[0].role, key_sha256={BOB!r}, unix_user=None, unix_nano={NOW}).uid)\n"
        "database.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout == "61185\n"
    after = clients.by_key(ALICE)
    assert after is not None
    assert after.revoked_at is not None
    assert clients.by_key(BOB) is not None


def test_audit_is_append_only(tmp_path: Path) -> None:
    database = Database.open(tmp_path)
    audit = AuditStore(database)
    for result in ("ok", "not_found"):
        audit.append(
            unix_nano=NOW,
            client="alice",
            verb="StopJob",
            job="j",
            peer="127.0.0.1:5",
            decision="allowed",
            result=result,
        )
    assert database.rows("SELECT client, verb, result FROM audit ORDER BY id") == [
        ("alice", "StopJob", "ok"),
        ("alice", "StopJob", "not_found"),
    ]
    for statement in ("DELETE FROM audit", "UPDATE audit SET client = 'bob'"):
        with pytest.raises(Conflict, match="append-only"):
            database.write((statement, ()))
    assert len(database.rows("SELECT * FROM audit")) == 2
    database.close()
