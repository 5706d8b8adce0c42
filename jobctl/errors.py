"""Everything this library raises, as one tree.

    JobctlError
    ├── ConfigError          the context, an address or a certificate file is not usable
    ├── InvalidArgument      the request is wrong; `field` names where
    ├── Unauthenticated      one side does not accept the other's certificate
    ├── PermissionDenied     the worker knows us, and our role does not allow this
    ├── NotFound             there is none that we may know of
    │   └── JobNotFound      no such job, or another client's
    ├── AmbiguousJob         several jobs' ids begin so; `candidates`
    ├── AlreadyExists        the name or id is taken
    ├── FailedPrecondition   not in this state of things: a job that still runs cannot be deleted
    ├── StartFailed          the program was never executed; `stage`, `errno`, `detail`
    ├── JobFailed            the job ended otherwise than with exit code 0; `result`
    ├── OutputGap            output that cannot be delivered any more; `gap`
    ├── ResourceExhausted    a limit of the worker or of our policy is reached
    ├── Unavailable          not now; trying again may help
    │   └── ConnectionLost   the connection broke, or there was none to be had
    ├── Timeout              the caller's own `timeout=` has passed; also a TimeoutError
    ├── Unsupported          the worker does not know this call: it is older than this client
    └── Internal             a defect of the worker, or damage in its state

A message is one clause in lower case without a full stop; `hint` is what to do next, or "". An error of the
network or of gRPC stays as `__cause__`. Imports next to nothing, for the fastest commands load it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobctl import types

if TYPE_CHECKING:
    from jobctl.ending import Failure
    from jobctl.events import Gap
    from jobctl.result import Result


class JobctlError(Exception):
    """The root: whatever this library raises on purpose is one of these."""

    def __init__(self, message: str, *, hint: str = "", job_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.job_id = job_id

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (type(self), self.args, self.__dict__)  # through a process pool, which pickles


def _again(kind: type[JobctlError], args: tuple[object, ...], facts: dict[str, object]) -> JobctlError:
    """The error as it was, whatever its constructor takes."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class ConfigError(JobctlError):
    """Where the worker is, or who we are, cannot be had from flags, environment and file."""


class InvalidArgument(JobctlError):
    """The request is refused, whatever the state of things; `field` is its path in it ("spec.argv"), or ""."""

    def __init__(self, message: str, *, field: str = "", hint: str = "", job_id: str = "") -> None:
        super().__init__(message, hint=hint, job_id=job_id)
        self.field = field


class Unauthenticated(JobctlError):
    """The worker does not accept our certificate, or we do not accept the worker's."""


class PermissionDenied(JobctlError):
    """Our role or policy on this worker does not allow this."""


class NotFound(JobctlError):
    """No such thing, as far as we may know."""


class JobNotFound(NotFound):
    """No such job, or one of another client."""


class AmbiguousJob(JobctlError):
    """Several jobs' ids begin so; `candidates` are the ids, newest first."""

    def __init__(self, message: str, *, candidates: tuple[str, ...], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.candidates = candidates


class AlreadyExists(JobctlError):
    """A thing of this name or id is there already."""


class FailedPrecondition(JobctlError):
    """The job, or the worker, is not in the state that this needs."""


class StartFailed(JobctlError):
    """The program was never executed; `errno` is 0 where no system call failed, `detail` is one clause."""

    def __init__(self, message: str, *, failure: Failure, hint: str = "", job_id: str = "") -> None:
        super().__init__(message, hint=hint, job_id=job_id)
        self.errno = failure.errno
        self.detail = failure.detail
        self.exit_status = failure.status  # as a shell would have it: 127, 126, or 125
        self._stage = failure.stage

    @property
    def stage(self) -> types.StartStage:
        """The step that failed."""
        return types.StartStage(self._stage)


class JobFailed(JobctlError):
    """The job ended otherwise than with exit code 0; `stderr_tail` is the end of what it wrote there."""

    def __init__(self, message: str, *, result: Result) -> None:
        super().__init__(message, job_id=result.job_id)
        self.result = result

    @property
    def stderr_tail(self) -> bytes:
        """The last bytes the job wrote to standard error, at most 4 KiB."""
        return self.result.stderr_tail

    def __str__(self) -> str:
        tail = self.stderr_tail.decode(errors="replace").rstrip()
        return f"{self.message}\n{tail}" if tail else self.message


class OutputGap(JobctlError):
    """Output from `gap.start` to `gap.end` cannot be delivered; following from `gap.end` on goes past it."""

    def __init__(self, gap: Gap, *, job_id: str = "") -> None:
        super().__init__(
            f"bytes {gap.start} to {gap.end} of the output are gone ({gap.why})",
            hint=f"follow from offset {gap.end} on, or pass on_gap= to be told and go on",
            job_id=job_id,
        )
        self.gap = gap


class ResourceExhausted(JobctlError):
    """There is no more of it for us, or on this worker."""


class Unavailable(JobctlError):
    """Cannot be done at the moment."""


class ConnectionLost(Unavailable):
    """The connection broke, or none could be made."""


class Timeout(JobctlError, TimeoutError):
    """The time that the caller allowed has passed. The job is as it was: only the waiting has ended."""


class Unsupported(JobctlError):
    """The worker does not know this call."""


class Internal(JobctlError):
    """A defect of the worker, or damage in its state."""
