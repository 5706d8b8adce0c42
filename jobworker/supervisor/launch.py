"""From a checked request to a running program, or to a typed failure that leaves nothing but its record.

Decides the order of the preparations (directories, files, a child, its limits) and undoes them when one fails; then
gives the child its order and awaits the exec without blocking anybody, since a program may lie on a slow disk.
What the child does meanwhile is in `child`, where it comes from in `nursery`; the running job is `job`'s.
"""

from __future__ import annotations

import contextlib
import os
import time

from jobworker.supervisor import exitrecord, jobfiles, limits
from jobworker.supervisor.capture import Capture
from jobworker.supervisor.child import Order
from jobworker.supervisor.job import Job
from jobworker.supervisor.journal import note
from jobworker.supervisor.loop import READ
from jobworker.supervisor.nurse import PROCESS_NAME
from jobworker.supervisor.nursery import Nursery, Seat, StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.supervisor.job import Host
    from jobworker.supervisor.limits import Limited
    from jobworker.supervisor.messages import ExitRecord, StartFailure
    from jobworker.supervisor.requests import LaunchSpec

    Done = Callable[[ExitRecord, Job | None], None]

_FORKED_NOT_EXECUTED = 0x40  # PF_FORKNOEXEC in the flags of /proc/PID/stat (include/linux/sched.h)


class Launcher:
    """What all launches share; opened once."""

    __slots__ = ("boot_id", "host", "null_fd", "nursery", "proc_fd")

    def __init__(self, host: Host, nursery: Nursery, *, boot_id: str) -> None:
        self.host = host
        self.nursery = nursery
        self.boot_id = boot_id
        self.null_fd = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self.proc_fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def launch(self, spec: LaunchSpec, done: Done) -> Job | None:
        """Starts a job; calls back once its program runs, or never will and the record says why.

        The job is given back while that is open, None when it has failed already. FileExistsError when its directory
        is there already: an id is launched at most once.
        """
        attempt = _Attempt(self, spec, done)
        try:
            return attempt.start()
        except StartError as error:
            attempt.give_up(error.failure)
            return None


class _Attempt:
    """One launch from its first directory to the moment its outcome is known."""

    __slots__ = (
        "_done",
        "_failure",
        "_has_scratch",
        "_host",
        "_job",
        "_launcher",
        "_record",
        "_spec",
        "_status_fd",
    )

    def __init__(self, launcher: Launcher, spec: LaunchSpec, done: Done) -> None:
        self._launcher = launcher
        self._host = launcher.host
        self._spec = spec
        self._done = done
        self._record = exitrecord.blank(spec.job, boot_id=launcher.boot_id)
        self._failure: StartFailure | None = None
        self._has_scratch = False
        self._job: Job | None = None
        self._status_fd = -1

    def start(self) -> Job:
        """Prepares everything and sends a child on its way; StartError leaves the undoing to `give_up`."""
        seat = self._take_seat()
        try:
            self._make_scratch()
            limited = self._limit(seat)
        except limits.LimitError as error:
            seat.discard()
            raise StartError("limit", error.errno, error.detail) from error
        except OSError as error:
            seat.discard()
            where = f" {os.fsdecode(error.filename)}" if error.filename else ""
            number = error.errno or 0
            raise StartError("setup", number, f"cannot make{where}: {os.strerror(number).lower()}") from error
        return self._send_off(seat, limited)

    def _limit(self, seat: Seat) -> Limited:
        spec = self._spec
        return limits.apply(
            seat.leaf, seat.pid, spec.limits, unenforced=spec.unenforced, best_effort=spec.best_effort
        )

    def _take_seat(self) -> Seat:
        """A child whose directory is this job's from now on."""
        nursery, job, jobs_fd = self._launcher.nursery, self._spec.job, self._host.jobs_fd
        try:
            seat = nursery.take()
        except StartError:
            jobfiles.claim_empty(job, jobs_fd=jobs_fd)
            raise
        try:
            jobfiles.claim(seat.number, job, jobs_fd=jobs_fd)
        except OSError:
            nursery.put_back(seat)
            raise
        return seat

    def give_up(self, failure: StartFailure) -> None:
        """Removes every trace of the attempt, then records and reports why it failed."""
        spec, record = self._spec, self._record
        if self._job is not None:
            self._job.release()
        jobfiles.strip(spec.job, jobs_fd=self._host.jobs_fd)
        if self._has_scratch and spec.scratch is not None:
            with contextlib.suppress(OSError):
                os.rmdir(spec.scratch)
        record["start_failure"] = failure
        record["ended_ns"] = time.time_ns()
        with contextlib.suppress(OSError):  # the answer tells; without the record a later reader sees no end
            exitrecord.write(spec.job, exitrecord.pack(record), dir_fd=self._host.jobs_fd)
        self._done(record, self._job)

    def _make_scratch(self) -> None:
        spec = self._spec
        if spec.scratch is None:
            return
        os.mkdir(spec.scratch, 0o700)
        self._has_scratch = True
        if spec.uid is not None and spec.gid is not None:
            os.chown(spec.scratch, spec.uid, spec.gid)

    def _send_off(self, seat: Seat, limited: Limited) -> Job:
        spec, loop = self._spec, self._host.loop
        seat.give(Order(spec.argv, spec.env, spec.workdir, spec.uid, spec.gid))
        null_fd = self._launcher.null_fd
        capture = Capture(
            loop, self._host.disk, log=seat.log, index=seat.index, null=null_fd, cap=spec.output
        )
        job = Job(self._host, seat, record=self._record, capture=capture, wait_for_tree=spec.wait_for_tree)
        job.limited = limited
        self._job = job
        self._status_fd = seat.status
        loop.watch(seat.status, READ, lambda _events: self._on_status(job))
        capture.attach(stdout=seat.stdout, stderr=seat.stderr)
        return job

    def _on_status(self, job: Job) -> None:
        """The status pipe has a failure to tell, or was closed: by an exec, or by the child's death."""
        try:
            report = os.read(self._status_fd, 4096)
        except BlockingIOError:
            return
        self._host.loop.unwatch(self._status_fd)
        os.close(self._status_fd)
        self._failure = _parse(report) if report else None
        if report or not self._has_executed(job.pid):
            self._host.loop.watch(job.pidfd, READ, lambda _events: self._on_death(job))
            return
        job.begin(self._spec.timeout_ms)
        self._done(self._record, job)

    def _on_death(self, job: Job) -> None:
        result = os.waitid(os.P_PIDFD, job.pidfd, os.WEXITED | os.WNOHANG)
        if result is not None:
            self.give_up(self._failure or self._explain_death(result))

    def _explain_death(self, result: os.waitid_result) -> StartFailure:
        how = f"exited with {result.si_status}"
        if result.si_code != os.CLD_EXITED:
            how = f"was killed by signal {result.si_status}"
            self._launcher.nursery.doubt_clone()
        note(f"job {self._spec.job}: the child {how} before exec")
        return {"stage": "setup", "errno": 0, "detail": f"the child {how} before exec"}

    def _has_executed(self, pid: int) -> bool:
        """Told by the process's name, which exec replaces; asked of its flags only when a program has our name."""
        if self._read_proc(f"{pid}/comm").rstrip(b"\n") != PROCESS_NAME:
            return True
        fields = self._read_proc(f"{pid}/stat").rpartition(b")")[2].split()
        return not int(fields[6]) & _FORKED_NOT_EXECUTED

    def _read_proc(self, path: str) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._launcher.proc_fd)
        try:
            return os.read(fd, 4096)
        finally:
            os.close(fd)


def _parse(report: bytes) -> StartFailure:
    stage, number, detail = report.decode("utf-8", "replace").split("\n", 2)
    return {"stage": stage, "errno": int(number), "detail": detail}  # type: ignore[typeddict-item]  # one of ours
