"""What a job uses beside what it may use, as people read it."""

import pytest

from jobctl.cli.resources import rows
from jobctl.types import IoLimit, JobRecord, Limits, Pressure, RLimit, Termination, UnenforcedLimit, Usage

MIB = 1024 * 1024


def told(usage: Usage | None = None, limits: Limits | None = None, *, runs: bool = True) -> dict[str, str]:
    ending = None if runs else Termination()
    return dict(rows(JobRecord(usage=usage, limits_in_force=limits, termination=ending)))


def test_nothing_known_is_nothing_told() -> None:
    assert told() == {}
    assert told(Usage(), Limits()) == {}


@pytest.mark.parametrize(
    ("usage", "limits", "row", "text"),
    [
        (Usage(cpu_user_usec=1_000_000, cpu_system_usec=600_000), None, "cpu", "1.6 s"),
        (
            Usage(cpu_user_usec=58_200_000, cpu_throttled_usec=4_100_000),
            Limits(cpus=1.5, cpu_weight=50),
            "cpu",
            "58 s (limit 1.5 cores, throttled 4.1 s, weight 50)",
        ),
        (None, Limits(cpus=2), "cpu", "limit 2 cores"),
        (
            Usage(memory_bytes=MIB, memory_peak_bytes=2 * MIB),
            Limits(memory_bytes=4 * MIB, swap_bytes=0),
            "memory",
            "1 MiB, peak 2 MiB (limit 4 MiB, swap 0 B)",
        ),
        (Usage(pids=1, pids_peak=2), Limits(pids=30), "pids", "1, peak 2 (limit 30)"),
        (
            Usage(io_read_bytes=MIB, io_read_operations=1, io_write_bytes=0, io_write_operations=0),
            None,
            "io",
            "read 1 MiB in 1 read, written 0 B",
        ),
        (
            Usage(io_write_bytes=MIB, io_write_operations=1500),
            Limits(io=[IoLimit(path="/d", read_bytes_per_second=MIB, write_operations_per_second=9)]),
            "io",
            "read 0 B, written 1 MiB in 1,500 writes (limit read 1 MiB/s and 9 writes/s on the disk of /d)",
        ),
        (
            Usage(cpu_pressure=Pressure(some_usec=9_999), memory_pressure=Pressure(some_usec=2_000_000)),
            None,
            "waited",
            "2 s for memory",
        ),
        (
            None,
            Limits(
                rlimits={"nofile": RLimit(soft=9, hard=9), "core": RLimit(soft=0)}, nice=-1, oom_score_adj=5
            ),
            "each",
            "limit core 0 (hard unlimited), nofile 9, nice -1, oom score +5",
        ),
    ],
)
def test_a_line(usage: Usage | None, limits: Limits | None, row: str, text: str) -> None:
    assert told(usage, limits)[row] == text


def test_what_is_now_is_not_told_of_a_job_that_has_ended() -> None:
    usage = Usage(memory_bytes=MIB, memory_peak_bytes=2 * MIB, pids=1, pids_peak=2)
    assert told(usage, runs=False) == {"memory": "peak 2 MiB", "pids": "peak 2"}


def test_each_limit_that_is_not_in_force_has_a_line_with_its_reason() -> None:
    missing = [UnenforcedLimit(limit="io", reason="no disk"), UnenforcedLimit(limit="nice", reason="no")]
    assert rows(JobRecord(limits_not_in_force=missing)) == [
        ("unlimited", "io: no disk"),
        ("unlimited", "nice: no"),
    ]
