"""Every gRPC status and every error of the network has its place in the tree, and cancellation keeps working."""

import asyncio
import socket
import ssl

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import StreamClosedError

from generated.jobworker import v1
from jobctl import errors
from jobctl.connection import Connection
from jobctl.contexts import Context
from jobctl.translate import BY_STATUS, map_exceptions, time_limit, translate
from jobwire.codec import encode

GET = "/jobworker.v1.JobService/GetJob"


@pytest.fixture
def connection() -> Connection:
    return Connection(Context("worker:9090", "ca.pem", "cert.pem"))


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_every_status_has_a_place(status: Status, connection: Connection) -> None:
    error = translate(GRPCError(status, "no luck"), connection, GET)
    assert isinstance(error, BY_STATUS[status])
    assert connection.answered
    if status is not Status.UNIMPLEMENTED:
        assert str(error) == "no luck"


def test_the_detail_is_carried_over(connection: Connection) -> None:
    detail = encode(v1.ErrorDetail(hint="do this", field="spec.argv", job_id="0199"))
    error = translate(GRPCError(Status.INVALID_ARGUMENT, "spec.argv is empty", detail), connection, GET)
    assert isinstance(error, errors.InvalidArgument)
    assert (error.hint, error.field, error.job_id) == ("do this", "spec.argv", "0199")


def test_a_failed_start(connection: Connection) -> None:
    failure = v1.StartFailure(stage=v1.StartStage(v1.StartStage.EXEC), errno=2, detail="not found")
    detail = encode(v1.ErrorDetail(hint="do this", start_failure=failure, job_id="0199"))
    error = translate(GRPCError(Status.FAILED_PRECONDITION, "cannot start 'x'", detail), connection, GET)
    assert isinstance(error, errors.StartFailed)
    assert (error.stage, error.errno, error.detail) == (v1.StartStage.EXEC, 2, "not found")
    assert (error.exit_status, error.hint, error.job_id) == (127, "do this", "0199")


def test_details_that_cannot_be_read_do_not_hide_the_status(connection: Connection) -> None:
    error = translate(GRPCError(Status.PERMISSION_DENIED, "no", b"\xff\xff"), connection, GET)
    assert isinstance(error, errors.PermissionDenied)
    assert error.hint == ""


def test_not_found_is_a_job_only_where_jobs_are(connection: Connection) -> None:
    missing = GRPCError(Status.NOT_FOUND, "none")
    assert type(translate(missing, connection, GET)) is errors.JobNotFound
    client = translate(missing, connection, "/jobworker.v1.ClientService/RevokeClient")
    assert type(client) is errors.NotFound


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (ConnectionRefusedError(111, "x"), errors.ConnectionLost, "connection refused"),
        (TimeoutError(110, "x"), errors.ConnectionLost, "connection timed out"),
        (OSError(113, "x"), errors.ConnectionLost, "no route to host"),
        (socket.gaierror(-2, "x"), errors.ConnectionLost, "cannot find the host 'worker'"),
        (ConnectionResetError(), errors.ConnectionLost, "during setup"),
        (StreamTerminatedError("Connection lost"), errors.ConnectionLost, "during setup"),
        (ProtocolError("x"), errors.ConnectionLost, "during setup"),
        (StreamClosedError(1), errors.ConnectionLost, "during setup"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] x"), errors.ConnectionLost, "no TLS connection"),
    ],
)
def test_errors_of_the_network(
    error: Exception, kind: type[Exception], says: str, connection: Connection
) -> None:
    found = translate(error, connection, GET)
    assert type(found) is kind
    assert says in str(found)
    assert found is not None
    assert found.hint


def test_a_known_worker_that_went_away_is_not_accused(connection: Connection) -> None:
    connection.answered = True
    found = translate(StreamTerminatedError("Connection lost"), connection, GET)
    assert str(found) == "the connection to worker:9090 is lost"


async def test_a_programmers_error_is_left_alone(connection: Connection) -> None:
    with pytest.raises(KeyError), map_exceptions(connection, GET):
        raise KeyError("x")


async def test_the_original_stays_as_cause(connection: Connection) -> None:
    original = GRPCError(Status.NOT_FOUND, "none")
    with pytest.raises(errors.JobNotFound) as raised, map_exceptions(connection, GET):
        raise original
    assert raised.value.__cause__ is original


async def lose_the_connection(connection: Connection) -> None:
    """What grpclib does to a task that waits: cancel it, and replace the CancelledError."""
    with map_exceptions(connection, GET):
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise StreamTerminatedError("Connection lost") from None


async def test_a_timeout_works_after_a_lost_connection(connection: Connection) -> None:
    async def lose_it_and_wait() -> None:
        async with time_limit(0.01):
            with pytest.raises(errors.ConnectionLost):
                await lose_the_connection(connection)
            await asyncio.Event().wait()

    with pytest.raises(errors.Timeout):
        await lose_it_and_wait()


async def test_a_cancel_at_the_same_moment_is_not_lost(connection: Connection) -> None:
    async def both() -> None:
        task = asyncio.current_task()
        assert task is not None
        with map_exceptions(connection, GET):
            task.cancel()
            task.cancel()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise StreamTerminatedError("Connection lost") from None

    task = asyncio.create_task(both())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_time_limit_is_a_timeout_of_both_kinds() -> None:
    with pytest.raises(TimeoutError) as raised:
        async with time_limit(0):
            await asyncio.Event().wait()
    assert isinstance(raised.value, errors.Timeout)
    assert isinstance(raised.value, errors.JobctlError)
    assert str(raised.value) == "not done within 0 s"


async def test_a_host_with_several_addresses_of_which_none_answers(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(errors.ConnectionLost, match="connection refused"), map_exceptions(connection, GET):
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, "worker", port)
