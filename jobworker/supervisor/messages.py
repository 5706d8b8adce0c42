"""Shapes of the messages on the control socket, for type checkers and readers.

Every message is a JSON object. A request carries `seq`, and the one reply to it carries the same number;
events carry none. Times are nanoseconds since the epoch (UTC), sizes are bytes. The supervisor itself
imports this module only while it is type-checked, since `typing` costs a megabyte of its memory.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from jobworker.supervisor.jobfacts import (
    ExitRecord,
    Limits,
    Output,
    OutputCap,
    StartFailure,
    Unenforced,
    Usage,
)

ErrorKind = Literal["no_such_job", "bad_request", "exists", "os_error", "busy", "limit"]


class HelloRequest(TypedDict):
    """Asks who is there, and subscribes this connection to events."""

    op: Literal["hello"]
    seq: int
    protocol: int


class LaunchRequest(TypedDict):
    """Starts a job; `uid` null keeps the supervisor's own, `workdir` null means `scratch`, then "/".

    `output` absent or null: all of it is stored.
    With `best_effort` a limit that cannot be had is told and not refused; `unenforced` are those known before.
    """

    op: Literal["launch"]
    seq: int
    job: str
    argv: list[str]
    env: dict[str, str]
    workdir: str | None
    scratch: str | None
    uid: int | None
    gid: int | None
    limits: Limits
    best_effort: NotRequired[bool]
    unenforced: NotRequired[list[Unenforced]]
    timeout_ms: int | None
    wait_for_tree: bool
    output: NotRequired[OutputCap | None]


class StopRequest(TypedDict):
    """Sends `signal` to the whole tree and kills what is left of it `grace_ms` later (0: at once)."""

    op: Literal["stop"]
    seq: int
    job: str
    signal: int
    grace_ms: int


class SignalRequest(TypedDict):
    """Sends `signal` to the main process, or to every process of the job."""

    op: Literal["signal"]
    seq: int
    job: str
    signal: int
    tree: bool


class UpdateRequest(TypedDict):
    """Changes limits of a running job, all or none; `lift` names those that are to be no more."""

    op: Literal["update"]
    seq: int
    job: str
    limits: Limits
    lift: list[str]
    best_effort: bool
    unenforced: list[Unenforced]


class PauseRequest(TypedDict):
    """Stops every process of a job where it is, or lets all go on."""

    op: Literal["pause", "resume"]
    seq: int
    job: str


class UsageRequest(TypedDict):
    """Asks for what a running job has taken so far."""

    op: Literal["usage"]
    seq: int
    job: str


class ListRequest(TypedDict):
    """Asks for every job that has not ended."""

    op: Literal["list"]
    seq: int


class ShutdownRequest(TypedDict):
    """Ends the supervisor; with `if_idle` only when it has no jobs, else by killing them all first."""

    op: Literal["shutdown"]
    seq: int
    if_idle: bool


class UpgradeRequest(TypedDict):
    """Has the installed version take over; answered before it does, or "busy" with the reason why it cannot."""

    op: Literal["upgrade"]
    seq: int


Request = (
    HelloRequest
    | LaunchRequest
    | StopRequest
    | SignalRequest
    | UpdateRequest
    | PauseRequest
    | UsageRequest
    | ListRequest
    | ShutdownRequest
    | UpgradeRequest
)


class Cgroups(TypedDict):
    """How jobs are contained on this host; `controllers` maps cpu, memory, pids, io to "v2" or "v1".

    `unenforced` are the limits that were tried at the start and cannot be had.
    """

    mode: Literal["v2", "hybrid", "none"]
    root: str
    controllers: dict[str, str]
    into_cgroup: bool
    unenforced: list[Unenforced]


class Examination(TypedDict):
    """What a supervisor would find here: see `examine`. `offered` are controllers of cgroup2 in `base`, and at its top."""

    mode: Literal["v2", "hybrid", "none"]
    base: str
    delegated: bool
    controllers: dict[str, str]
    into_cgroup: bool
    kills: bool
    offered: list[str]
    offered_at_top: list[str]
    mounted_v1: list[str]
    unenforced: list[Unenforced]


class WelcomeReply(TypedDict):
    """Answers hello; `storage_blocked` as in StorageEvent."""

    op: Literal["welcome"]
    seq: int
    protocol: int
    pid: int
    boot_id: str
    started_ns: int
    cgroup: Cgroups
    storage_blocked: int


class LaunchedReply(TypedDict):
    """The program runs; `limits` are those in force, read back from the kernel."""

    op: Literal["launched"]
    seq: int
    job: str
    pid: int
    started_ns: int
    limits: Limits
    unenforced: list[Unenforced]


class UpdatedReply(TypedDict):
    """The limits now in force, and those asked for that are not."""

    op: Literal["updated"]
    seq: int
    limits: Limits
    unenforced: list[Unenforced]


class FailedReply(StartFailure):
    """The program does not run, and nothing of the attempt is left but its exit record."""

    op: Literal["failed"]
    seq: int
    job: str


class DoneReply(TypedDict):
    """Answers stop, signal, pause, resume, shutdown and upgrade."""

    op: Literal["done"]
    seq: int


class ErrorReply(TypedDict):
    """The request was not carried out; `detail` names the field ("bad_request") or the limit ("limit")."""

    op: Literal["error"]
    seq: int
    error: ErrorKind
    errno: int
    detail: str


class UsageReply(TypedDict):
    """Answers usage."""

    op: Literal["usage"]
    seq: int
    usage: Usage
    output: Output


class ListedJob(TypedDict):
    """One job that has not ended; `started_ns` is null while its program has not been executed yet."""

    job: str
    pid: int
    started_ns: int | None
    limits: Limits
    unenforced: list[Unenforced]
    stopping: bool
    paused: bool


class JobsReply(TypedDict):
    """Answers list."""

    op: Literal["jobs"]
    seq: int
    jobs: list[ListedJob]


Reply = (
    WelcomeReply
    | LaunchedReply
    | UpdatedReply
    | FailedReply
    | DoneReply
    | ErrorReply
    | UsageReply
    | JobsReply
)


class LaunchedEvent(ListedJob):
    """A program has been executed; told to the connections that did not ask for it."""

    event: Literal["launched"]


class ExitedEvent(ExitRecord):
    """A job has ended and its exit record is in place; a failed launch is told so to the other connections."""

    event: Literal["exited"]


class StorageEvent(TypedDict):
    """How many jobs wait because the disk refuses their output; sent whenever that changes."""

    event: Literal["storage"]
    blocked: int
