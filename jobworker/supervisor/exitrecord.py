"""The exit record: the one file that says how a job ended, after everything else of it is in place.

Decides the file's form (one JSON object and a newline) and that it appears whole or not at all. It holds
facts only; the reason for the end is for the reader to pick. docs/on-disk.md is the reference.
"""

from __future__ import annotations

import errno
import json
import os

from jobworker.supervisor.cgroup import no_usage
from jobworker.supervisor.jobfiles import EXIT_NAME, RUNNING_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.jobfacts import ExitRecord

VERSION = 1

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class ExitRecordError(ValueError):
    """Not an exit record, or one of a version this code does not know."""


def read_boot_id() -> str:
    """The kernel's name for the time since the machine was started (proc_sys_kernel(5))."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def blank(job: str, *, boot_id: str) -> ExitRecord:
    """The record of a job of which nothing is known yet; filled in as things happen."""
    return {
        "version": VERSION,
        "job": job,
        "boot_id": boot_id,
        "started_ns": None,
        "main_exited_ns": None,
        "ended_ns": 0,
        "exit_code": None,
        "signal": None,
        "core_dumped": False,
        "stop_requested": False,
        "grace_expired": False,
        "timed_out": False,
        "oom_kills": 0,
        "start_failure": None,
        "usage": no_usage(),
        "output_bytes": 0,
        "output_head": 0,
        "output_dropped": 0,
        "survivors": 0,
    }


def put_status(record: ExitRecord, status: int) -> None:
    """How the main process ended, as wait(2) tells it."""
    if os.WIFSIGNALED(status):
        record["signal"] = os.WTERMSIG(status)
        record["core_dumped"] = os.WCOREDUMP(status)
    else:
        record["exit_code"] = os.WEXITSTATUS(status)


def pack(record: ExitRecord) -> bytes:
    """The content of the file."""
    return _encode(record).encode("ascii") + b"\n"


def unpack(data: bytes) -> ExitRecord:
    """The record in a file's content; ExitRecordError when it holds none of this version."""
    try:
        record = json.loads(data)
    except ValueError as error:
        raise ExitRecordError(f"not JSON: {error}") from error
    if not isinstance(record, dict) or "version" not in record:
        raise ExitRecordError("not an exit record")
    if record["version"] != VERSION:
        raise ExitRecordError(f"version {record['version']} is not known here")
    return {"output_head": 0, "output_dropped": 0, **record}  # type: ignore[typeddict-item]  # version 1 has the others


def write(job: str, data: bytes, *, dir_fd: int) -> None:
    """Puts a packed record in place in the job's directory below `dir_fd`: written aside, then renamed.

    Into the space that the file has: truncated first, it would have to get that from the disk again.
    """
    aside = f"{job}/{RUNNING_NAME}"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        if os.pwrite(fd, data, 0) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)
    os.rename(aside, f"{job}/{EXIT_NAME}", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def read(directory: str) -> ExitRecord | None:
    """The record of the job whose directory this is; None when it has not ended, or nobody saw its end."""
    try:
        with open(os.path.join(directory, EXIT_NAME), "rb") as file:
            return unpack(file.read())
    except FileNotFoundError:
        return None
