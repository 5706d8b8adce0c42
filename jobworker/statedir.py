"""The state directory: made, checked, locked; and where in it, or beside it, things are.

Decides who may look in: jobs may pass through to their own scratch directories and see nothing else.
Knows whether the machine was started anew since: then what had not reached the disk is not in the files.
One server at a time holds the lock, as long as it lives. What the files contain is not known here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from jobworker.errors import FailedPrecondition
from jobworker.supervisor import exitrecord

LOCK_NAME = "lock"
BOOT_NAME = "boot"
JOBS_NAME = "jobs"
SCRATCH_NAME = "scratch"
SCRATCH_ELSEWHERE = Path("/var/tmp")  # noqa: S108 - a directory of our own in there, checked below
PASSABLE = 0o711


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """A state directory that this process has locked; all paths are absolute."""

    path: Path
    jobs: Path
    scratch: Path
    lock_fd: int

    @classmethod
    def open(cls, path: Path, *, scratch: Path | None = None) -> StateDirectory:
        """Makes what is missing and takes the lock; FailedPrecondition says what is in the way."""
        path = make(path)
        lock_fd = _lock(path)
        try:
            jobs = path / JOBS_NAME
            _make_directory(jobs, 0o700)
            place = _scratch_place(path) if scratch is None else scratch.absolute()
            _make_directory(place, PASSABLE)
            _check_own(place)
        except BaseException:
            os.close(lock_fd)
            raise
        return cls(path, jobs, place, lock_fd)

    def close(self) -> None:
        """Lets the next server in."""
        os.close(self.lock_fd)

    def is_of_this_boot(self) -> bool:
        """Whether all that was ever written in it is there; False when in doubt."""
        try:
            return (self.path / BOOT_NAME).read_text() == _boot()
        except (OSError, UnicodeDecodeError):
            return False

    def note_boot(self) -> None:
        """From here on what is in it is of this boot, or settled; OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(self.path / BOOT_NAME, flags, 0o600), "w") as file:
            os.fchmod(file.fileno(), 0o600)  # also one that was there: jobs can name it
            file.write(_boot())

    def job(self, job_id: str) -> Path:
        """The job's own directory: its output and its exit record."""
        return self.jobs / job_id

    def job_scratch(self, job_id: str) -> Path:
        """The directory that the job itself may write to."""
        return self.scratch / job_id


def _boot() -> str:
    return exitrecord.read_boot_id() + "\n"


def make(path: Path) -> Path:
    """The directory's real path, once it is there and ours; FailedPrecondition when it cannot be used."""
    _make_directory(path, PASSABLE)
    path = path.resolve()
    _check_own(path)
    return path


def _make_directory(path: Path, mode: int) -> None:
    try:
        path.mkdir(parents=True)
        path.chmod(mode)  # whatever the umask is
    except FileExistsError:
        if not path.is_dir():
            raise FailedPrecondition(f"'{path}' is not a directory") from None
    except OSError as error:
        raise FailedPrecondition(
            f"cannot make directory '{path}': {(error.strerror or str(error)).lower()}",
            hint="make it yourself and give it to the worker's user, or give another --state",
        ) from error


def _check_own(path: Path) -> None:
    """Whoever can write to the directory, or owns it, could put other files in the place of ours."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise FailedPrecondition(f"'{path}' is a symbolic link", hint="remove it, or give the real path")
    if status.st_uid != os.geteuid():
        raise FailedPrecondition(
            f"directory '{path}' belongs to uid {status.st_uid}, the worker runs as uid {os.geteuid()}",
            hint=f"chown {os.geteuid()} '{path}', or run the worker as its owner",
        )
    if status.st_mode & 0o022:
        raise FailedPrecondition(f"directory '{path}' can be written by others", hint=f"chmod go-w '{path}'")
    if not os.access(path, os.W_OK | os.X_OK):
        raise FailedPrecondition(f"directory '{path}' cannot be written", hint=f"chmod u+wx '{path}'")


def _lock(path: Path) -> int:
    try:
        fd = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FailedPrecondition(
            f"cannot write in state directory '{path}': {(error.strerror or str(error)).lower()}"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise FailedPrecondition(
            f"another worker serves state directory '{path}'" + (f" (pid {holder})" if holder else ""),
            hint="stop it, or give another --state",
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _scratch_place(state: Path) -> Path:
    """In the state directory, unless jobs of other uids could not get there."""
    if os.geteuid() != 0 or all(place.stat().st_mode & 0o001 for place in (state, *state.parents)):
        return state / SCRATCH_NAME
    digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    return SCRATCH_ELSEWHERE / f"jobworker-{digest}"
