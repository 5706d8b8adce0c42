"""From a checked request to a child on its way to its program, or to a typed failure that leaves nothing but its record.

Decides the order of the preparations (directories, files, a child, its limits) and undoes them when one fails; writes
down what a successor has to know; then gives the child its order. Whether the program is then executed is
`execution`'s business, what the child does meanwhile is in `child`, where it comes from in `nursery`.
"""

from __future__ import annotations

import contextlib
import os
import time

from jobworker.supervisor import exitrecord, jobfiles, limits, runstate
from jobworker.supervisor.capture import Capture
from jobworker.supervisor.child import Order
from jobworker.supervisor.execution import Execution, give_up
from jobworker.supervisor.job import MS, Job
from jobworker.supervisor.nursery import Nursery, StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.execution import Done
    from jobworker.supervisor.host import Host
    from jobworker.supervisor.jobfacts import RunState
    from jobworker.supervisor.limits import Limited
    from jobworker.supervisor.requests import LaunchSpec
    from jobworker.supervisor.seat import Seat


class Launcher:
    """What all launches share."""

    __slots__ = ("boot_id", "host", "nursery")

    def __init__(self, host: Host, nursery: Nursery, *, boot_id: str) -> None:
        self.host = host
        self.nursery = nursery
        self.boot_id = boot_id

    def launch(self, spec: LaunchSpec, done: Done) -> Job | None:
        """Starts a job; calls back once its program runs, or never will and the record says why.

        The job is given back while that is open, None when it has failed already. FileExistsError when its directory
        is there already: an id is launched at most once.
        """
        attempt = _Attempt(self, spec)
        try:
            return attempt.start(done)
        except StartError as error:
            attempt.undo()
            record = exitrecord.blank(spec.job, boot_id=self.boot_id)
            give_up(self.host, record, error.failure, job=None, done=done)
            return None


class _Attempt:
    """One launch from its first directory to the child's order."""

    __slots__ = ("_has_scratch", "_host", "_launcher", "_spec")

    def __init__(self, launcher: Launcher, spec: LaunchSpec) -> None:
        self._launcher = launcher
        self._host = launcher.host
        self._spec = spec
        self._has_scratch = False

    def start(self, done: Done) -> Job:
        """Prepares everything and sends a child on its way; StartError leaves the rest to `undo`."""
        seat = self._take_seat()
        try:
            self._make_scratch()
            limited = self._limit(seat)
            return self._send_off(seat, limited, done)
        except limits.LimitError as error:
            self._launcher.nursery.discard(seat)
            raise StartError("limit", error.errno, error.detail) from error
        except OSError as error:
            self._launcher.nursery.discard(seat)
            where = f" {os.fsdecode(error.filename)}" if error.filename else ""
            number = error.errno or 0
            raise StartError("setup", number, f"cannot make{where}: {os.strerror(number).lower()}") from error

    def undo(self) -> None:
        """Removes the scratch directory, if it was made."""
        if self._has_scratch and self._spec.scratch is not None:
            with contextlib.suppress(OSError):
                os.rmdir(self._spec.scratch)

    def _limit(self, seat: Seat) -> Limited:
        spec = self._spec
        return limits.apply(
            seat.leaf, seat.pid, spec.limits, unenforced=spec.unenforced, best_effort=spec.best_effort
        )

    def _take_seat(self) -> Seat:
        """A child whose directory is this job's from now on."""
        nursery, job, jobs_fd = self._launcher.nursery, self._spec.job, self._host.jobs_fd
        try:
            seat = nursery.take(beside=self._host.count())
        except StartError:
            jobfiles.claim_empty(job, jobs_fd=jobs_fd)
            raise
        try:
            jobfiles.claim(seat.number, job, jobs_fd=jobs_fd)
        except OSError:
            nursery.put_back(seat)
            raise
        return seat

    def _make_scratch(self) -> None:
        spec = self._spec
        if spec.scratch is None:
            return
        os.mkdir(spec.scratch, 0o700)
        self._has_scratch = True
        if spec.uid is not None and spec.gid is not None:
            os.chown(spec.scratch, spec.uid, spec.gid)

    def _send_off(self, seat: Seat, limited: Limited, done: Done) -> Job:
        spec, host = self._spec, self._host
        capture = Capture(
            host.loop, host.disk, log=seat.log, index=seat.index, null=host.null_fd, cap=spec.output
        )
        state = self._state(seat, limited)
        runstate.write(spec.job, runstate.pack(state), dir_fd=host.jobs_fd)  # from now on it is a job
        order = Order(spec.argv, spec.env, spec.workdir, spec.uid, spec.gid)
        job = Job(host, state, leaf=seat.leaf, pidfd=seat.pidfd, capture=capture)
        try:
            Execution(host, job, done, status=seat.status)
            capture.attach(stdout=seat.stdout, stderr=seat.stderr)
            seat.give(order)  # last: nothing fails any more once the child is on its way
        except OSError:
            for fd in (seat.status, seat.stdout, seat.stderr):
                host.loop.unwatch(fd)
            raise
        return job

    def _state(self, seat: Seat, limited: Limited) -> RunState:
        spec = self._spec
        timeout_at_ns = None
        if spec.timeout_ms is not None:
            timeout_at_ns = time.monotonic_ns() + spec.timeout_ms * MS
        return {
            "version": runstate.VERSION,
            "number": seat.number,
            "pid": seat.pid,
            "ordered_ns": time.time_ns(),
            "timeout_at_ns": timeout_at_ns,
            "grace_at_ns": None,
            "wait_for_tree": spec.wait_for_tree,
            "paused": False,
            "limits": limited.in_force,
            "unenforced": limited.unenforced,
            "output": {"max_bytes": spec.output.max_bytes, "keep": spec.output.keep},  # type: ignore[typeddict-item]
            "scratch": None if spec.scratch is None else os.fsdecode(spec.scratch),
            "record": exitrecord.blank(spec.job, boot_id=self._launcher.boot_id),
        }
