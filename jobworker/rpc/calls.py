"""The calls that are being served, so that they can be ended with a reason: by client, or all that wait.

Ending a call cancels its task; the door turns that into the reason given here. A peer that takes no bytes
would never receive it, so after a moment its connection is cut.
"""

from __future__ import annotations

import asyncio
from typing import cast

from jobworker.errors import JobworkerError, Unauthenticated, Unavailable
from jobworker.identity import Identity, address_of
from jobworker.policy import Caller
from jobworker.rpc.streams import ServerStream

PATIENCE = 1.0  # seconds a peer has to take the reason why its call ends


class Call:
    """One call being served: who makes it, and what is known of it for the audit."""

    __slots__ = ("address", "caller", "ending", "stream", "subject", "task", "verb", "waits")

    def __init__(self, stream: ServerStream, caller: Caller, *, verb: str, waits: bool) -> None:
        self.stream = stream
        self.caller = caller
        self.address = address_of(stream.peer)  # now: a connection that is lost does not tell any more
        self.verb = verb
        self.waits = waits  # for a job, not for us: nothing is lost when it is ended and made again
        self.subject = ""  # the job or client it is about
        self.task = cast("asyncio.Task[None]", asyncio.current_task())
        self.ending: JobworkerError | None = None

    @property
    def abandoned(self) -> bool:
        """Whether the peer has cancelled it, its deadline has passed, or its connection is gone."""
        wrapper = self.stream._stream.wrapper
        return wrapper is not None and bool(wrapper.cancelled)


class OpenCalls:
    """All of them."""

    def __init__(self) -> None:
        self._calls: set[Call] = set()
        self._none = asyncio.Event()
        self._none.set()
        self.refusal: JobworkerError | None = None  # what new calls are told, once the worker shuts down

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        """A call is open until its task is done: until its status has been taken, too."""
        self._calls.add(call)
        self._none.clear()
        call.task.add_done_callback(lambda _: self._discard(call))

    def _discard(self, call: Call) -> None:
        self._calls.discard(call)
        if not self._calls:
            self._none.set()

    def end_waiting(self, error: JobworkerError) -> None:
        """Ends the calls that wait for a job, with this error."""
        self._end([call for call in self._calls if call.waits], error)

    def end_all(self, error: JobworkerError) -> None:
        """Ends whatever is left, with this error."""
        self._end(list(self._calls), error)

    def recheck(self, identity: Identity, *, but: Call | None = None) -> None:
        """Ends the calls of clients that are none any more, with what a new call of theirs would be told.

        Those of a client that was registered anew meanwhile end too: it may have other rights now.
        """
        for call in self._calls - {but}:
            try:
                caller = identity.caller(call.stream.peer)
            except Unauthenticated as error:
                self._end([call], error)
                continue
            if caller != call.caller:
                anew = f"client '{caller.client_id}' was registered anew"
                self._end([call], Unavailable(anew, hint="make the call again"))

    async def none(self) -> None:
        """Returns once no call is open."""
        await self._none.wait()

    def _end(self, calls: list[Call], error: JobworkerError) -> None:
        for call in calls:
            if call.ending is None:
                call.ending = error
                call.task.cancel()
        if calls:
            asyncio.get_running_loop().call_later(PATIENCE, self._cut, calls)

    def _cut(self, calls: list[Call]) -> None:
        for call in calls:
            if call in self._calls:
                call.stream._stream._transport.abort()
