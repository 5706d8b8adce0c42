"""What the supervisor does for its peers: one method per request.

Decides which job a request means and what is answered; keeps the jobs that have not ended, and nothing of
those that have. How a job starts and ends is `launch`'s and `job`'s business, who hears of it `peers`'s.
"""

from __future__ import annotations

import gc
import os
import signal
from functools import partial

from jobworker.supervisor import abilities, cgroup_none, exitrecord, limitrequests, limits, peers, requests
from jobworker.supervisor.control import Connection
from jobworker.supervisor.disk import Disk
from jobworker.supervisor.journal import note
from jobworker.supervisor.peers import Peers
from jobworker.supervisor.protocol import PROTOCOL, BadRequestError
from jobworker.supervisor.succession import Succession

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from jobworker.supervisor.custody import Custody
    from jobworker.supervisor.job import Job
    from jobworker.supervisor.jobfacts import ExitRecord, Unenforced
    from jobworker.supervisor.launch import Launcher
    from jobworker.supervisor.loop import Loop, Timer
    from jobworker.supervisor.messages import Cgroups, ErrorKind

    Message = Mapping[str, object]

# automatic collection is off; cycles of exceptions and frames still pile up slowly
_JOBS_PER_COLLECTION = 1000
# a job that has just begun, and may be a short one, should not have to share its processor with the nurse
_REFILL_DELAY_NS = 5_000_000
_SHUTDOWN_NS = 20_000_000_000  # for the jobs to be gone and recorded


class RefusedError(Exception):
    """A request that is well-formed and is not carried out."""

    def __init__(self, kind: ErrorKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class Engine:
    """All state of the supervisor; `launcher` is set before the loop runs. Implements `host.Host`."""

    def __init__(self, loop: Loop, *, jobs_fd: int, boot_id: str, started_ns: int, custody: Custody) -> None:
        self.loop = loop
        self.jobs_fd = jobs_fd
        self.proc_fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.null_fd = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self.custody = custody
        self._peers = Peers()
        self.disk = Disk(loop, self._peers.tell_storage)
        self._boot_id = boot_id
        self.launcher: Launcher
        self._started_ns = started_ns
        self._jobs: dict[str, Job] = {}
        self.succession = Succession(loop, custody, self._jobs.values)
        self.is_managed = False  # by a service manager, whose it is to end us
        self._is_shutting_down = False
        self._ended_count = 0
        self._refill: Timer | None = None
        self._unenforced: list[Unenforced] | None = None  # not tried yet

    def admit(self, peer: socket.socket) -> None:
        """Serves a new connection."""
        self._peers.add(Connection(self.loop, peer, handle=self._handle, on_close=self._peers.discard))

    def add(self, job: Job) -> None:
        """Takes in a job that an earlier supervisor began."""
        self._jobs[job.name] = job

    def count(self) -> int:
        """How many jobs have not ended."""
        return len(self._jobs)

    def doubt_clone(self) -> None:
        """A child was killed before its exec."""
        self.launcher.nursery.doubt_clone()

    def on_launched(self, record: ExitRecord, job: Job | None) -> None:
        """The outcome of a launch that an earlier supervisor began; nobody waits for an answer any more."""
        if record["start_failure"] is None and job is not None:
            self._peers.tell_launched(job)
        else:
            self._jobs.pop(record["job"], None)
            self._peers.tell_end(exitrecord.pack(record))
            self._stop_when_idle()

    def shut_down(self) -> None:
        """Kills all jobs, and ends the loop when each has its exit record."""
        if self._is_shutting_down:
            return
        self._is_shutting_down = True
        self.succession.close()
        note(f"shutting down, {len(self._jobs)} jobs are killed")
        for job in list(self._jobs.values()):
            self.loop.defer(partial(job.stop, signal.SIGKILL, grace_ms=0))
        self.loop.call_after(_SHUTDOWN_NS, self._give_up)
        self._stop_when_idle()

    def ended(self, job: Job, packed: bytes) -> None:
        """Tells every subscriber; called when the exit record is in place."""
        self._jobs.pop(job.name, None)
        self._peers.tell_end(packed)
        self._ended_count += 1
        if self._ended_count % _JOBS_PER_COLLECTION == 0:
            self.loop.defer(_collect)
        self.loop.defer(self.launcher.nursery.refill)
        self._stop_when_idle()

    def _handle(self, connection: Connection, request: Message) -> None:
        operation = _OPERATIONS.get(str(request.get("op")))
        try:
            if operation is None:
                raise BadRequestError("field 'op' is not an operation of this protocol")
            reply = operation(self, connection, request)
        except BadRequestError as error:
            reply = _error("bad_request", detail=str(error))
        except RefusedError as error:
            reply = _error(error.kind, detail=error.detail)
        except limits.LimitError as error:
            reply = _error("limit", errno=error.errno, detail=error.detail)
        except OSError as error:
            number = error.errno or 0
            reply = _error("os_error", errno=number, detail=os.strerror(number).lower())
        if reply is not None:
            connection.send({**reply, "seq": request.get("seq")})

    def _hello(self, connection: Connection, request: Message) -> Message:
        if requests.integer(request, "protocol") != PROTOCOL:
            raise BadRequestError(f"field 'protocol' must be {PROTOCOL}, which is what is spoken here")
        connection.wants_events = True
        return {
            "op": "welcome",
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "boot_id": self._boot_id,
            "started_ns": self._started_ns,
            "cgroup": self._describe_cgroups(),
            "storage_blocked": self.disk.blocked,
        }

    def _launch(self, connection: Connection, request: Message) -> None:
        spec = requests.LaunchSpec(request)
        if self._is_shutting_down:
            raise RefusedError("busy", "the supervisor is shutting down")
        seq = request.get("seq")
        try:
            job = self.launcher.launch(
                spec, lambda record, job: self._answer_launch(connection, seq, record, job)
            )
        except FileExistsError:
            raise RefusedError("exists", f"job {spec.job} was launched before") from None
        if job is not None:
            self._jobs[spec.job] = job

    def _answer_launch(
        self, connection: Connection, seq: object, record: ExitRecord, job: Job | None
    ) -> None:
        failure = record["start_failure"]
        if failure is None and job is not None:
            begun = {"pid": job.pid, "started_ns": record["started_ns"], **peers.limited(job)}
            connection.send({"op": "launched", "seq": seq, "job": job.name, **begun})
            self._peers.tell_launched(job, without=connection)
        else:
            self._jobs.pop(record["job"], None)
            connection.send({"op": "failed", "seq": seq, "job": record["job"], **(failure or {})})
            self._peers.tell_end(exitrecord.pack(record), without=connection)
            self._stop_when_idle()
        if self._refill is not None:
            self._refill.cancel()
        self._refill = self.loop.call_after(_REFILL_DELAY_NS, self.launcher.nursery.refill)

    def _stop(self, _connection: Connection, request: Message) -> Message:
        job = self._find(request)
        job.stop(requests.signal_number(request), grace_ms=requests.integer(request, "grace_ms"))
        return {"op": "done"}

    def _signal(self, _connection: Connection, request: Message) -> Message:
        job = self._find(request)
        number = requests.signal_number(request)
        if requests.flag(request, "tree"):
            job.signal_tree(number)
        else:
            job.main.signal(number)
        return {"op": "done"}

    def _update(self, _connection: Connection, request: Message) -> Message:
        job = self._find(request)
        limited = limits.update(
            job.leaf,
            job.limited,
            limitrequests.limits(request),
            lift=limitrequests.lift(request),
            unenforced=limitrequests.unenforced(request),
            best_effort=requests.flag(request, "best_effort"),
        )
        job.limit(limited)
        return {"op": "updated", **peers.limited(job)}

    def _pause(self, _connection: Connection, request: Message) -> Message:
        job = self._find(request)
        if job.is_stopping:
            raise RefusedError("busy", "it is on its way to its end")
        if self.launcher.nursery.tree is None:
            raise RefusedError(
                "os_error", "this host gives the worker no cgroups, and nothing else can pause"
            )
        job.pause()
        return {"op": "done"}

    def _resume(self, _connection: Connection, request: Message) -> Message:
        self._find(request).resume()
        return {"op": "done"}

    def _usage(self, _connection: Connection, request: Message) -> Message:
        job = self._find(request)
        return {"op": "usage", "usage": job.usage(), "output": job.capture.describe()}

    def _list(self, _connection: Connection, _request: Message) -> Message:
        return {"op": "jobs", "jobs": [peers.summary(job) for job in self._jobs.values()]}

    def _shutdown(self, _connection: Connection, request: Message) -> Message:
        if requests.flag(request, "if_idle") and self._jobs:
            raise RefusedError("busy", f"{len(self._jobs)} jobs have not ended")
        if requests.flag(request, "if_idle") and self.is_managed:
            raise RefusedError("busy", "a service manager runs this supervisor")
        self.loop.defer(self.shut_down)
        return {"op": "done"}

    def _upgrade(self, connection: Connection, request: Message) -> None:
        seq = request.get("seq")

        def answer(refusal: str) -> None:
            reply = _error("busy", detail=refusal) if refusal else {"op": "done"}
            connection.send({**reply, "seq": seq})

        self.succession.upgrade(answer)

    def _find(self, request: Message) -> Job:
        name = requests.job_id(request)
        job = self._jobs.get(name)
        if job is None:
            raise RefusedError("no_such_job", f"job {name} is not running")
        return job

    def _describe_cgroups(self) -> Cgroups:
        tree = self.launcher.nursery.tree
        if self._unenforced is None:
            self._unenforced = abilities.missing(tree)
        here = cgroup_none.describe() if tree is None else tree.describe()
        return {**here, "unenforced": self._unenforced}

    def _stop_when_idle(self) -> None:
        if self._is_shutting_down and not self._jobs:
            self.loop.defer(self.loop.stop)  # after the last job's own cleaning up

    def _give_up(self) -> None:
        note(f"{len(self._jobs)} jobs could not be ended")
        self.loop.stop()


_OPERATIONS = {
    "hello": Engine._hello,
    "launch": Engine._launch,
    "stop": Engine._stop,
    "signal": Engine._signal,
    "update": Engine._update,
    "pause": Engine._pause,
    "resume": Engine._resume,
    "usage": Engine._usage,
    "list": Engine._list,
    "shutdown": Engine._shutdown,
    "upgrade": Engine._upgrade,
}


def _error(kind: ErrorKind, *, detail: str, errno: int = 0) -> Message:
    return {"op": "error", "error": kind, "errno": errno, "detail": detail}


def _collect() -> None:
    gc.collect()
