"""Shapes of what is known of a job, in files and in messages, for type checkers and readers.

Times are nanoseconds since the epoch (UTC), sizes are bytes. The supervisor itself imports this module only while it
is type-checked, since `typing` costs a megabyte of its memory.
"""

from __future__ import annotations

from typing import Literal, Required, TypedDict

Stage = Literal["setup", "cgroup", "limit", "user", "workdir", "exec"]


class IoLimit(TypedDict, total=False):
    """Rates of one block device; an absent rate is no limit.

    `path` is how the device was asked for, `device` its number ("8:0"), `filesystem` the one that the path is in, ""
    where it is the device itself; the last is not told back.
    """

    path: Required[str]
    device: Required[str]
    filesystem: str
    read_bytes_per_second: int
    write_bytes_per_second: int
    read_operations_per_second: int
    write_operations_per_second: int


class Limits(TypedDict, total=False):
    """What a job may take; an absent key is no limit. `rlimits` are (soft, hard) by name, null for unlimited."""

    cpus: float
    memory_bytes: int
    pids: int
    swap_bytes: int
    cpu_weight: int
    io_weight: int
    io: list[IoLimit]
    rlimits: dict[str, tuple[int | None, int | None]]
    nice: int
    oom_score_adj: int


class Unenforced(TypedDict):
    """A limit that was asked for, or could be, and is not enforced; `limit` is "cpus", "rlimits.nofile", "io.…"."""

    limit: str
    reason: str


class Pressure(TypedDict):
    """Time in which some or all of the job's processes waited, and percentages of the last ten seconds."""

    some_usec: int
    full_usec: int
    some_avg10: float
    full_avg10: float


class Usage(TypedDict):
    """What a job's processes took together; null where this host's kernel does not count it, or an older worker did not."""

    cpu_user_usec: int
    cpu_system_usec: int
    memory_bytes: int | None
    memory_peak_bytes: int | None
    pids: int | None
    pids_peak: int | None
    io_read_bytes: int | None
    io_write_bytes: int | None
    io_read_operations: int | None
    io_write_operations: int | None
    cpu_throttled_usec: int | None
    oom_kills: int | None
    cpu_pressure: Pressure | None
    memory_pressure: Pressure | None
    io_pressure: Pressure | None
    wall_usec: int | None


class OutputCap(TypedDict):
    """At most `max_bytes` of a job's output are stored, null: no limit; `keep` says which, see `cap`."""

    max_bytes: int | None
    keep: Literal["newest", "oldest", "all"]


class Output(TypedDict):
    """What is recorded of a running job's output; `blocked` says why it is not taken from the job, if it is not.

    `size` counts every byte taken, the `dropped` ones at its end included, which are not stored.
    """

    size: int
    head: int
    dropped: int
    blocked: Literal["disk", "cap"] | None


class StartFailure(TypedDict):
    """Which step before the program's first instruction failed; `errno` 0 means no system call did."""

    stage: Stage
    errno: int
    detail: str


class ExitRecord(TypedDict):
    """The file `exit` of a job: facts only, whoever reads it decides what they amount to."""

    version: int
    job: str
    boot_id: str
    started_ns: int | None
    main_exited_ns: int | None
    ended_ns: int
    exit_code: int | None
    signal: int | None
    core_dumped: bool
    stop_requested: bool
    grace_expired: bool
    timed_out: bool
    oom_kills: int
    start_failure: StartFailure | None
    usage: Usage
    output_bytes: int
    output_head: int
    output_dropped: int
    survivors: int


class RunState(TypedDict):
    """The file `running` of a job: what a supervisor that takes over has to know of it.

    `number` is that of its child and of its leaf; `ordered_ns` is when the child got its order. Deadlines are on the
    monotonic clock (clock_gettime(2), CLOCK_MONOTONIC), in nanoseconds.
    """

    version: int
    number: int
    pid: int
    ordered_ns: int
    timeout_at_ns: int | None
    grace_at_ns: int | None
    wait_for_tree: bool
    paused: bool
    limits: Limits
    unenforced: list[Unenforced]
    output: OutputCap
    scratch: str | None
    record: ExitRecord
