"""Job records: one of each kind of search against a plain Python oracle, and pages that skip and repeat nothing."""

import asyncio
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generated.jobworker.v1 import JobRecord, JobSpec
from jobwire.codec import decode
from jobworker.errors import AlreadyExists, Unavailable
from jobworker.lifecycle import ENDED, RUNNING, STARTING, STOPPING
from jobworker.store import Database, JobStore
from jobworker.store.jobrecords import SELECT_OLDEST, TOTALS, Position, Search, Totals, _query


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    database = Database.open(tmp_path)
    yield JobStore(database)
    database.close()


def record(
    job_id: str = "", *, owner: str = "alice", name: str = "", labels: dict[str, str] | None = None
) -> JobRecord:
    return JobRecord(
        job_id=job_id or str(uuid.uuid4()),
        owner=owner,
        spec=JobSpec(argv=["true"], name=name, labels=labels or {}),
        state=STARTING,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def add(store: JobStore, entry: JobRecord, *, created: int = 1, request_id: str = "") -> JobRecord:
    store.insert(entry, created_unix_nano=created, request_id=request_id)
    return entry


def find(store: JobStore, search: Search, *, limit: int = 100) -> list[str]:
    return [row.position.job_id for row in store.page(search, after=None, limit=limit)[0]]


def test_a_record_comes_back_as_it_was(store: JobStore) -> None:
    entry = add(store, record(name="build", labels={"ci": "42"}))
    stored = store.get(entry.job_id)
    assert stored is not None
    assert decode(JobRecord, stored) == entry
    assert store.get("no such id") is None


async def test_a_full_disk_leaves_what_is_counted_at_the_start_as_it_was(tmp_path: Path) -> None:
    database = Database.open(tmp_path, loop=asyncio.get_running_loop())
    store = JobStore(database)
    entry = add(store, record())
    pages = database.rows("PRAGMA page_count")[0][0]
    database.rows(f"PRAGMA max_page_count = {pages}")
    entry.state, entry.ended_at = ENDED, datetime(2026, 1, 2, tzinfo=UTC)
    entry.workdir = "/x" * 100_000  # the record does not fit any more
    store.update(entry)
    assert store.unmeasured() == []
    assert store.ended_totals() == Totals(0, 0)
    with pytest.raises(Unavailable, match="full"):
        store.get(entry.job_id)
    database.committed_rows("PRAGMA max_page_count = 100000")
    assert store.unmeasured() == [entry.job_id]
    assert store.ended_totals() == Totals(1, 0)
    database.close()


def test_update_replaces_record_and_state(store: JobStore) -> None:
    entry = add(store, record())
    entry.state = RUNNING
    entry.pid = 7
    store.update(entry)
    stored = store.get(entry.job_id)
    assert stored is not None
    assert decode(JobRecord, stored).pid == 7
    assert find(store, Search(states=frozenset({int(RUNNING)}))) == [entry.job_id]
    assert find(store, Search(states=frozenset({int(STARTING)}))) == []


def test_an_id_or_a_request_is_there_once(store: JobStore) -> None:
    first = add(store, record(), request_id="r")
    with pytest.raises(AlreadyExists, match=first.job_id) as raised:
        add(store, record(first.job_id, owner="bob"))
    assert raised.value.job_id == first.job_id
    with pytest.raises(AlreadyExists, match="request 'r'"):
        add(store, record(labels={"a": "b"}), request_id="r")
    assert find(store, Search()) == [first.job_id]
    assert find(store, Search(labels={"a": "b"})) == []


def test_requests_are_their_owners_and_optional(store: JobStore) -> None:
    mine = add(store, record(), request_id="r")
    theirs = add(store, record(owner="bob"), request_id="r")
    add(store, record())
    add(store, record())
    for owner, entry in (("alice", mine), ("bob", theirs)):
        stored = store.by_request(owner, "r")
        assert stored is not None
        assert decode(JobRecord, stored).job_id == entry.job_id
    assert store.by_request("carol", "r") is None
    assert store.by_request("alice", "") is None


def test_delete_takes_record_labels_and_request(store: JobStore) -> None:
    entry = add(store, record(labels={"ci": "1"}), request_id="r")
    assert store.delete([entry.job_id, "no such id"]).jobs == 1
    assert store.get(entry.job_id) is None
    assert find(store, Search(labels={"ci": "1"})) == []
    add(store, record(), request_id="r")
    assert store.delete(["no such id"]) == store.delete([]) == Totals(0, 0)


def test_ended_jobs_are_counted_and_known_in_their_order(store: JobStore) -> None:
    entries = [add(store, record(), created=number) for number in range(5)]
    assert (store.ended_totals(), store.oldest_ended(9)) == (Totals(0, 0), [])
    for entry, second in zip(entries[:4], (30, 10, 20, 10), strict=True):
        entry.state, entry.ended_at = ENDED, datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)
        store.update(entry)
    assert set(store.unmeasured()) == {entry.job_id for entry in entries[:4]}
    for size, entry in enumerate(entries[:3]):
        store.set_output_bytes(entry.job_id, size + 100)
    assert store.unmeasured() == [entries[3].job_id]
    assert store.ended_totals() == Totals(4, 303)
    first, other, third = store.oldest_ended(3)
    assert {first.job_id, other.job_id} == {entries[1].job_id, entries[3].job_id}
    assert (first.ended_ns, third.ended_ns - first.ended_ns) == (other.ended_ns, 10 * 10**9)
    assert (third.job_id, third.size) == (entries[2].job_id, 102)
    assert store.delete([third.job_id, entries[0].job_id]) == Totals(2, 202)
    assert store.ended_totals() == Totals(2, 101)


def test_a_job_that_ended_before_it_was_stored_is_one(store: JobStore) -> None:
    entry = record()
    entry.state, entry.ended_at = ENDED, datetime(2026, 1, 1, tzinfo=UTC)
    add(store, entry)
    assert [job.job_id for job in store.oldest_ended(2)] == [entry.job_id]


def test_the_oldest_are_found_through_an_index(store: JobStore) -> None:
    for sql, values in ((SELECT_OLDEST, (1,)), (TOTALS, ())):
        plan = store._database.rows(f"EXPLAIN QUERY PLAN {sql}", values)
        assert "USING COVERING INDEX jobs_ended" in str(plan)
        assert "TEMP B-TREE" not in str(plan)


def test_unfinished_jobs(store: JobStore) -> None:
    entries = [add(store, record(), created=number) for number in range(4)]
    for entry, state in zip(entries, (STARTING, RUNNING, STOPPING, ENDED), strict=True):
        entry.state = state
        store.update(entry)
    assert [(job_id, owner) for job_id, owner, _ in store.unfinished()] == [
        (e.job_id, "alice") for e in entries[:3]
    ]


def test_odd_text_is_only_text(store: JobStore) -> None:
    odd = "a'; DROP TABLE jobs; -- %_*? \N{SNOWMAN}"
    entry = add(store, record(name=odd, labels={odd: odd}))
    assert find(store, Search(name=odd, labels={odd: odd})) == [entry.job_id]
    assert find(store, Search(id_prefix="%")) == []
    assert find(store, Search(name="%")) == []


OWNERS, NAMES, VALUES = ["alice", "bob"], ["", "build", "test"], ["1", "2"]
STATES = [STARTING, RUNNING, STOPPING, ENDED]
searches = st.builds(
    Search,
    owner=st.sampled_from(["", *OWNERS, "carol"]),
    name=st.sampled_from([*NAMES, "other"]),
    id_prefix=st.sampled_from(["", "0", "0a", "f", "zz"]),
    states=st.frozensets(st.sampled_from([int(state) for state in STATES])),
    labels=st.dictionaries(st.sampled_from(["ci", "os"]), st.sampled_from(VALUES)),
)


@pytest.fixture(scope="module")
def filled(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[JobStore, list[tuple[int, JobRecord]]]]:
    database = Database.open(tmp_path_factory.mktemp("filled"))
    store, chance, entries = JobStore(database), random.Random(1), []
    for _ in range(300):
        labels = {key: chance.choice(VALUES) for key in ("ci", "os") if chance.random() < 0.5}
        job_id = str(uuid.UUID(int=chance.getrandbits(128)))
        entry = record(job_id, owner=chance.choice(OWNERS), name=chance.choice(NAMES), labels=labels)
        created = chance.randrange(50)  # many at the same instant
        add(store, entry, created=created)
        entry.state = chance.choice(STATES)
        store.update(entry)
        entries.append((created, entry))
    entries.sort(key=lambda pair: (pair[0], pair[1].job_id), reverse=True)
    yield store, entries
    database.close()


def matches(search: Search, entry: JobRecord) -> bool:
    return (
        search.owner in ("", entry.owner)
        and search.name in ("", entry.spec.name)
        and entry.job_id.startswith(search.id_prefix)
        and (not search.states or int(entry.state) in search.states)
        and all(entry.spec.labels.get(key) == value for key, value in (search.labels or {}).items())
    )


@given(search=searches, limit=st.integers(1, 120), max_bytes=st.integers(1, 5000))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_agree_with_a_plain_filter(
    filled: tuple[JobStore, list[tuple[int, JobRecord]]], search: Search, limit: int, max_bytes: int
) -> None:
    store, entries = filled
    found: list[str] = []
    after: Position | None = None
    more = True
    while more:
        rows, more = store.page(search, after=after, limit=limit, max_bytes=max_bytes)
        assert len(rows) <= limit
        assert len(rows) <= 1 or sum(len(row.record) for row in rows) <= max_bytes
        found += [row.position.job_id for row in rows]
        after = rows[-1].position if rows else None
    assert found == [entry.job_id for _, entry in entries if matches(search, entry)]


def test_a_page_goes_on_after_rows_that_went_and_came(store: JobStore) -> None:
    entries = [add(store, record(), created=number) for number in range(6)]
    first, more = store.page(Search(), after=None, limit=2)
    assert more
    store.delete(first[-1].position.job_id)
    add(store, record(), created=99)
    rest, more = store.page(Search(), after=first[-1].position, limit=10)
    assert not more
    assert [row.position.job_id for row in rest] == [entry.job_id for entry in reversed(entries[:4])]


@pytest.mark.parametrize(
    ("search", "index"),
    [
        (Search(), "jobs_newest"),
        (Search(owner="alice"), "jobs_owner"),
        (Search(name="build"), "jobs_name"),
        (Search(states=frozenset({2, 3})), "jobs_unfinished"),
        (Search(id_prefix="0199"), "sqlite_autoindex_jobs_1"),
        (Search(labels={"ci": "42"}), "labels_value"),
    ],
)
def test_each_search_uses_its_index(tmp_path: Path, search: Search, index: str) -> None:
    database = Database.open(tmp_path)
    sql, values = _query(search, None)
    plan = " ".join(str(row[3]) for row in database.rows(f"EXPLAIN QUERY PLAN {sql}", values))
    database.close()
    assert index in plan
