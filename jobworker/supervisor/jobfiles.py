"""A job's directory: made before the job is known, under a name with a dot, and renamed once it is.

Decides the names and modes of what is in it at the beginning. Creating four things in a file system can take
milliseconds, renaming one of them does not; and a rename that replaces nothing is also how an id is taken only once.
The file that becomes the exit record has its space from here on: on a full disk a job can still end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

from jobworker import syscalls
from jobworker.outputindex import INDEX_NAME, LOG_NAME, Header, pack_header

EXIT_NAME = "exit"
RUNNING_NAME = "running"  # until it is renamed to EXIT_NAME
_UNCLAIMED = ".next-"  # no job's id begins with a dot
RESERVED = 4096  # bytes of it; a record has about a thousand


def create(number: int, *, jobs_fd: int) -> tuple[int, int]:
    """Makes directory and files for a job yet to come; descriptors of output.log and output.idx. OSError leaves nothing."""
    directory = _unclaimed(number)
    fds: list[int] = []
    try:
        os.mkdir(directory, 0o700, dir_fd=jobs_fd)
        for name in (LOG_NAME, INDEX_NAME, RUNNING_NAME):  # not O_APPEND: splice refuses such a file
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fds.append(os.open(f"{directory}/{name}", flags, 0o600, dir_fd=jobs_fd))
        _write_all(fds[1], pack_header(Header(created_ns=time.time_ns())))
        reserve(fds[2], RESERVED)
        os.close(fds.pop())
    except OSError:
        for fd in fds:
            os.close(fd)
        remove(number, jobs_fd=jobs_fd)
        raise
    return fds[0], fds[1]


def claim(number: int, job: str, *, jobs_fd: int) -> None:
    """Gives the directory to a job; FileExistsError when that id was used before."""
    try:
        syscalls.rename_new(_unclaimed(number), job, dir_fd=jobs_fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot tell whether it replaces something
            raise
        os.mkdir(job, 0o700, dir_fd=jobs_fd)
        os.rename(_unclaimed(number), job, src_dir_fd=jobs_fd, dst_dir_fd=jobs_fd)


def claim_empty(job: str, *, jobs_fd: int) -> None:
    """Takes an id for a job of which there will be an exit record only; FileExistsError when it was used before."""
    os.mkdir(job, 0o700, dir_fd=jobs_fd)


def reopen(job: str, *, jobs_fd: int) -> tuple[int, int]:
    """Descriptors of output.log and output.idx of a job that another supervisor began; OSError leaves none open."""
    log = os.open(f"{job}/{LOG_NAME}", os.O_RDWR | os.O_CLOEXEC, dir_fd=jobs_fd)
    try:
        return log, os.open(f"{job}/{INDEX_NAME}", os.O_RDWR | os.O_CLOEXEC, dir_fd=jobs_fd)
    except OSError:
        os.close(log)
        raise


def strip(directory: str, *, jobs_fd: int) -> None:
    """Removes the output of a job that never began; the place for its exit record stays."""
    for name in (LOG_NAME, INDEX_NAME):
        with contextlib.suppress(OSError):
            os.unlink(f"{directory}/{name}", dir_fd=jobs_fd)


def remove(number: int, *, jobs_fd: int) -> None:
    """Removes a directory that no job got, and what is in it."""
    _remove(_unclaimed(number), jobs_fd)


def clear_leftovers(*, jobs_fd: int) -> None:
    """Removes what a killed supervisor had made for jobs yet to come."""
    for name in os.listdir(jobs_fd):
        if name.startswith(_UNCLAIMED):
            _remove(name, jobs_fd)


def reserve(fd: int, size: int) -> None:
    """Sets space aside for the first `size` bytes of a file; OSError when there is none."""
    try:
        syscalls.reserve(fd, size)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # a file system that gives space by the write only
            raise


def _unclaimed(number: int) -> str:
    return f"{_UNCLAIMED}{number}"


def _remove(directory: str, jobs_fd: int) -> None:
    strip(directory, jobs_fd=jobs_fd)
    with contextlib.suppress(OSError):
        os.unlink(f"{directory}/{RUNNING_NAME}", dir_fd=jobs_fd)
    with contextlib.suppress(OSError):
        os.rmdir(directory, dir_fd=jobs_fd)


def _write_all(fd: int, data: bytes) -> None:
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
