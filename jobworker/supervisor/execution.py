"""A child on its way from its order to its program, and what became of that.

Decides whether the program was executed: success is silent, since exec closes the status pipe, and a failure is told
there. Nothing here blocks, since a program may lie on a slow disk. A supervisor that takes over awaits what the one before
it began in the same way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

from jobworker.supervisor import exitrecord, jobfiles, runstate
from jobworker.supervisor.journal import note
from jobworker.supervisor.loop import READ
from jobworker.supervisor.nurse import PROCESS_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.supervisor.host import Host
    from jobworker.supervisor.job import Job
    from jobworker.supervisor.jobfacts import ExitRecord, StartFailure

    Done = Callable[[ExitRecord, Job | None], None]

_FORKED_NOT_EXECUTED = 0x40  # PF_FORKNOEXEC in the flags of /proc/PID/stat (include/linux/sched.h)


class Execution:
    """Awaits one exec; `done` is called with the job's record, in which a failure is told."""

    __slots__ = ("_done", "_failure", "_host", "_job", "_started_ns")

    def __init__(
        self, host: Host, job: Job, done: Done, *, status: int, started_ns: int | None = None
    ) -> None:
        """Takes over the status pipe; `started_ns` is when the program was executed if it was before this call."""
        self._host = host
        self._job = job
        self._done = done
        job.status_fd = status
        self._started_ns = started_ns
        self._failure: StartFailure | None = None
        host.loop.watch(status, READ, self._on_status)

    def _on_status(self, events: int) -> None:
        """The status pipe has a failure to tell, or was closed: by an exec, or by the child's death."""
        try:
            report = self._take_report() if events & READ or self._started_ns is not None else b""
        except BlockingIOError:
            return
        self._host.loop.unwatch(self._job.status_fd)
        os.close(self._job.status_fd)
        self._job.status_fd = -1
        self._failure = _parse(report) if report else None
        if report or not self._has_executed():
            self._host.loop.watch(self._job.main.pidfd, READ, self._on_death)
            return
        self._job.begin(self._started_ns or time.time_ns())
        self._done(self._job.record, self._job)

    def _take_report(self) -> bytes:
        """A report is not read and forgotten by who is killed: it goes into the job's file first, where there is space."""
        try:
            return runstate.take_report(self._job.name, self._job.status_fd, dir_fd=self._host.jobs_fd)
        except BlockingIOError:
            raise
        except OSError:
            return os.read(self._job.status_fd, 4096)

    def _on_death(self, _events: int) -> None:
        result = None
        # a child of an earlier supervisor is not ours to wait for, and its report is here
        with contextlib.suppress(ChildProcessError):
            result = os.waitid(os.P_PIDFD, self._job.main.pidfd, os.WEXITED | os.WNOHANG)
            if result is None:
                return
        give_up(
            self._host,
            self._job.record,
            self._failure or self._explain(result),
            job=self._job,
            done=self._done,
        )

    def _explain(self, result: os.waitid_result | None) -> StartFailure:
        if self._job.usage()["oom_kills"]:
            size = self._job.limited.in_force.get("memory_bytes")
            detail = f"memory_bytes: {size} is too little to execute anything in"
            return {"stage": "limit", "errno": errno.ENOMEM, "detail": detail}
        how = "died"
        if result is not None and result.si_code == os.CLD_EXITED:
            how = f"exited with {result.si_status}"
        elif result is not None:
            how = f"was killed by signal {result.si_status}"
            self._host.doubt_clone()
        note(f"job {self._job.name}: the child {how} before exec")
        return {"stage": "setup", "errno": 0, "detail": f"the child {how} before exec"}

    def _has_executed(self) -> bool:
        """Told by the process's name, which exec replaces; asked of its flags only when a program has our name.

        One that a supervisor before us sent on its way, and that is gone without a report, had executed its program.
        """
        pid = self._job.pid
        try:
            if self._read_proc(f"{pid}/comm").rstrip(b"\n") != PROCESS_NAME:
                return True
            fields = self._read_proc(f"{pid}/stat").rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return self._started_ns is not None
        return not int(fields[6]) & _FORKED_NOT_EXECUTED

    def _read_proc(self, path: str) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._host.proc_fd)
        try:
            return os.read(fd, 4096)
        finally:
            os.close(fd)


def give_up(host: Host, record: ExitRecord, failure: StartFailure, *, job: Job | None, done: Done) -> None:
    """Removes every trace of a start but its record, which tells why it failed, and reports it."""
    if job is not None:
        scratch = job.state["scratch"]
        job.release()
        if scratch is not None:
            with contextlib.suppress(OSError):
                os.rmdir(scratch)
    record["start_failure"] = failure
    record["ended_ns"] = time.time_ns()
    with contextlib.suppress(OSError):  # the answer tells; without the record a later reader sees no end
        exitrecord.write(record["job"], exitrecord.pack(record), dir_fd=host.jobs_fd)
    jobfiles.strip(record["job"], jobs_fd=host.jobs_fd)
    done(record, job)


def _parse(report: bytes) -> StartFailure:
    stage, number, detail = report.decode("utf-8", "replace").split("\n", 2)
    return {"stage": stage, "errno": int(number), "detail": detail}  # type: ignore[typeddict-item]  # one of ours
