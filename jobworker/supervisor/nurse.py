"""The process that makes the supervisor's children, so that the supervisor itself is never copied.

A clone copies the memory map of the process that makes it, and makes that process pay for each page it writes to
afterwards. The nurse is cloned from the supervisor when that has loaded next to nothing, and does nothing else: on
request she makes one child in a fresh cgroup leaf, which waits for its order, and a directory with the files it will
need, and hands over the descriptors. Her children are her siblings, so the supervisor is their parent. She knows no
jobs, and ends with the supervisor.
"""

from __future__ import annotations

import contextlib
import os
import struct

from jobworker import syscalls
from jobworker.supervisor import cgroup_setup, child, jobfiles
from jobworker.supervisor.cgroup_none import Group
from jobworker.supervisor.journal import note, note_exception

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.cgroup import Leaf, Tree
    from jobworker.supervisor.messages import Stage

PROCESS_NAME = b"jobworker-nurse"  # 15 bytes: what the nurse is called, and her children until they exec
MAKE = b"m"
TEST_AND_MAKE = (
    b"t"  # after a child died before its time: find out first whether cloning into a leaf works at all
)
# number of the leaf and of the directory, pid or 0, errno, index in STAGES, whether cloned into the leaf
ANSWER = struct.Struct("<5i")
STAGES: tuple[Stage, ...] = ("cgroup", "setup")
_CGROUP, _SETUP = range(2)
# that come with an answer: output.log, output.idx, pidfd, our ends of stdout, stderr, status and order pipe, order file
DESCRIPTORS = 8
_LAST_DESCRIPTOR = 2**32 - 1


class Nurse:
    """The process's state: a tree to make leaves in, and how many she has made."""

    __slots__ = ("_count", "_jobs_fd", "_origin", "_tree")

    def __init__(self, tree: Tree | None, origin: child.Origin, *, jobs_fd: int) -> None:
        self._tree = tree
        self._jobs_fd = jobs_fd
        self._origin = origin
        self._count = 0

    def run(self, socket: int, *, parent: int, first: int) -> None:
        """Answers requests until the supervisor is gone; never returns."""
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, syscalls.SIGKILL)
            syscalls.set_process_name(PROCESS_NAME)
            syscalls.prctl(
                syscalls.PR_SET_NO_NEW_PRIVS, 1
            )  # like the signals' actions, her children inherit it
            for number in self._origin.ignored:
                syscalls.reset_signal(number)
            self._close_all_but(socket)
            self._count = first
            while os.getppid() == parent and (request := os.read(socket, 1)):
                if request == TEST_AND_MAKE and self._tree is not None and self._tree.into_cgroup:
                    cgroup_setup.try_clone(self._tree)
                self._make(socket)
        except BaseException:  # nothing may unwind into the copy of the supervisor
            note_exception()
        finally:
            os._exit(1)

    def _close_all_but(self, socket: int) -> None:
        """The supervisor's lock and sockets must not live on here."""
        tree = self._tree
        kept = {socket, self._jobs_fd, self._origin.null_fd}
        if tree is not None:
            kept.update((tree.fd, *tree.v1_fds.values()))
        first = 3
        for fd in sorted(kept):
            syscalls.close_range(first, fd - 1)
            first = fd + 1
        syscalls.close_range(first, _LAST_DESCRIPTOR)

    def _make(self, socket: int) -> None:
        self._count += 1
        leaf = Group() if self._tree is None else self._tree.new_leaf(str(self._count))
        into_cgroup = self._tree is not None and self._tree.into_cgroup
        stage = _SETUP
        fds: list[int] = []
        try:
            fds += jobfiles.create(self._count, jobs_fd=self._jobs_fd)
            stage = _CGROUP
            leaf.create()
            stage = _SETUP
            pid = self._clone(leaf, fds)
            syscalls.send_descriptors(socket, ANSWER.pack(self._count, pid, 0, 0, into_cgroup), fds)
        except OSError as error:
            note(f"no child could be made: {error.strerror}")
            jobfiles.remove(self._count, jobs_fd=self._jobs_fd)
            with contextlib.suppress(OSError):
                leaf.remove()
            os.write(socket, ANSWER.pack(self._count, 0, error.errno or 0, stage, into_cgroup))
        leaf.close_entry()
        _close(fds)

    def _clone(self, leaf: Leaf | Group, fds: list[int]) -> int:
        """Makes pipes and child; its pid, and in `fds` what the supervisor is to have of it."""
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for flags in (os.O_CLOEXEC, os.O_CLOEXEC, os.O_CLOEXEC | os.O_NONBLOCK):
                reader, writer = os.pipe2(flags)
                ours.append(reader)
                theirs.append(writer)
            order, our_order = os.pipe2(os.O_CLOEXEC)
            ours.append(our_order)
            theirs.append(order)
            order_file = os.memfd_create("order", os.MFD_CLOEXEC)
            ours.append(order_file)
            stdout, stderr, status, _ = theirs
            place = child.Place(
                leaf.join_fds, stdout=stdout, stderr=stderr, status=status, order=order, order_file=order_file
            )
            pid, pidfd = syscalls.clone3(flags=syscalls.CLONE_PARENT, cgroup_fd=leaf.clone_fd)
            if pid == 0:
                child.run(place, self._origin)
            fds.append(pidfd)
        finally:
            fds += ours
            _close(theirs)
        return pid


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
