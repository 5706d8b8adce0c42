"""Domain error → gRPC status, as one table, and what travels beside the status.

Decides nothing about when an error happens. Texts are clipped, since they travel in a header block that
peers limit (64 KiB is usual); a text that was cut says so with its last character.
"""

from __future__ import annotations

import dataclasses

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from generated.jobworker.v1 import ErrorDetail, StartFailure
from jobwire.codec import encode
from jobwire.wire import WireError
from jobworker import errors

STATUS: dict[type[errors.JobworkerError], Status] = {
    errors.InvalidArgument: Status.INVALID_ARGUMENT,
    errors.Unauthenticated: Status.UNAUTHENTICATED,
    errors.PermissionDenied: Status.PERMISSION_DENIED,
    errors.NotFound: Status.NOT_FOUND,
    errors.AlreadyExists: Status.ALREADY_EXISTS,
    errors.FailedPrecondition: Status.FAILED_PRECONDITION,
    errors.StartFailed: Status.FAILED_PRECONDITION,
    errors.ResourceExhausted: Status.RESOURCE_EXHAUSTED,
    errors.Unavailable: Status.UNAVAILABLE,
    errors.Internal: Status.INTERNAL,
}

MAX_TEXT = 2048  # characters


def status_of(error: errors.JobworkerError) -> Status:
    """The status of the error's class, or of its nearest ancestor in the table; INTERNAL when there is none."""
    return next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), Status.INTERNAL)


def to_grpc(error: errors.JobworkerError) -> GRPCError:
    """What the caller is sent: status, message, and the encoded ErrorDetail."""
    detail = ErrorDetail(hint=_clip(error.hint), job_id=error.job_id)
    if isinstance(error, errors.InvalidArgument):
        detail.field = _clip(error.field)
    if isinstance(error, errors.StartFailed):
        detail.start_failure = _clip_failure(error.failure)
    return GRPCError(status_of(error), _clip(error.message), encode(detail))


def from_wire(error: WireError) -> errors.InvalidArgument:
    """Bytes that are not the request they should be."""
    place = error.field or "the request"
    return errors.InvalidArgument(
        f"{place} is malformed: {error.reason}",
        field=error.field,
        hint="encode the request as its .proto file says",
    )


def _clip(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _clip_failure(failure: StartFailure) -> StartFailure:
    return dataclasses.replace(failure, detail=_clip(failure.detail))
