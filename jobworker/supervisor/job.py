"""One job from its clone to its exit record: what is known of it, and what happens next.

Decides how a job ends. The kernel tells three things in any order: the main process is gone (pidfd), the tree is
empty (cgroup.events), the pipes hold no more. The exit is the main process's; what is left of the tree is killed
then, or awaited when the job asked for that; the record is written last. How a job is brought about is `launch`'s
business, who hears of it the host's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from jobworker.supervisor import cgroup, exitrecord
from jobworker.supervisor.journal import note
from jobworker.supervisor.limits import Limited
from jobworker.supervisor.loop import READ, URGENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resource import struct_rusage
    from typing import Protocol

    from jobworker.supervisor.capture import Capture
    from jobworker.supervisor.disk import Disk
    from jobworker.supervisor.loop import Loop, Timer
    from jobworker.supervisor.messages import ExitRecord, Usage
    from jobworker.supervisor.nursery import Seat

    class Host(Protocol):
        """Whom a job tells that it has ended."""

        loop: Loop
        jobs_fd: int
        disk: Disk

        def ended(self, job: Job, packed: bytes) -> None: ...


MS = 1_000_000  # nanoseconds
_UNKILLABLE_NS = 10_000 * MS  # a process still there so long after its kill is stuck in the kernel
_RETRY_NS = 500 * MS


class Job:
    """Every descriptor and timer of a job is its own, and gone when it has ended."""

    __slots__ = (
        "_begun_ns",
        "_events_fd",
        "_grace",
        "_host",
        "_is_draining",
        "_is_main_gone",
        "_kill_timer",
        "_pidfd",
        "_rusage",
        "_timeout",
        "capture",
        "leaf",
        "limited",
        "name",
        "paused",
        "pid",
        "record",
        "wait_for_tree",
    )

    def __init__(
        self, host: Host, seat: Seat, *, record: ExitRecord, capture: Capture, wait_for_tree: bool
    ) -> None:
        """Takes over a child that has its order, its cgroup, and the recording of its output."""
        self._host = host
        self.name = record["job"]
        self.pid = seat.pid
        self.leaf = seat.leaf
        self.record = record
        self.capture = capture
        self.wait_for_tree = wait_for_tree
        self.limited = Limited({}, [])
        self.paused = False
        self._pidfd = seat.pidfd
        self._begun_ns = 0
        self._events_fd = -1
        self._is_main_gone = False
        self._is_draining = False
        self._rusage: struct_rusage | None = None
        self._grace: Timer | None = None
        self._timeout: Timer | None = None
        self._kill_timer: Timer | None = None

    @property
    def pidfd(self) -> int:
        """The main process; -1 before its birth and after its end."""
        return self._pidfd

    @property
    def is_stopping(self) -> bool:
        """Whether the job is on its way to its end."""
        record = self.record
        return record["stop_requested"] or record["timed_out"] or self._is_main_gone

    def begin(self, timeout_ms: int | None) -> None:
        """The program runs: from now on its end is awaited, at the latest `timeout_ms` from now."""
        self.record["started_ns"] = time.time_ns()
        self._begun_ns = time.monotonic_ns()
        self._host.loop.watch(self._pidfd, READ, self._on_exit)
        if timeout_ms is not None:
            self._timeout = self._host.loop.call_after(timeout_ms * MS, self._on_timeout)

    def stop(self, number: int, *, grace_ms: int) -> None:
        """Signals the whole tree and kills it `grace_ms` later; again: only the deadline may move, forward in time.

        Has no effect on how a job is reported whose main process has ended, unless it was to wait for its tree.
        """
        first = not self.record["stop_requested"]
        if first and not self.record["timed_out"] and self._is_alive():
            self.record["stop_requested"] = True
        if grace_ms == 0:
            self._kill()
            return
        if first:
            self.signal_tree(number)
        if self.paused:  # it gets the signal when it goes on
            self.freeze(frozen=False)
        self._set_grace(grace_ms)

    def freeze(self, *, frozen: bool) -> None:
        """Pauses every process where it is, or lets all go on; OSError where there is no cgroup."""
        self.leaf.freeze(frozen=frozen)
        self.paused = frozen

    def usage(self) -> Usage:
        """What the job has taken until now."""
        usage = self.leaf.usage(self._rusage)
        usage["wall_usec"] = (time.monotonic_ns() - self._begun_ns) // 1000 if self._begun_ns else None
        return usage

    def signal_main(self, number: int) -> None:
        """Signals the main process; ProcessLookupError when it is gone."""
        if self._pidfd < 0:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._pidfd, number)

    def signal_tree(self, number: int) -> None:
        """Signals every process of the job, the child on its way into its cgroup included."""
        self.leaf.signal(number)
        if self.record["started_ns"] is None and self.pid not in self.leaf.processes():
            with contextlib.suppress(ProcessLookupError):
                self.signal_main(number)

    def release(self) -> None:
        """Closes and removes everything of the job but its files; its processes are gone."""
        for timer in (self._grace, self._timeout, self._kill_timer):
            if timer is not None:
                timer.cancel()
        self._grace = self._timeout = self._kill_timer = None
        self._close_pidfd()
        self._close_events()
        self.capture.close()
        try:
            self.leaf.remove()
        except OSError as error:
            note(f"job {self.name}: its cgroup stays: {error.strerror}")

    def _is_alive(self) -> bool:
        """Whether a stop still makes a difference; asks the kernel, since the event may be on its way."""
        if self._is_draining:
            return False
        if self.wait_for_tree:
            return True
        if self._is_main_gone:
            return False
        return os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def _set_grace(self, grace_ms: int) -> None:
        when_ns = time.monotonic_ns() + grace_ms * MS
        if self._grace is not None:
            if self._grace.when_ns <= when_ns:
                return
            self._grace.cancel()
        self._grace = self._host.loop.call_after(grace_ms * MS, self._on_grace)

    def _on_grace(self) -> None:
        if self._is_alive():
            self.record["grace_expired"] = True
        self._kill()

    def _on_timeout(self) -> None:
        if self._is_alive() and not self.record["stop_requested"]:
            self.record["timed_out"] = True
        self._kill()

    def _kill(self) -> None:
        if self._is_draining:
            return
        self.signal_tree(signal.SIGKILL)
        if self._kill_timer is None:
            self._kill_timer = self._host.loop.call_after(_UNKILLABLE_NS, self._on_unkillable)

    def _on_exit(self, _events: int) -> None:
        pid, status, rusage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return
        record = self.record
        record["main_exited_ns"] = time.time_ns()
        if os.WIFSIGNALED(status):
            record["signal"] = os.WTERMSIG(status)
            record["core_dumped"] = os.WCOREDUMP(status)
        else:
            record["exit_code"] = os.WEXITSTATUS(status)
        self._is_main_gone = True
        self._rusage = rusage
        self._close_pidfd()
        self._empty_tree()

    def _empty_tree(self) -> None:
        """Sees to it that no process of the job is left; the tree is often empty before the exit is reported."""
        try:
            events_fd = self.leaf.open_events()
        except FileNotFoundError:  # an empty cgroup, and somebody has removed it
            self._drain()
            return
        if events_fd is None:
            self.leaf.kill()
            self._drain()
            return
        self._events_fd = events_fd
        if not cgroup.is_populated(events_fd):
            self._drain()
            return
        self._host.loop.watch(events_fd, URGENT, self._on_events)
        if not self.wait_for_tree:
            self._kill()

    def _on_events(self, _events: int) -> None:
        if self._events_fd >= 0 and not cgroup.is_populated(self._events_fd):
            self._drain()

    def _on_unkillable(self) -> None:
        if self.record["started_ns"] is None:
            return  # stuck in its exec; the launch is open until the kernel lets go of it
        survivors = self.leaf.processes()
        note(f"job {self.name}: {len(survivors)} processes outlive their kill: {survivors[:10]}")
        self.record["survivors"] = len(survivors)
        self._is_main_gone = True
        self._close_pidfd()
        self._drain()

    def _drain(self) -> None:
        self._is_draining = True
        self._close_events()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self.capture.finish(self._finish)

    def _finish(self) -> None:
        record = self.record
        record["ended_ns"] = time.time_ns()
        try:
            record["usage"] = self.usage()
            record["oom_kills"] = record["usage"]["oom_kills"] or 0
        except OSError as error:
            note(f"job {self.name}: its use is not known: {error.strerror}")
        output = self.capture.describe()
        record["output_bytes"] = output["size"] - output["dropped"]
        record["output_head"], record["output_dropped"] = output["head"], output["dropped"]
        packed = exitrecord.pack(record)
        try:
            exitrecord.write(self.name, packed, dir_fd=self._host.jobs_fd)
        except OSError as error:
            note(f"job {self.name}: exit record not written, tried again: {error.strerror}")
            self._host.loop.call_after(_RETRY_NS, self._finish)
            return
        self._host.ended(self, packed)
        self._host.loop.defer(self.release)

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            self._host.loop.unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _close_events(self) -> None:
        if self._events_fd >= 0:
            self._host.loop.unwatch(self._events_fd)
            os.close(self._events_fd)
            self._events_fd = -1
