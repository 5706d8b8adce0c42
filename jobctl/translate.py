"""The one border where errors of the network, TLS and gRPC become this library's own.

`map_exceptions` stands around every wait for the network. It also repairs what grpclib leaves behind: grpclib wakes a
waiting task by cancelling it and then replaces the CancelledError, without `uncancel()`, after which no
`asyncio.timeout` or TaskGroup around that task would work any more.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self

from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error

from jobctl import errors
from jobctl.ending import parse_failure
from jobwire.wire import WireError, fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from jobctl.connection import Connection

_ERRNO = re.compile(r"\[Errno (\d+)\]")

BY_STATUS: dict[Status, type[errors.JobctlError]] = {
    Status.CANCELLED: errors.Unavailable,
    Status.UNKNOWN: errors.Internal,
    Status.INVALID_ARGUMENT: errors.InvalidArgument,
    Status.DEADLINE_EXCEEDED: errors.Timeout,
    Status.NOT_FOUND: errors.NotFound,
    Status.ALREADY_EXISTS: errors.AlreadyExists,
    Status.PERMISSION_DENIED: errors.PermissionDenied,
    Status.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    Status.FAILED_PRECONDITION: errors.FailedPrecondition,
    Status.ABORTED: errors.Unavailable,
    Status.OUT_OF_RANGE: errors.InvalidArgument,
    Status.UNIMPLEMENTED: errors.Unsupported,
    Status.INTERNAL: errors.Internal,
    Status.UNAVAILABLE: errors.Unavailable,
    Status.DATA_LOSS: errors.Internal,
    Status.UNAUTHENTICATED: errors.Unauthenticated,
}


class map_exceptions:
    """What is raised inside comes out as a JobctlError with the original as its cause; cancellation passes."""

    __slots__ = ("_cancels", "_connection", "_method")

    def __init__(self, connection: Connection, method: str) -> None:
        self._connection = connection
        self._method = method

    def __enter__(self) -> Self:
        self.here()
        return self

    def here(self) -> None:
        """The running task is the one that waits from now on: a generator is not always advanced by the same."""
        task = asyncio.current_task()
        self._cancels = task.cancelling() if task else 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, errors.JobctlError):
            return
        if isinstance(error, (StreamTerminatedError, TimeoutError)):
            self._undo_cancel(error)
        ours = translate(error, self._connection, self._method)
        if ours is not None:
            raise ours from error

    def _undo_cancel(self, error: BaseException) -> None:
        """Takes grpclib's cancel back; when somebody else has cancelled the task too, that one goes on."""
        task = asyncio.current_task()
        if task is not None and task.cancelling() > self._cancels and task.uncancel() > self._cancels:
            raise asyncio.CancelledError from error


def translate(error: Exception, connection: Connection, method: str) -> errors.JobctlError | None:
    """This library's form of an error from below; None for one that is nobody's but the programmer's."""
    if isinstance(error, GRPCError):
        connection.answered = True
        return _from_status(error, method)
    if isinstance(error, ssl.SSLError):
        return _from_tls(error, connection.context.address)
    if isinstance(error, WireError):
        return errors.Internal(f"the worker's answer cannot be read: {error}")
    if isinstance(error, (StreamTerminatedError, ProtocolError, H2Error, AssertionError, OSError)):
        return _from_network(error, connection)
    return None


def _from_network(error: Exception, connection: Connection) -> errors.ConnectionLost:
    address = connection.context.address
    if type(error) is OSError and error.errno is None:
        error = _of_several(error)
    if isinstance(error, socket.gaierror):
        host = connection.context.endpoint[0]
        return errors.ConnectionLost(f"cannot find the host '{host}'", hint="check the worker's address")
    if isinstance(error, ConnectionRefusedError):
        return errors.ConnectionLost(
            f"no worker answers on {address}: connection refused",
            hint="is it running, and is the address right",
        )
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionResetError):
        return errors.ConnectionLost(
            f"cannot reach the worker on {address}: {os.strerror(error.errno).lower()}",
            hint="check the worker's address and the network",
        )
    if not connection.answered:
        return errors.ConnectionLost(
            f"the worker on {address} closed the connection during setup",
            hint="it may have refused your certificate: is it of the worker's client CA, and not expired",
        )
    return errors.ConnectionLost(f"the connection to {address} is lost")


def _of_several(error: OSError) -> OSError:
    """Of a host's addresses, each of which failed, asyncio tells in one text: the last error in it, a refusal if there is one."""
    numbers = [int(number) for number in _ERRNO.findall(str(error))]
    if not numbers:
        return error
    number = errno.ECONNREFUSED if errno.ECONNREFUSED in numbers else numbers[-1]
    return OSError(number, os.strerror(number))


def _from_tls(error: ssl.SSLError, address: str) -> errors.JobctlError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return errors.Unauthenticated(
            f"the certificate of the worker on {address} is not trusted: {error.verify_message.lower().rstrip('.')}",
            hint="check the context's ca, and that the address is a name in the worker's certificate",
        )
    reason = (getattr(error, "reason", None) or "unknown error").lower().replace("_", " ")
    if "alert" in reason:
        return errors.Unauthenticated(
            f"the worker on {address} refused the connection: {reason}",
            hint="is your certificate of the worker's client CA, and not expired",
        )
    return errors.ConnectionLost(
        f"no TLS connection to {address}: {reason}", hint="is it a worker that listens there"
    )


def _from_status(error: GRPCError, method: str) -> errors.JobctlError:
    detail = _Detail(error.details if isinstance(error.details, bytes) else b"")
    message = error.message or f"the worker answered {error.status.name}"
    if detail.failure is not None:
        return errors.StartFailed(
            message, failure=parse_failure(detail.failure), hint=detail.hint, job_id=detail.job_id
        )
    kind = BY_STATUS.get(error.status, errors.Internal)
    if kind is errors.InvalidArgument:
        return errors.InvalidArgument(message, field=detail.field, hint=detail.hint, job_id=detail.job_id)
    if kind is errors.NotFound and "JobService" in method:
        kind = errors.JobNotFound
    if kind is errors.Unsupported:
        message, detail.hint = (
            f"the worker does not know {method.rpartition('/')[2]}",
            "it is older than this jobctl",
        )
    return kind(message, hint=detail.hint, job_id=detail.job_id)


class _Detail:
    """The ErrorDetail beside a status, as far as it can be read."""

    def __init__(self, data: bytes) -> None:
        found: dict[int, bytes] = {}
        with suppress(WireError):  # the status itself is enough
            found = {number: value for number, _, value in fields(data) if isinstance(value, bytes)}
        self.hint = found.get(1, b"").decode(errors="replace")
        self.field = found.get(2, b"").decode(errors="replace")
        self.failure = found.get(3)
        self.job_id = found.get(4, b"").decode(errors="replace")


@asynccontextmanager
async def time_limit(seconds: float | None, *, of: float | None = None) -> AsyncIterator[None]:
    """Gives up what is inside after `seconds`, the rest `of` what was allowed, as Timeout; None never does."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except errors.Timeout:
        raise
    except TimeoutError as error:
        raise errors.Timeout(f"not done within {seconds if of is None else of:g} s") from error
