"""One job from its clone to its exit record: what is known of it, and what happens next.

Decides how a job ends. The kernel tells three things in any order: the main process is gone (pidfd), the tree is
empty (cgroup.events), the pipes hold no more. The exit is the main process's; what is left of the tree is killed
then, or awaited when the job asked for that; the record is written last. How the exit is learned is `mainprocess`'s
business, how it is known that nothing is left `remains`'s, how a job is brought about `launch`'s, who hears of it
the host's.
"""

from __future__ import annotations

import contextlib
import signal
import time
from functools import partial

from jobworker.supervisor import exitrecord, runstate
from jobworker.supervisor.journal import note
from jobworker.supervisor.limits import Limited
from jobworker.supervisor.mainprocess import MainProcess
from jobworker.supervisor.remains import Remains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.capture import Capture
    from jobworker.supervisor.cgroup import Leaf
    from jobworker.supervisor.cgroup_none import Group
    from jobworker.supervisor.host import Host
    from jobworker.supervisor.jobfacts import RunState, Usage
    from jobworker.supervisor.loop import Timer

MS = 1_000_000  # nanoseconds
_RETRY_NS = 500 * MS


class Job:
    """Every descriptor and timer of a job is its own, and gone when it has ended."""

    __slots__ = (
        "_begun_ns",
        "_grace",
        "_host",
        "_is_draining",
        "_remains",
        "_timeout",
        "capture",
        "leaf",
        "limited",
        "main",
        "name",
        "pid",
        "record",
        "state",
        "status_fd",
        "wait_for_tree",
    )

    def __init__(
        self, host: Host, state: RunState, *, leaf: Leaf | Group, pidfd: int, capture: Capture
    ) -> None:
        """Takes over a child, its cgroup, and the recording of its output; `pidfd` -1 when it is gone without a trace."""
        self._host = host
        self.state = state
        self.record = state["record"]
        self.name = self.record["job"]
        self.pid = state["pid"]
        self.leaf = leaf
        self.capture = capture
        self.wait_for_tree = state["wait_for_tree"] and leaf.holds_its_processes
        self.limited = Limited(state["limits"], state["unenforced"])
        self.status_fd = -1  # while it is not known whether its program was executed
        self.main = MainProcess(
            host.loop,
            host.custody,
            self.pid,
            pidfd=pidfd,
            reaps=leaf.counts_by_reaping,
            when_ended=self._on_main_ended,
            when_withheld=self._on_main_withheld,
        )
        self._remains = Remains(
            host.loop,
            leaf,
            kill=partial(self.signal_tree, signal.SIGKILL),
            when_gone=self._drain,
            when_unkillable=self._on_unkillable,
        )
        self._begun_ns = 0
        self._is_draining = False
        self._grace: Timer | None = None
        self._timeout: Timer | None = None

    @property
    def paused(self) -> bool:
        """Whether its processes are frozen where they are."""
        return self.state["paused"]

    @property
    def is_stopping(self) -> bool:
        """Whether the job is on its way to its end."""
        record = self.record
        return record["stop_requested"] or record["timed_out"] or self.main.is_gone

    def descriptors(self) -> list[int]:
        """What a keeper keeps: pidfd, stdout, stderr, status pipe; -1 for what is closed."""
        return [self.main.pidfd, *self.capture.pipes(), self.status_fd]

    def save(self) -> None:
        """Writes down what a successor has to know; OSError when it cannot be written."""
        self.state["limits"], self.state["unenforced"] = self.limited.in_force, self.limited.unenforced
        runstate.write(self.name, runstate.pack(self.state), dir_fd=self._host.jobs_fd)

    def begin(self, started_ns: int) -> None:
        """The program runs, since `started_ns`: from now on its end is awaited, at the latest when its time is over."""
        self.record["started_ns"] = started_ns
        # of an earlier supervisor's job the clock may have been set back since
        self._begun_ns = time.monotonic_ns() - max(0, time.time_ns() - started_ns)
        loop, state = self._host.loop, self.state
        if state["timeout_at_ns"] is not None:
            self._timeout = loop.call_at(state["timeout_at_ns"], self._on_timeout)
        if state["grace_at_ns"] is not None:
            self._grace = loop.call_at(state["grace_at_ns"], self._on_grace)
        if self.record["main_exited_ns"] is None:
            self.main.attend()
        else:  # under an earlier supervisor
            self.main.is_gone = True
            loop.defer(self._empty_tree)

    def stop(self, number: int, *, grace_ms: int) -> None:
        """Signals the whole tree and kills it `grace_ms` later; again: only the deadline may move, forward in time.

        Has no effect on how a job is reported whose main process has ended, unless it was to wait for its tree.
        """
        first = not self.record["stop_requested"]
        if first and not self.record["timed_out"] and self._is_alive():
            self.record["stop_requested"] = True
        if grace_ms == 0:
            self._try_to_save()
            self._kill()
            return
        self._set_grace(grace_ms)
        self._try_to_save()  # before the signal: whoever takes over has to know when its time is over
        if first:
            self.signal_tree(number)
        if self.paused:  # it gets the signal when it goes on
            self.resume()

    def pause(self) -> None:
        """Freezes every process where it is; OSError where there is no cgroup.

        A job may be taken for paused that is not, never the reverse: then a stop would not let it go on, to end.
        """
        was_paused = self.paused
        self._mark(paused=True)
        try:
            self.leaf.freeze(frozen=True)
        except OSError:
            self._mark(paused=was_paused)
            raise

    def resume(self) -> None:
        """Lets every process go on; OSError where there is no cgroup."""
        self.leaf.freeze(frozen=False)
        self._mark(paused=False)

    def limit(self, limited: Limited) -> None:
        """Remembers limits that were changed."""
        self.limited = limited
        self._try_to_save()

    def usage(self) -> Usage:
        """What the job has taken until now."""
        usage = self.leaf.usage(self.main.rusage, ended=self._is_draining)
        usage["wall_usec"] = (time.monotonic_ns() - self._begun_ns) // 1000 if self._begun_ns else None
        return usage

    def signal_tree(self, number: int) -> None:
        """Signals every process of the job, the child on its way into its cgroup included."""
        self.leaf.signal(number)
        if self.record["started_ns"] is None and self.pid not in self.leaf.processes():
            with contextlib.suppress(ProcessLookupError):
                self.main.signal(number)

    def release(self) -> None:
        """Closes and removes everything of the job but its files; its processes are gone, and reaped now if they are ours."""
        for timer in (self._grace, self._timeout):
            if timer is not None:
                timer.cancel()
        self._grace = self._timeout = None
        self.main.release()
        self._remains.release()
        self.capture.close()
        try:
            self.leaf.remove()
        except OSError as error:
            note(f"job {self.name}: its cgroup stays: {error.strerror}")
        self._host.custody.drop(self.state["number"])

    def _is_alive(self) -> bool:
        """Whether a stop still makes a difference; asks the kernel, since the event may be on its way."""
        if self._is_draining:
            return False
        if self.wait_for_tree:
            return True
        return not self.main.has_ended()

    def _mark(self, *, paused: bool) -> None:
        self.state["paused"] = paused
        self._try_to_save()

    def _set_grace(self, grace_ms: int) -> None:
        when_ns = time.monotonic_ns() + grace_ms * MS
        if self._grace is not None:
            if self._grace.when_ns <= when_ns:
                return
            self._grace.cancel()
        self._grace = self._host.loop.call_at(when_ns, self._on_grace)
        self.state["grace_at_ns"] = when_ns

    def _on_grace(self) -> None:
        if self._is_alive():
            self.record["grace_expired"] = True
            self._try_to_save()
        self._kill()

    def _on_timeout(self) -> None:
        if self._is_alive() and not self.record["stop_requested"]:
            self.record["timed_out"] = True
            self._try_to_save()
        self._kill()

    def _kill(self) -> None:
        if not self._is_draining:
            self._remains.kill()

    def _on_main_ended(self, status: int | None) -> None:
        """The main process has ended, be it known how or not."""
        if status is not None:
            exitrecord.put_status(self.record, status)
        if self.record["main_exited_ns"] is None:
            self.record["main_exited_ns"] = time.time_ns()
        self._empty_tree()

    def _on_main_withheld(self) -> None:
        """The main process has ended, how is told once its tracer lets go: which dies with the rest of the tree."""
        if not self.wait_for_tree:
            self._kill()

    def _empty_tree(self) -> None:
        """Sees to it that no process of the job is left; the tree is often empty before the exit is reported."""
        if self.leaf.counts_by_reaping:  # then the kernel cannot be asked again how it ended
            self._try_to_save()
        if not self._remains.attend():
            self._drain()
            return
        self._try_to_save()
        if not self.wait_for_tree:
            self._kill()

    def _on_unkillable(self) -> None:
        if self.record["started_ns"] is None:
            return  # stuck in its exec; the launch is open until the kernel lets go of it
        survivors = self.leaf.processes()
        note(f"job {self.name}: {len(survivors)} processes outlive their kill: {survivors[:10]}")
        self.record["survivors"] = len(survivors)
        self.main.give_up()
        self._drain()

    def _drain(self) -> None:
        self._is_draining = True
        self._remains.release()
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

    def _try_to_save(self) -> None:
        """A disk that refuses costs what a successor would know, not the job."""
        try:
            self.save()
        except OSError as error:
            note(f"job {self.name}: its state cannot be written: {error.strerror}")
