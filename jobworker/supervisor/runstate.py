"""The file `running` of a job: what the next supervisor has to know of it, should this one end before the job does.

Decides the file's form: one line of JSON at its beginning, written over the one before by a single write within space
that is there, so that a kill leaves one or the other; and, far behind it, what a child reports that could not become its
program: moved there from its pipe, so that it is always in one of them. The file becomes the job's exit record in the
end, by being renamed. docs/on-disk.md is the reference; what is made of it is `takeover`'s business.
"""

from __future__ import annotations

import json
import os

from jobworker.supervisor.jobfiles import RESERVED, RUNNING_NAME, reserve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.jobfacts import RunState

VERSION = 1
_REPORT_OFFSET = 65536  # no state is that long
_REPORT_SIZE = 4096  # one write to a pipe

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class RunStateError(ValueError):
    """Not the state of a running job."""


def pack(state: RunState) -> bytes:
    """The file's first line."""
    return _encode(state).encode("ascii") + b"\n"


def unpack(data: bytes) -> RunState | None:
    """The state in a file's content, of whatever version; None when the job was not begun."""
    line = data.partition(b"\n")[0].strip(b"\0")
    if not line:
        return None
    try:
        state = json.loads(line)
    except ValueError as error:
        raise RunStateError(f"not JSON: {error}") from error
    if not isinstance(state, dict) or not isinstance(state.get("version"), int):
        raise RunStateError("not the state of a running job")
    return state  # type: ignore[return-value]  # whoever wrote version 1 wrote its fields


def write(job: str, data: bytes, *, dir_fd: int) -> None:
    """Puts a packed state in place in the job's directory below `dir_fd`; OSError leaves the one before."""
    fd = os.open(f"{job}/{RUNNING_NAME}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if len(data) > RESERVED:
            reserve(fd, len(data))
        os.pwrite(fd, data, 0)
    finally:
        os.close(fd)


def read(job: str, *, dir_fd: int) -> bytes | None:
    """The content of a job's file; None when there is none: the job has ended, or is of an older version."""
    try:
        fd = os.open(f"{job}/{RUNNING_NAME}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(fd, "rb") as file:
        return file.read()


def take_report(job: str, pipe: int, *, dir_fd: int) -> bytes:
    """What a child has reported, to this supervisor or one before it; b"" when nothing, and it has closed the pipe.

    BlockingIOError when it still may report; another OSError when there is no file, or no space, for it: it is in the
    pipe then.
    """
    fd = os.open(f"{job}/{RUNNING_NAME}", os.O_RDWR | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.splice(pipe, fd, _REPORT_SIZE, offset_dst=_REPORT_OFFSET, flags=os.SPLICE_F_NONBLOCK)
        return os.pread(fd, _REPORT_SIZE, _REPORT_OFFSET)
    finally:
        os.close(fd)
