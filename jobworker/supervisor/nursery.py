"""Children that are born before they are needed, since a clone and its cgroup cost more than all the rest of a start.

Decides when a child is made: one is always ready, the next is made when the answer to a launch is on its way. Each
has a fresh cgroup leaf, its pipes, and waits for its order; making one the slow way and handing out a ready one are
the same thing at different times. What the order says is not known here.
"""

from __future__ import annotations

import contextlib
import os
import signal

from jobworker import syscalls
from jobworker.supervisor import cgroup_setup, child
from jobworker.supervisor.cgroup_none import Group
from jobworker.supervisor.journal import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.cgroup import Leaf, Tree
    from jobworker.supervisor.messages import Stage, StartFailure

PROCESS_NAME = b"jobworker-super"  # 15 bytes: what a child is called until it execs


class StartError(Exception):
    """A step before the program's first instruction failed."""

    def __init__(self, stage: Stage, errno: int, detail: str) -> None:
        super().__init__(detail)
        self.failure: StartFailure = {"stage": stage, "errno": errno, "detail": detail}


class Seat:
    """A child that waits for its order, and our ends of its pipes; whoever takes it owns all of it."""

    __slots__ = ("_order", "_order_file", "leaf", "pid", "pidfd", "status", "stderr", "stdout")

    def __init__(self, leaf: Leaf | Group) -> None:
        self.leaf = leaf
        self.pid = 0
        self.pidfd = self.status = self.stdout = self.stderr = self._order = self._order_file = -1

    def clone(self, *, stdin: int, ignored: list[int], nofile: tuple[int, int] | None) -> None:
        """Makes the pipes and the child; OSError leaves what was made, for `discard`."""
        ends: list[int] = []
        try:
            self._order_file = os.memfd_create("order", os.MFD_CLOEXEC)
            self.stdout, stdout = os.pipe2(os.O_CLOEXEC)
            ends.append(stdout)
            self.stderr, stderr = os.pipe2(os.O_CLOEXEC)
            ends.append(stderr)
            self.status, status = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            ends.append(status)
            order, self._order = os.pipe2(os.O_CLOEXEC)
            ends.append(order)
            place = child.Place(
                self.leaf.join_fds,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                order=order,
                order_file=self._order_file,
                status=status,
            )
            pid, pidfd = syscalls.clone3(cgroup_fd=self.leaf.clone_fd)
            if pid == 0:
                child.run(place, ignored=ignored, nofile=nofile)
            self.pid, self.pidfd = pid, pidfd
            self.leaf.born(pid)
        finally:
            for fd in ends:
                os.close(fd)

    def is_alive(self) -> bool:
        """Whether the child still waits; asks the kernel."""
        return os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def give(self, order: child.Order) -> None:
        """Sends the child on its way; never blocks, however long the order is."""
        data, length = child.pack_order(order)
        done = 0
        while done < len(data):
            done += os.write(self._order_file, data[done:])
        with contextlib.suppress(BrokenPipeError):  # it has just died: its status pipe tells
            os.write(self._order, length)
        self._close_order()

    def discard(self) -> None:
        """Ends the child, which has no children yet and may still be on its way into its cgroup; removes every trace."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        self._close_order()
        for fd in (self.pidfd, self.status, self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        try:
            self.leaf.remove()
        except OSError as error:
            note(f"a cgroup stays: {error.strerror}")

    def _close_order(self) -> None:
        for fd in (self._order, self._order_file):
            if fd >= 0:
                os.close(fd)
        self._order = self._order_file = -1


class Nursery:
    """Where launches take their children from."""

    __slots__ = ("_count", "_ignored", "_nofile", "_null_fd", "_spare", "tree")

    def __init__(self, tree: Tree | None, *, ignored: list[int], nofile: tuple[int, int] | None) -> None:
        """`ignored`: signals this process ignores; `nofile`: the descriptor limit it was started with, if it raised it."""
        self.tree = tree
        self._ignored = ignored
        self._nofile = nofile
        self._null_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._spare: Seat | None = None
        self._count = 0

    def take(self) -> Seat:
        """A waiting child; StartError when none can be made."""
        seat, self._spare = self._spare, None
        if seat is not None and not seat.is_alive():
            seat.discard()
            self.doubt_clone()
            seat = None
        return seat or self._make()

    def refill(self) -> None:
        """Makes the next child, if there is none; a failure is for the launch that will need it."""
        if self._spare is None:
            with contextlib.suppress(StartError):
                self._spare = self._make()

    def empty(self) -> None:
        """Ends the child that waits."""
        if self._spare is not None:
            self._spare.discard()
            self._spare = None

    def doubt_clone(self) -> None:
        """A child was killed before its exec: perhaps by the kernel, because our own cgroup was once killed."""
        if self.tree is not None and self.tree.into_cgroup:
            cgroup_setup.try_clone(self.tree)

    def _make(self) -> Seat:
        self._count += 1
        leaf = Group() if self.tree is None else self.tree.new_leaf(str(self._count))
        seat = Seat(leaf)
        step: Stage = "cgroup"
        try:
            leaf.create()
            step = "setup"
            seat.clone(stdin=self._null_fd, ignored=self._ignored, nofile=self._nofile)
        except OSError as error:
            seat.discard()
            number = error.errno or 0
            raise StartError(
                step, number, f"no process could be made: {os.strerror(number).lower()}"
            ) from error
        return seat
