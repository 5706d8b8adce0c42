"""The supervisor that is there, whichever it is: found, started when there is none, and found again when it is gone.

Decides when the supervisor is started (when nobody listens), and that nobody can ask for anything while the
link is down or what the supervisor holds is not known yet (Unavailable). How a request gets there and its reply
back is the connection's; what a reply means for a job is `Jobs`' business: after every connection it is given the
chance to compare before others come in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import cast

from jobworker.errors import FailedPrecondition, JobworkerError, Unavailable
from jobworker.supervisor.messages import ExitedEvent, LaunchedEvent, ListedJob, WelcomeReply
from jobworker.supervisor.protocol import PROTOCOL
from jobworker.supervisorconnection import Connection, LinkLostError, Reply, connect
from jobworker.supervisorprocess import READY_SECONDS, AnotherRunsError, Child, start_supervisor

HELLO_SECONDS = 10.0
END_SECONDS = 10.0
FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 30.0

logger = logging.getLogger(__name__)


class SupervisorLink:
    """One connection at a time to the supervisor of a state directory."""

    def __init__(self, state: Path, *, cgroup_root: str | None = None) -> None:
        self.welcome: WelcomeReply | None = None
        self.blocked_jobs = 0  # how many wait because the disk refuses their output
        self._when_blocked: Callable[[int], None] | None = None
        self._state = state
        self._cgroup_root = cgroup_root
        self._connection: Connection | None = None
        self._child: Child | None = None
        self._is_ready = False
        self._is_closing = False
        self._reconnecting: asyncio.Task[None] | None = None
        self._attach: Callable[[], Awaitable[None]]
        self._launched: Callable[[LaunchedEvent], None] = _ignore
        self._exited: Callable[[ExitedEvent], None] = _ignore

    async def open(
        self,
        *,
        attach: Callable[[], Awaitable[None]],
        launched: Callable[[LaunchedEvent], None],
        exited: Callable[[ExitedEvent], None],
    ) -> None:
        """Finds the supervisor or starts it. Raises Unavailable, FailedPrecondition (another version).

        `attach` runs after every connection, before others may ask; `exited` is called for every job that ends,
        `launched` for those that an earlier connection asked for.
        """
        self._attach = attach
        self._launched = launched
        self._exited = exited
        await self._connect()

    def watch_storage(self, changed: Callable[[int], None]) -> None:
        """Calls back with `blocked_jobs` now and whenever that changes."""
        self._when_blocked = changed
        changed(self.blocked_jobs)

    def check(self) -> None:
        """Raises Unavailable while nothing can be asked."""
        if not self._is_ready:
            raise Unavailable("the supervisor cannot be reached at the moment", hint="try again in a moment")

    def ask(self, request: Mapping[str, object]) -> asyncio.Future[Reply]:
        """Sends a request now; its reply, or LinkLostError. Raises Unavailable, or FrameError when it is too large."""
        if self._connection is None:
            raise Unavailable("the supervisor cannot be reached at the moment", hint="try again in a moment")
        return self._connection.ask(request)

    async def list(self) -> list[ListedJob]:
        """Every job that the supervisor holds."""
        reply = await self.ask({"op": "list"})
        return cast("list[ListedJob]", reply["jobs"])

    async def shut_down_if_idle(self) -> bool:
        """Ends the supervisor when it holds no job, and waits for its end; whether it came."""
        connection = self._connection
        if connection is None:
            return False
        self._is_closing = True
        with contextlib.suppress(LinkLostError, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                reply = await connection.ask({"op": "shutdown", "if_idle": True})
                if reply["op"] != "done":
                    return False
                await connection.closed.wait()
        return connection.closed.is_set()

    async def upgrade(self) -> tuple[int, int]:
        """Has the supervisor that runs become the version that is installed; its pid, and how many jobs go on.

        Raises Unavailable when none runs, FailedPrecondition when that version cannot take over: nothing has changed then.
        """
        try:
            connection = await self._open_socket()
            reply = await connection.ask({"op": "upgrade"})
            if reply["op"] != "done":
                raise FailedPrecondition(
                    f"the supervisor goes on as it is: {reply.get('detail')}",
                    hint="see supervisor.log in its state directory",
                )
            await connection.closed.wait()
            self._connection = await self._open_socket()
            welcome = await self._connection.ask({"op": "hello", "protocol": PROTOCOL})
            return int(welcome["pid"]), len(await self.list())
        except (OSError, LinkLostError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise Unavailable(
                f"no supervisor answers in '{self._state}': {reason}", hint="jobworker serve starts one"
            ) from error

    async def close(self) -> None:
        """Lets go of the supervisor, which goes on."""
        self._is_closing = True
        self._is_ready = False
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconnecting
        if self._connection is not None:
            self._connection.close()
            await self._connection.closed.wait()
        if self._child is not None:
            self._child.forget()

    async def _connect(self) -> None:
        connection = self._connection = await self._reach()
        try:
            hello = {"op": "hello", "protocol": PROTOCOL}
            reply = await asyncio.wait_for(connection.ask(hello), HELLO_SECONDS)
            if reply["op"] != "welcome":
                raise FailedPrecondition(
                    f"the supervisor that runs here is of another version: {reply.get('detail')}",
                    hint="run the version that started it, or end its jobs and then it",
                )
            self.welcome = cast("WelcomeReply", reply)
            self._on_blocked(self.welcome["storage_blocked"])
            await self._attach()
            if connection.closed.is_set():
                raise LinkLostError
        except BaseException as error:
            connection.close()
            await connection.closed.wait()
            if isinstance(error, LinkLostError | TimeoutError):
                raise Unavailable("the supervisor does not answer") from error
            raise
        self._is_ready = True

    async def _reach(self) -> Connection:
        """Connects to the supervisor that listens, else to one that is started; another one may be faster."""
        with contextlib.suppress(OSError):
            return await self._open_socket()
        failure: JobworkerError | None = None
        try:
            if self._child is not None:
                self._child.forget()
            self._child = await start_supervisor(self._state, cgroup_root=self._cgroup_root)
        except AnotherRunsError as error:
            return await self._await_other(error)
        except Unavailable as error:
            failure = error
        try:
            return await self._open_socket()
        except OSError as error:
            raise failure or Unavailable(f"cannot connect to the supervisor: {error}") from error

    async def _await_other(self, running: AnotherRunsError) -> Connection:
        """Connects to a supervisor that is on its way up: the socket may be there before anybody listens at it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                pause = FIRST_RETRY_SECONDS
                while True:
                    with contextlib.suppress(OSError):
                        return await self._open_socket()
                    await asyncio.sleep(pause)
                    pause *= 2
        raise running

    async def _open_socket(self) -> Connection:
        return await connect(
            self._state,
            launched=self._launched,
            exited=self._exited,
            storage=lambda event: self._on_blocked(event["blocked"]),
            lost=self._on_lost,
        )

    def _on_blocked(self, blocked: int) -> None:
        self.blocked_jobs = blocked
        if self._when_blocked is not None:
            self._when_blocked(blocked)

    def _on_lost(self) -> None:
        was_ready, self._is_ready = self._is_ready, False
        self._connection = None
        if was_ready and not self._is_closing:
            logger.error("the supervisor is gone")
            self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        """Tries until it works; the pause in between grows, since nothing can tell when to try instead."""
        pause = FIRST_RETRY_SECONDS
        while not self._is_ready:
            try:
                await self._connect()
                if self.welcome is not None:
                    logger.warning("the supervisor is process %d now", self.welcome["pid"])
            except Exception as error:
                if isinstance(error, JobworkerError):
                    logger.error("%s; trying again in %g s", error, pause)
                else:
                    logger.exception("what the supervisor holds could not be compared")
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_RETRY_SECONDS)


def _ignore(_event: object) -> None:
    """What one hears who has not asked to hear of events."""
