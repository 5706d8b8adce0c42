"""Who is connected, and what all of them are told without having asked.

Decides who hears of an event: whoever has said hello, but for the one whose answer tells the same; and how a job is
described to them. When there is something to tell is the engine's business, how it gets there `control`'s.
"""

from __future__ import annotations

from jobworker.supervisor.protocol import frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobworker.supervisor.control import Connection
    from jobworker.supervisor.job import Job

    Message = Mapping[str, object]


class Peers:
    """All connections that are open."""

    __slots__ = ("_connections",)

    def __init__(self) -> None:
        self._connections: set[Connection] = set()

    def add(self, connection: Connection) -> None:
        """Takes in a new connection."""
        self._connections.add(connection)

    def discard(self, connection: Connection) -> None:
        """Forgets a connection that is closed."""
        self._connections.discard(connection)

    def tell_launched(self, job: Job, *, without: Connection | None = None) -> None:
        """Tells that a job's program runs."""
        self._tell({"event": "launched", **summary(job)}, without)

    def tell_end(self, packed: bytes, *, without: Connection | None = None) -> None:
        """Tells of an end: the event is the exit record and one key more."""
        event = frame(b'{"event":"exited",' + packed[1:].rstrip())
        for connection in self._listening(without):
            connection.send_frame(event)

    def tell_storage(self, blocked: int) -> None:
        """Tells how many jobs wait for a disk."""
        self._tell({"event": "storage", "blocked": blocked}, None)

    def _tell(self, event: Message, without: Connection | None) -> None:
        for connection in self._listening(without):
            connection.send(event)

    def _listening(self, without: Connection | None) -> list[Connection]:
        return [each for each in self._connections if each.wants_events and each is not without]


def summary(job: Job) -> Message:
    """What is told of a job that runs."""
    started_ns = job.record["started_ns"]
    return {
        "job": job.name,
        "pid": job.pid,
        "started_ns": started_ns,
        **limited(job),
        "stopping": job.is_stopping,
        "paused": job.paused,
    }


def limited(job: Job) -> Message:
    """The limits that a job is under, and those that it is not."""
    return {"limits": job.limited.in_force, "unenforced": job.limited.unenforced}
