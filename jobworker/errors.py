"""What can go wrong for a caller, as one small tree.

    JobworkerError
    ├── InvalidArgument      the request is wrong, whatever the worker's state; names the field
    ├── Unauthenticated      nobody we know
    ├── PermissionDenied     known, and not allowed to
    ├── NotFound             there is none, or none that the caller may know of
    ├── AlreadyExists        the name or id is taken
    ├── FailedPrecondition   not in this state of things
    ├── StartFailed          the program was never executed; carries the typed reason and the record
    ├── ResourceExhausted    a limit of the worker or of the caller's policy is reached
    ├── Unavailable          not now; trying again may help
    └── Internal             a defect or a damaged state; never the caller's fault

Messages are one clause in lower case without a full stop, for people; `hint` is what to do next. How an
error travels over the network is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generated.jobworker.v1 import JobRecord, StartFailure


class JobworkerError(Exception):
    """Everything the worker tells a caller or an operator instead of doing what was asked."""

    def __init__(self, message: str, *, hint: str = "", job_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.job_id = job_id


class InvalidArgument(JobworkerError):
    """`field` is the path of the wrong field in the request ("spec.argv"), or the name of a setting."""

    def __init__(self, message: str, *, field: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class Unauthenticated(JobworkerError):
    """Who asks is not a registered client, or is one no longer."""


class PermissionDenied(JobworkerError):
    """The caller's role or policy does not allow this."""


class NotFound(JobworkerError):
    """No such thing, as far as the caller may know."""


class AlreadyExists(JobworkerError):
    """A thing of this name or id is there already."""


class FailedPrecondition(JobworkerError):
    """The job, or the worker, is not in the state that this needs."""


class StartFailed(JobworkerError):
    """The program was never executed; `failure` says at which step and why, `record` is what was kept of it."""

    def __init__(
        self, message: str, *, failure: StartFailure, record: JobRecord, hint: str = "", job_id: str = ""
    ) -> None:
        super().__init__(message, hint=hint, job_id=job_id)
        self.failure = failure
        self.record = record

    @property
    def stage(self) -> int:
        """The StartStage."""
        return self.failure.stage

    @property
    def errno(self) -> int:
        """The errno of the failed step, 0 when there is none."""
        return self.failure.errno

    @property
    def detail(self) -> str:
        """The failed step in words."""
        return self.failure.detail


class ResourceExhausted(JobworkerError):
    """There is no more of it for this caller, or on this worker."""


class Unavailable(JobworkerError):
    """Cannot be done at the moment."""


class Internal(JobworkerError):
    """A defect of the worker, or damage in its state."""
