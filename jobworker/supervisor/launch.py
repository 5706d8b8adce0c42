"""From a checked request to a running program, or to a typed failure that leaves nothing but its record.

Decides the order of the preparations (directories, cgroup, limits, files, pipes, clone) and undoes them when one
fails; then awaits the exec without blocking anybody, since a program may lie on a slow disk. What the child does
meanwhile is in `child`; the running job is `job`'s.
"""

from __future__ import annotations

import contextlib
import os
import time

from jobworker import syscalls
from jobworker.outputindex import INDEX_NAME, LOG_NAME
from jobworker.supervisor import child, exitrecord
from jobworker.supervisor.capture import Capture
from jobworker.supervisor.cgroup import LimitError
from jobworker.supervisor.cgroup_none import Group
from jobworker.supervisor.cgroup_setup import try_clone
from jobworker.supervisor.job import Job
from jobworker.supervisor.journal import note
from jobworker.supervisor.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.supervisor.cgroup import Tree
    from jobworker.supervisor.job import Host
    from jobworker.supervisor.messages import Stage, StartFailure
    from jobworker.supervisor.requests import LaunchSpec

PROCESS_NAME = b"jobworker-super"  # 15 bytes: what a child is called until it execs
_FORKED_NOT_EXECUTED = 0x40  # PF_FORKNOEXEC in the flags of /proc/PID/stat (include/linux/sched.h)


class StartError(Exception):
    """A step before the program's first instruction failed."""

    def __init__(self, stage: Stage, errno: int, detail: str) -> None:
        super().__init__(detail)
        self.failure: StartFailure = {"stage": stage, "errno": errno, "detail": detail}


class Launcher:
    """What all launches share; opened once."""

    __slots__ = ("host", "ignored", "nofile", "null_fd", "proc_fd", "tree")

    def __init__(
        self, host: Host, tree: Tree | None, *, ignored: list[int], nofile: tuple[int, int] | None
    ) -> None:
        """`ignored`: signals this process ignores; `nofile`: the descriptor limit it was started with, if it raised it."""
        self.host = host
        self.tree = tree
        self.ignored = ignored
        self.nofile = nofile
        self.null_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.proc_fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def launch(self, spec: LaunchSpec, done: Callable[[Job], None]) -> Job:
        """Starts a job and calls back once its program runs or never will (then `start_failure` is set).

        FileExistsError when the job's directory is there already: an id is launched at most once.
        """
        os.mkdir(spec.job, 0o700, dir_fd=self.host.jobs_fd)
        leaf = Group() if self.tree is None else self.tree.new_leaf(spec.job)
        job = Job(self.host, spec.job, leaf=leaf, wait_for_tree=spec.wait_for_tree)
        attempt = _Attempt(self, spec, job, done)
        try:
            attempt.start()
        except StartError as error:
            attempt.give_up(error.failure)
        return job

    def doubt_clone(self) -> None:
        """A child was killed before its exec: perhaps by the kernel, because our own cgroup was once killed."""
        if self.tree is not None and self.tree.into_cgroup:
            try_clone(self.tree)


class _Attempt:
    """One launch from its first directory to the moment its outcome is known."""

    __slots__ = ("_done", "_failure", "_has_scratch", "_host", "_launcher", "_spec", "_status_fd", "job")

    def __init__(self, launcher: Launcher, spec: LaunchSpec, job: Job, done: Callable[[Job], None]) -> None:
        self._launcher = launcher
        self._host = launcher.host
        self._spec = spec
        self._done = done
        self._failure: StartFailure | None = None
        self._has_scratch = False
        self._status_fd = -1
        self.job = job

    def start(self) -> None:
        """Prepares everything and clones; StartError leaves the undoing to `give_up`."""
        step: Stage = "setup"
        try:
            self._make_scratch()
            self.job.capture = Capture(self._host.loop, dir_fd=self._host.jobs_fd, directory=self._spec.job)
            step = "cgroup"
            self.job.leaf.create()
            self.job.limits = self.job.leaf.apply(self._spec.limits)
            step = "setup"
            self._clone(self.job.capture)
        except LimitError as error:
            raise StartError("limit", error.errno, error.detail) from error
        except OSError as error:
            where = f" {os.fsdecode(error.filename)}" if error.filename else ""
            reason = os.strerror(error.errno or 0).lower()
            raise StartError(step, error.errno or 0, f"cannot prepare{where}: {reason}") from error

    def give_up(self, failure: StartFailure) -> None:
        """Removes every trace of the attempt, then records and reports why it failed."""
        job, spec = self.job, self._spec
        job.release()
        for name in (LOG_NAME, INDEX_NAME):
            with contextlib.suppress(OSError):
                os.unlink(f"{spec.job}/{name}", dir_fd=self._host.jobs_fd)
        if self._has_scratch and spec.scratch is not None:
            with contextlib.suppress(OSError):
                os.rmdir(spec.scratch)
        job.record["start_failure"] = failure
        job.record["ended_ns"] = time.time_ns()
        with contextlib.suppress(OSError):  # the answer tells; without the record a later reader sees no end
            exitrecord.write(job.record, dir_fd=self._host.jobs_fd)
        self._done(job)

    def _make_scratch(self) -> None:
        spec = self._spec
        if spec.scratch is None:
            return
        os.mkdir(spec.scratch, 0o700)
        self._has_scratch = True
        if spec.uid is not None and spec.gid is not None:
            os.chown(spec.scratch, spec.uid, spec.gid)

    def _clone(self, capture: Capture) -> None:
        launcher, leaf = self._launcher, self.job.leaf
        ends: list[int] = []
        try:
            for _ in range(2):
                ends += os.pipe2(os.O_CLOEXEC)
            ends += os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            stdout, stdout_end, stderr, stderr_end, status, status_end = ends
            fds = child.Descriptors(
                leaf.join_fds, stdin=launcher.null_fd, stdout=stdout_end, stderr=stderr_end, status=status_end
            )
            pid, pidfd = syscalls.clone3(cgroup_fd=leaf.clone_fd)
            if pid == 0:
                child.run(self._spec, fds, ignored=launcher.ignored, nofile=launcher.nofile)
        except OSError:
            for fd in ends:
                os.close(fd)
            raise
        self.job.adopt(pid, pidfd)
        for fd in (stdout_end, stderr_end, status_end):
            os.close(fd)
        self._status_fd = status
        self._host.loop.watch(status, READ, self._on_status)
        capture.attach(stdout=stdout, stderr=stderr)

    def _on_status(self, _events: int) -> None:
        """The status pipe has a failure to tell, or was closed: by an exec, or by the child's death."""
        try:
            report = os.read(self._status_fd, 4096)
        except BlockingIOError:
            return
        self._host.loop.unwatch(self._status_fd)
        os.close(self._status_fd)
        self._failure = _parse(report) if report else None
        if report or not self._has_executed():
            self._host.loop.watch(self.job.pidfd, READ, self._on_death)
            return
        self.job.begin(self._spec.timeout_ms)
        self._done(self.job)

    def _has_executed(self) -> bool:
        """Told by the process's name, which exec replaces; asked of its flags only when a program has our name."""
        pid = self.job.pid
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

    def _on_death(self, _events: int) -> None:
        result = os.waitid(os.P_PIDFD, self.job.pidfd, os.WEXITED | os.WNOHANG)
        if result is not None:
            self.give_up(self._failure or self._explain_death(result))

    def _explain_death(self, result: os.waitid_result) -> StartFailure:
        how = f"exited with {result.si_status}"
        if result.si_code != os.CLD_EXITED:
            how = f"was killed by signal {result.si_status}"
            self._launcher.doubt_clone()
        note(f"job {self._spec.job}: the child {how} before exec")
        return {"stage": "setup", "errno": 0, "detail": f"the child {how} before exec"}


def _parse(report: bytes) -> StartFailure:
    stage, number, detail = report.decode("utf-8", "replace").split("\n", 2)
    return {"stage": stage, "errno": int(number), "detail": detail}  # type: ignore[typeddict-item]  # one of ours
