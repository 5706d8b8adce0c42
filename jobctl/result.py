"""How a job ended, for a program: the reason, the numbers, and what it wrote if that was collected.

Made of the encoded Termination and Usage; the generated classes are loaded when `reason`, `usage` or `termination`
is looked at, the numbers are there without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from jobctl import types
from jobctl.answers import message
from jobctl.ending import Ending, parse_ending
from jobctl.errors import JobFailed

TAIL = 4096  # bytes of stderr that an error carries


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """The end of a job; `stderr_tail` is the last of its stderr, read only when it did not exit with 0."""

    job_id: str
    ending: Ending
    stderr_tail: bytes = b""
    encoded_termination: bytes = b""
    encoded_usage: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the main process exited by itself with 0."""
        return self.ending.ok

    @property
    def reason(self) -> types.EndReason:
        """Why it ended."""
        return types.EndReason(self.ending.reason)

    @property
    def exit_code(self) -> int | None:
        """The main process's exit code; None when it did not exit."""
        return self.ending.exit_code

    @property
    def signal(self) -> int | None:
        """The signal that ended the main process; None when none did."""
        return self.ending.signal

    @property
    def exit_status(self) -> int:
        """What a shell would have in `$?`: the exit code, 128+signal, 124 timed out, 125 unknown, 126, 127."""
        return self.ending.status

    @property
    def termination(self) -> types.Termination:
        """All that is known of the end."""
        return message(types.Termination, self.encoded_termination)

    @property
    def usage(self) -> types.Usage:
        """What the job used; a field is None where the worker cannot tell."""
        return message(types.Usage, self.encoded_usage)

    def check(self) -> Self:
        """Itself, when the job exited with 0; raises JobFailed with the tail of stderr when not."""
        if not self.ok:
            raise JobFailed(f"job {self.job_id} {self.ending.words}", result=self)
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.job_id}: {self.ending.words}>"

    def __str__(self) -> str:
        return f"job {self.job_id} {self.ending.words}"


@dataclass(frozen=True, slots=True, repr=False)
class Completed(Result):
    """The end of a job that was run with its output collected."""

    stdout: bytes = b""
    stderr: bytes = b""


def completed(result: Result, *, stdout: bytes, stderr: bytes) -> Completed:
    """The result of a run whose output was collected."""
    tail = b"" if result.ok else stderr[-TAIL:]
    return Completed(
        result.job_id,
        result.ending,
        tail,
        result.encoded_termination,
        result.encoded_usage,
        stdout,
        stderr,
    )


def result_of(job_id: str, *, termination: bytes, usage: bytes, stderr_tail: bytes) -> Result:
    """The result of a job from the parts of its record."""
    return Result(job_id, parse_ending(termination), stderr_tail, termination, usage)
