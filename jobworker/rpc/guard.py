"""The one door: every call of every service passes here, health and reflection too.

For each call, in this order: who is it (identity) → may it at all (role and verb) → the request's bytes →
decoded → well-formed → the handler → encoded. Whatever goes wrong leaves as a status with an ErrorDetail;
a defect is INTERNAL and a traceback in the log, nothing of it is told. Ownership of jobs is not decided
here. Open calls are known by client: a revocation and a shutdown end them with a reason, which grpclib by
itself does not tell the peer. Every generator is closed, however its call ends.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from betterproto import Message
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from h2.exceptions import ProtocolError

from generated.jobworker.v1 import RunJobRequest, StartJobRequest
from jobwire.codec import decode, encode
from jobwire.wire import WireError
from jobworker import errors, policy
from jobworker.identity import Identity
from jobworker.rpc import status, validate
from jobworker.rpc.calls import Call, OpenCalls
from jobworker.rpc.streams import Parts, Reply, ServerStream, receive
from jobworker.store import AuditStore

log = logging.getLogger(__name__)

Answer = Message | bytes
Unary = Callable[[Call, Any], Awaitable[Answer]]
Streaming = Callable[[Call, Any], AsyncGenerator[Sequence[Parts], None]]
Serve = Callable[[ServerStream], Awaitable[None]]

WITH_SPEC = (StartJobRequest, RunJobRequest)
SMALL_REQUEST = 128 * 1024  # bytes; every request without a job's spec fits
DECODE_ASIDE = 256 * 1024  # bytes; a larger request is decoded in a thread, lest it stop the others
UNARY = Cardinality.UNARY_UNARY
WAITING = {"WaitJob"}  # unary verbs that wait for a job

AUDITED = frozenset(verb for verb, roles in policy.VERBS.items() if policy.VIEWER not in roles)


class Service(Protocol):
    """What a service of grpclib is: path to handler."""

    def __mapping__(self) -> Mapping[str, Handler]: ...


@dataclass(frozen=True, slots=True)
class _Method:
    verb: str
    request: type[Any]
    limit: int
    waits: bool
    audited: bool


class Guarded:
    """A service as the server sees it: what the door let through."""

    def __init__(self, mapping: dict[str, Handler]) -> None:
        self._mapping = mapping

    def __mapping__(self) -> dict[str, Handler]:
        return self._mapping


class Guard:
    """The door."""

    def __init__(
        self,
        *,
        identity: Identity,
        calls: OpenCalls,
        audit: AuditStore,
        max_request: int,
        patience: float | None,
    ) -> None:
        self._patience = patience
        self._identity = identity
        self._calls = calls
        self._audit = audit
        self._max_request = max_request

    def service(self, base: Service, *handlers: object) -> Guarded:
        """Every method of a generated service, handled by the method of that name, in snake case, of a handler.

        KeyError when a verb has no roles or its request no check, StopIteration when nobody handles it.
        """
        mapping = {}
        for path, generated in base.__mapping__().items():
            verb = path.rpartition("/")[2]
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", verb).lower()
            handle = next(getattr(handler, name) for handler in handlers if hasattr(handler, name))
            streaming = generated.cardinality is Cardinality.UNARY_STREAM
            method = _Method(
                verb=verb,
                request=generated.request_type,
                limit=self._max_request if generated.request_type in WITH_SPEC else SMALL_REQUEST,
                waits=streaming or verb in WAITING,
                audited=verb in AUDITED,
            )
            _ = policy.VERBS[verb], validate.CHECKS[method.request]
            serve = self._stream(method, handle) if streaming else self._unary(method, handle)
            mapping[path] = Handler(serve, generated.cardinality, bytes, bytes)
        return Guarded(mapping)

    def foreign(self, service: Service, *, wrap: Callable[[ServerStream, Handler], Any]) -> Guarded:
        """A service that brings its own handlers and messages: any registered client may use it."""
        mapping = {}
        for path, handler in service.__mapping__().items():
            serve = self._foreign(path, handler, wrap)
            mapping[path] = Handler(serve, handler.cardinality, bytes, bytes)
        return Guarded(mapping)

    def every(self, mapping: Mapping[str, Handler]) -> dict[str, Handler]:
        """The mapping, with a handler for every other path too: grpclib's own refusal is one its client cannot read."""

        async def refuse(stream: Any) -> None:
            raise GRPCError(Status.UNIMPLEMENTED, "this worker has no such method")

        unknown = Handler(
            self._foreign("unknown", Handler(refuse, UNARY, bytes, bytes), _as_it_is), UNARY, bytes, bytes
        )
        return _Every(mapping, unknown)

    def _unary(self, method: _Method, handle: Unary) -> Serve:
        async def serve(stream: ServerStream) -> None:
            call = None
            unrecorded = method.audited
            try:
                call = self._enter(stream, method.verb, waits=method.waits)
                self._authorize(call)
                request = await _request(stream, method)
                answer = await handle(call, request)
                data = answer if isinstance(answer, bytes) else encode(answer)
                if unrecorded:
                    self._record(call, Status.OK)
                    unrecorded = False
                reply = Reply(stream, patience=self._patience)
                await reply.send(((data,),))
                await reply.finish()
            except BaseException as error:
                raise self._refused(error, method.verb, call, audited=unrecorded) from None

        return serve

    def _stream(self, method: _Method, handle: Streaming) -> Serve:
        async def serve(stream: ServerStream) -> None:
            call = None
            unrecorded = method.audited
            try:
                call = self._enter(stream, method.verb, waits=method.waits)
                self._authorize(call)
                request = await _request(stream, method)
                reply = Reply(stream, patience=self._patience)
                async with aclosing(handle(call, request)) as batches:
                    async for batch in batches:
                        if unrecorded:  # what changes something has done so before its first event
                            self._record(call, Status.OK)
                            unrecorded = False
                        await reply.send(batch)
                        del batch  # while the next one is waited for
                await reply.finish()
            except BaseException as error:
                raise self._refused(error, method.verb, call, audited=unrecorded) from None

        return serve

    def _foreign(self, path: str, handler: Handler, wrap: Callable[[ServerStream, Handler], Any]) -> Serve:
        async def serve(stream: ServerStream) -> None:
            call = None
            try:
                call = self._enter(stream, path, waits=True)
                await handler.func(wrap(stream, handler))
            except BaseException as error:
                raise self._refused(error, path, call, audited=False) from None

        return serve

    def _enter(self, stream: ServerStream, verb: str, *, waits: bool) -> Call:
        call = Call(stream, self._identity.caller(stream.peer), verb=verb, waits=waits)
        if self._calls.refusal is not None:
            raise self._calls.refusal
        self._calls.add(call)
        return call

    def _authorize(self, call: Call) -> None:
        caller = call.caller
        if not policy.may(caller.role, call.verb):
            role = str(caller.role.name).lower()
            raise errors.PermissionDenied(
                f"client '{caller.client_id}' may not use {call.verb}: its role is {role}",
                hint="ask an admin to register it with another role",
            )

    def _refused(self, error: BaseException, verb: str, call: Call | None, *, audited: bool) -> BaseException:
        """What grpclib makes the call's status of. It is raised elsewhere: a frame that an error comes from must not hold it."""
        refusal = _refusal(error, verb, call)
        if audited and call is not None:
            if isinstance(error, errors.JobworkerError):
                call.subject = call.subject or error.job_id
            self._record(call, refusal.status if isinstance(refusal, GRPCError) else Status.CANCELLED)
        return refusal

    def _record(self, call: Call, result: Status) -> None:
        self._audit.append(
            unix_nano=time.time_ns(),
            client=call.caller.client_id,
            verb=call.verb,
            job=call.subject,
            peer=call.address,
            decision="denied" if result is Status.PERMISSION_DENIED else "allowed",
            result=result.name.lower(),
        )


class _Every(dict[str, Handler]):
    """A mapping that has every path."""

    def __init__(self, mapping: Mapping[str, Handler], unknown: Handler) -> None:
        super().__init__(mapping)
        self._unknown = unknown

    def get(self, key: str, default: object = None) -> Handler:  # what grpclib asks with
        return super().get(key, self._unknown)


def _as_it_is(stream: ServerStream, handler: Handler) -> ServerStream:
    return stream


async def _request(stream: ServerStream, method: _Method) -> Any:
    data = await receive(stream, limit=method.limit)
    try:
        if len(data) > DECODE_ASIDE:
            request = await asyncio.to_thread(decode, method.request, data)
        else:
            request = decode(method.request, data)
    except WireError as error:
        raise status.from_wire(error) from error
    validate.check(request)
    return request


def _refusal(error: BaseException, verb: str, call: Call | None) -> BaseException:
    if isinstance(error, errors.JobworkerError):
        if isinstance(error, errors.Internal):
            log.error("%s failed: %s", verb, error.message)
        return status.to_grpc(error)
    if isinstance(error, asyncio.CancelledError):
        return _ended(error, call)
    if isinstance(error, ProtocolError):
        return GRPCError(Status.CANCELLED, "the stream was closed")  # and nobody is there to be told
    if isinstance(error, GRPCError) or not isinstance(error, Exception):
        return error
    log.error("%s failed", verb, exc_info=error)
    return status.to_grpc(errors.Internal("internal error", hint="the worker's log says more"))


def _ended(error: asyncio.CancelledError, call: Call | None) -> BaseException:
    """A cancelled call: by its peer or its deadline (grpclib knows what to do), else by us."""
    if call is not None and call.ending is not None:
        return status.to_grpc(call.ending)
    if call is not None and call.abandoned:
        return error
    return status.to_grpc(errors.Unavailable("the worker has ended this call", hint="try again"))
