"""What is held of one child that waits for its order: its directory's files, and our ends of its pipes.

Decides how a child gets its order, and how one is ended that gets none. Where it comes from is `nursery`'s business, what
the order says and who has its descriptors afterwards `launch`'s.
"""

from __future__ import annotations

import contextlib
import os

from jobworker import syscalls
from jobworker.supervisor import child
from jobworker.supervisor.journal import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.cgroup import Leaf
    from jobworker.supervisor.cgroup_none import Group


class Seat:
    """A child that waits for its order, its directory, and our ends of its pipes; whoever takes it owns all of it."""

    __slots__ = (
        "_order",
        "_order_file",
        "index",
        "leaf",
        "log",
        "number",
        "pid",
        "pidfd",
        "status",
        "stderr",
        "stdout",
    )

    def __init__(self, number: int, pid: int, *, leaf: Leaf | Group, fds: list[int]) -> None:
        self.number = number
        self.pid = pid
        self.leaf = leaf
        (
            self.log,
            self.index,
            self.pidfd,
            self.stdout,
            self.stderr,
            self.status,
            self._order,
            self._order_file,
        ) = fds
        leaf.adopt(pid, self.pidfd)

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
        os.close(self._order)
        os.close(self._order_file)

    def discard(self) -> None:
        """Ends the child, which has no children yet and may still be on its way into its cgroup; leaves the directory."""
        kill(self.pidfd)
        for fd in (
            self._order,
            self._order_file,
            self.pidfd,
            self.status,
            self.stdout,
            self.stderr,
            self.log,
            self.index,
        ):
            os.close(fd)
        try:
            self.leaf.remove()
        except OSError as error:
            note(f"a cgroup stays: {error.strerror}")


def kill(pidfd: int) -> None:
    """Kills a child of ours and reaps it."""
    with contextlib.suppress(ProcessLookupError):
        syscalls.pidfd_send_signal(pidfd, syscalls.SIGKILL)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
