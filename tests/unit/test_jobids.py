"""Ids sort by time, carry what they should, and are recognised."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from jobworker import jobids

TIMES = st.integers(0, 2**48 * 1_000_000 - 1)
RANDOM = st.binary(min_size=8, max_size=8)


@given(unix_nano=TIMES, random=RANDOM)
def test_an_id_is_a_version_7_uuid_of_its_time(unix_nano: int, random: bytes) -> None:
    text = jobids.make(unix_nano, random=random)
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == unix_nano // 1_000_000
    assert jobids.is_canonical(text)


@given(first=TIMES, gap=st.integers(245, 10**12), one=RANDOM, other=RANDOM)
def test_later_ids_sort_later(first: int, gap: int, one: bytes, other: bytes) -> None:
    later = min(first + gap, 2**48 * 1_000_000 - 1)
    if later - first >= 245:
        assert jobids.make(first, random=one) < jobids.make(later, random=other)


def test_other_spellings_are_not_ids() -> None:
    good = str(uuid.uuid4())
    assert jobids.is_canonical(good)
    for wrong in (
        "",
        good.upper(),
        good[:-1],
        good + "\n",
        good.replace("-", ""),
        "{" + good + "}",
        "urn:uuid:" + good,
    ):
        assert not jobids.is_canonical(wrong)
