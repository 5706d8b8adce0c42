"""Jobs that an earlier supervisor began and did not see end: what each of them is now, and its further care.

Decides from what that supervisor wrote down (`running`), what the keeper holds (pipes, pidfds, exits), and what the
kernel tells of the job's cgroup and main process. The same whether that supervisor was killed, was this very process
before an upgrade, or died together with its keeper: then output written since is lost and the exit status may be,
and everything else of the job goes on. One job's damaged file costs that job alone.
"""

from __future__ import annotations

import contextlib
import os

from jobworker import syscalls
from jobworker.outputindex import IndexFormatError
from jobworker.supervisor import exitrecord, jobfiles, runstate
from jobworker.supervisor.cap import Cap
from jobworker.supervisor.capture import Capture
from jobworker.supervisor.cgroup_none import Group
from jobworker.supervisor.execution import Execution
from jobworker.supervisor.job import Job
from jobworker.supervisor.journal import note
from jobworker.supervisor.keeper import DESCRIPTORS
from jobworker.supervisor.options import StartupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobworker.supervisor.cgroup import Leaf, Tree
    from jobworker.supervisor.custody import Custody
    from jobworker.supervisor.execution import Done
    from jobworker.supervisor.host import Host
    from jobworker.supervisor.jobfacts import RunState
    from jobworker.supervisor.keeper import Kept


def find(*, jobs_fd: int, boot_id: str) -> list[RunState]:
    """Every job of this boot that has no exit record; one whose end was written down as far as that is ended now.

    StartupError for a job of a newer version: it would have to be killed.
    """
    return list(_find(jobs_fd, boot_id))


def _find(jobs_fd: int, boot_id: str) -> Iterator[RunState]:
    for name in os.listdir(jobs_fd):
        if name.startswith("."):
            continue
        try:
            data = runstate.read(name, dir_fd=jobs_fd)
            state = None if data is None else runstate.unpack(data)
            if state is None:
                continue
            if "ended_ns" in state:
                _end(name, data or b"", jobs_fd)
                continue
            is_ours = state["record"]["job"] == name and state["record"]["boot_id"] == boot_id
        except (OSError, ValueError, KeyError, TypeError) as error:
            note(f"job {name}: its state cannot be used, it is given up: {error}")
            continue
        if is_ours and state["version"] > runstate.VERSION:
            raise StartupError(
                f"job {name} runs under a newer version; run that version, or end its processes"
            )
        if is_ours:
            yield state


def _end(name: str, data: bytes, jobs_fd: int) -> None:
    """The exit record is complete, and was about to be renamed."""
    exitrecord.write(name, data.partition(b"\n")[0] + b"\n", dir_fd=jobs_fd)


class TakeOver:
    """Makes jobs of what was found; `done` is told of those whose program was about to be executed."""

    def __init__(self, host: Host, tree: Tree | None, custody: Custody, done: Done) -> None:
        self._host = host
        self._tree = tree
        self._custody = custody
        self._done = done

    def adopt(self, state: RunState) -> Job | None:
        """The job, cared for from now on; None when it had to be given up: its files are damaged."""
        kept = self._custody.claim(state["number"])
        if kept is not None and (kept.pid not in (state["pid"], 0) or len(kept.fds) != DESCRIPTORS):
            syscalls.close_each(kept.fds)
            kept = None
        # nothing tells whose its numbers are by now: nobody may be signalled
        if kept is None and self._tree is None:
            note(f"job {state['record']['job']}: nobody held it and it has no cgroup, it is given up")
            return None
        leaf = self._leaf(state, kept)
        try:
            capture = self._capture(state)
        except (OSError, IndexFormatError) as error:
            note(f"job {state['record']['job']}: its output cannot be used, it is given up: {error}")
            if kept is not None:
                with contextlib.suppress(OSError):  # where there are cgroups, all of them are emptied later
                    syscalls.pidfd_send_signal(kept.fds[0], syscalls.SIGKILL)
                syscalls.close_each(kept.fds)
            return None
        return self._care_for(state, kept, leaf, capture)

    def _care_for(self, state: RunState, kept: Kept | None, leaf: Leaf | Group, capture: Capture) -> Job:
        host, started_ns = self._host, state["record"]["started_ns"] or state["ordered_ns"]
        if kept is None:
            job = Job(host, state, leaf=leaf, pidfd=_find_process(state, leaf), capture=capture)
            note(f"job {job.name}: nobody held its pipes, what it wrote since is lost")
            job.begin(started_ns)
            return job
        pidfd, stdout, stderr, status = kept.fds
        job = Job(host, state, leaf=leaf, pidfd=pidfd, capture=capture)
        capture.attach(stdout=stdout, stderr=stderr)
        Execution(host, job, self._done, status=status, started_ns=started_ns)
        return job

    def _leaf(self, state: RunState, kept: Kept | None) -> Leaf | Group:
        leaf: Leaf | Group = Group() if self._tree is None else self._tree.new_leaf(str(state["number"]))
        leaf.adopt(state["pid"], -1 if kept is None else kept.fds[0])
        return leaf

    def _capture(self, state: RunState) -> Capture:
        host, output = self._host, state["output"]
        log, index = jobfiles.reopen(state["record"]["job"], jobs_fd=host.jobs_fd)
        try:
            cap = Cap(output["max_bytes"], output["keep"])
            return Capture(host.loop, host.disk, log=log, index=index, null=host.null_fd, cap=cap)
        except BaseException:
            syscalls.close_each([log, index])
            raise


def _find_process(state: RunState, leaf: Leaf | Group) -> int:
    """A pidfd of the main process, known by its cgroup since numbers are used again; -1 when it is gone, or may be another."""
    pid = state["pid"]
    if pid not in leaf.processes():  # it may even be the number of a thread, of which there are no pidfds
        return -1
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        if pid in leaf.processes() and not syscalls.is_readable(pidfd):
            return pidfd
        os.close(pidfd)
    return -1
