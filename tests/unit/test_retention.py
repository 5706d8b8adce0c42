"""Which jobs have to go, against an oracle that tries every number of them."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from jobworker.retention import NO_LIMITS, Limits, doomed, is_over
from jobworker.store.jobrecords import Ended, Totals

NOW = 10_000_000
LIMITS = st.builds(
    Limits,
    max_bytes=st.none() | st.integers(1, 60),
    max_age=st.none() | st.integers(1, 12).map(lambda ms: timedelta(milliseconds=ms)),
    max_jobs=st.none() | st.integers(1, 6),
)
SIZES_AND_AGES = st.lists(st.tuples(st.integers(0, 20), st.integers(-1, 12)), max_size=10)


def jobs_of(sizes_and_ages: list[tuple[int, int]]) -> list[Ended]:
    jobs = [
        Ended(str(number), NOW - ms * 1_000_000, size) for number, (size, ms) in enumerate(sizes_and_ages)
    ]
    return sorted(jobs, key=lambda job: job.ended_ns)


def totals_of(jobs: list[Ended]) -> Totals:
    return Totals(len(jobs), sum(job.size for job in jobs))


def is_well(jobs: list[Ended], limits: Limits) -> bool:
    """Whether these jobs may all stay."""
    aged = [job for job in jobs if limits.max_age_ns is not None and NOW - job.ended_ns >= limits.max_age_ns]
    many = len(jobs) > 1 and limits.max_jobs is not None and len(jobs) > limits.max_jobs
    large = len(jobs) > 1 and limits.max_bytes is not None and totals_of(jobs).size > limits.max_bytes
    return not (aged or many or large)


@given(sizes_and_ages=SIZES_AND_AGES, limits=LIMITS)
def test_the_fewest_of_the_oldest_go(sizes_and_ages: list[tuple[int, int]], limits: Limits) -> None:
    jobs = jobs_of(sizes_and_ages)
    fewest = next(count for count in range(len(jobs) + 1) if is_well(jobs[count:], limits))
    assert list(doomed(jobs, totals_of(jobs), limits, now_ns=NOW)) == jobs[:fewest]


@given(sizes_and_ages=SIZES_AND_AGES, limits=LIMITS, batch=st.integers(1, 4))
def test_batches_come_to_the_same(sizes_and_ages: list[tuple[int, int]], limits: Limits, batch: int) -> None:
    left = jobs_of(sizes_and_ages)
    whole = list(doomed(left, totals_of(left), limits, now_ns=NOW))
    gone: list[Ended] = []
    while some := list(doomed(left[:batch], totals_of(left), limits, now_ns=NOW)):
        gone += some
        left = left[len(some) :]
    assert gone == whole


@given(sizes_and_ages=SIZES_AND_AGES)
def test_without_limits_all_stay(sizes_and_ages: list[tuple[int, int]]) -> None:
    jobs = jobs_of(sizes_and_ages)
    assert list(doomed(jobs, totals_of(jobs), NO_LIMITS, now_ns=NOW)) == []


def test_the_last_one_stays_however_large_it_is() -> None:
    limits = Limits(max_bytes=1, max_jobs=1)
    assert not is_over(Totals(1, 10**12), limits)
    jobs = jobs_of([(10, 2), (10, 1)])
    assert list(doomed(jobs, totals_of(jobs), limits, now_ns=NOW)) == jobs[:1]
    aged = Limits(max_age=timedelta(milliseconds=1))
    assert list(doomed(jobs, totals_of(jobs), aged, now_ns=NOW)) == jobs, "but not for ever"
