"""How a job ended: as a shell's exit status, and in words.

Reads an encoded Termination without the generated classes, for `run` needs nothing else of it. Pure. The
exit statuses are those of POSIX shells, env(1), timeout(1) and `docker run`.
"""

from __future__ import annotations

import errno
from signal import Signals
from typing import NamedTuple

from jobwire.wire import fields

# Of jobworker.v1.EndReason and StartStage, by number: tests/client/test_ending.py holds them to the API.
EXITED, SIGNALED, STOPPED, TIMED_OUT, OOM_KILLED, START_FAILED, LOST = range(1, 8)
STAGE_EXEC = 6

_WORDS = {
    EXITED: "",
    SIGNALED: "",
    STOPPED: "stopped",
    TIMED_OUT: "timed out",
    OOM_KILLED: "out of memory",
    START_FAILED: "could not be started",
    LOST: "lost: the worker cannot know how it ended",
}

WORKER_FAILED, CANNOT_EXECUTE, NOT_FOUND, TIMEOUT = 125, 126, 127, 124


class Ending(NamedTuple):
    """The facts of a Termination; `reason` is a number of EndReason, `failure` that of a start."""

    reason: int
    exit_code: int | None = None
    signal: int | None = None
    stopped_by: str | None = None
    failure: Failure | None = None
    oom_kills: int = 0

    @property
    def ok(self) -> bool:
        """Whether the main process exited by itself with 0."""
        return self.reason == EXITED and not self.exit_code

    @property
    def status(self) -> int:
        """What a shell would have in `$?`."""
        if self.reason == TIMED_OUT:
            return TIMEOUT
        if self.failure is not None:
            return self.failure.status
        if self.signal is not None:
            return 128 + self.signal
        return WORKER_FAILED if self.exit_code is None else self.exit_code

    @property
    def words(self) -> str:
        """One clause: "exited with code 3", "timed out", "stopped by alice, signal TERM"."""
        return ", ".join(part for part in (self._reason_words(), self._process_words()) if part)

    def _reason_words(self) -> str:
        if self.reason == STOPPED and self.stopped_by:
            return f"stopped by {self.stopped_by}"
        if self.reason == START_FAILED and self.failure:
            return f"could not be started: {self.failure.detail}"
        return _WORDS.get(self.reason, f"ended for reason {self.reason}")

    def _process_words(self) -> str:
        if self.signal is not None:
            return f"killed by signal {signal_name(self.signal)}"
        return "" if self.exit_code is None else f"exited with code {self.exit_code}"


class Failure(NamedTuple):
    """Why a program was never executed; `stage` is a number of StartStage."""

    stage: int
    errno: int
    detail: str

    @property
    def status(self) -> int:
        """127 when there is no such program, 126 when it cannot be executed, else 125: it was not its fault."""
        if self.stage != STAGE_EXEC:
            return WORKER_FAILED
        return NOT_FOUND if self.errno in (errno.ENOENT, errno.ENOTDIR) else CANNOT_EXECUTE


def parse_ending(termination: bytes) -> Ending:
    """An encoded Termination; raises WireError."""
    numbers, parts = _by_kind(termination)
    return Ending(
        numbers.get(1, 0),
        exit_code=numbers.get(2),
        signal=numbers.get(3),
        stopped_by=parts[5].decode() if 5 in parts else None,
        failure=parse_failure(parts[6]) if 6 in parts else None,
        oom_kills=numbers.get(7, 0),
    )


def parse_failure(failure: bytes) -> Failure:
    """An encoded StartFailure; raises WireError."""
    numbers, parts = _by_kind(failure)
    return Failure(numbers.get(1, 0), numbers.get(2, 0), parts.get(3, b"").decode(errors="replace"))


def signal_name(number: int) -> str:
    """ "TERM" for 15; the number where there is no name."""
    try:
        return Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


def _by_kind(data: bytes) -> tuple[dict[int, int], dict[int, bytes]]:
    numbers, parts = {}, {}
    for number, _, value in fields(data):
        if isinstance(value, int):
            numbers[number] = value
        else:
            parts[number] = value
    return numbers, parts
