"""Every domain error has a status of its own, and what it knows arrives with it."""

from collections.abc import Iterator

import pytest
from grpclib.const import Status

from generated.jobworker.v1 import ErrorDetail, JobRecord, StartFailure, StartStage
from jobwire.codec import decode
from jobwire.wire import WireError
from jobworker import errors
from jobworker.rpc import status


def below(cls: type[errors.JobworkerError]) -> Iterator[type[errors.JobworkerError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from below(sub)


FAILURE = StartFailure(stage=StartStage(StartStage.EXEC), errno=2, detail="not found")


def an_error(cls: type[errors.JobworkerError]) -> errors.JobworkerError:
    if cls is errors.InvalidArgument:
        return errors.InvalidArgument("spec.argv is empty", field="spec.argv", hint="say what to run")
    if cls is errors.StartFailed:
        return errors.StartFailed(
            "cannot start", failure=FAILURE, record=JobRecord(), hint="give a path", job_id="j"
        )
    return cls("it is so", hint="do this", job_id="j")


OURS = [cls for cls in below(errors.JobworkerError) if cls.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", OURS)  # a finer one of another module has its ancestor's status
def test_every_error_is_in_the_table(cls: type[errors.JobworkerError]) -> None:
    assert cls in status.STATUS
    error = an_error(cls)
    sent = status.to_grpc(error)
    assert sent.status is status.STATUS[cls]
    assert sent.status not in (Status.OK, Status.UNKNOWN)
    assert sent.message == error.message
    detail = decode(ErrorDetail, sent.details)
    assert (detail.hint, detail.job_id) == (error.hint, error.job_id)
    assert detail.field == getattr(error, "field", "")
    assert detail.start_failure == (FAILURE if cls is errors.StartFailed else None)


def test_an_error_that_is_more_special_than_the_table_has_its_ancestors_status() -> None:
    class Lost(errors.NotFound):
        pass

    assert status.status_of(Lost("gone")) is Status.NOT_FOUND


def test_long_texts_are_clipped_to_what_a_header_holds() -> None:
    error = errors.InvalidArgument("x" * 100_000, field="f" * 100_000, hint="h" * 100_000)
    sent = status.to_grpc(error)
    assert sent.message is not None
    assert len(sent.message) == status.MAX_TEXT
    assert sent.message.endswith("…")
    assert len(sent.details) < 16_384


def test_bytes_that_are_no_message_name_the_field() -> None:
    refused = status.from_wire(WireError("not valid UTF-8", field="spec.argv"))
    assert refused.field == "spec.argv"
    assert refused.message == "spec.argv is malformed: not valid UTF-8"
    assert status.from_wire(WireError("the message is cut off")).message.startswith(
        "the request is malformed"
    )
