"""The process that makes the supervisor's children, so that the supervisor itself is never copied.

A clone copies the memory map of the process that makes it, and makes that process pay for each page it writes to
afterwards. The nurse is cloned from the supervisor when that has loaded next to nothing, and does nothing else: on
request she makes one child in a fresh cgroup leaf, which waits for its order, and a directory with the files it will
need, and hands over the descriptors: to the supervisor, and before that to the keeper, in case it loses them. Her
children are her siblings, so the supervisor is their parent. She knows no jobs, and ends with the supervisor.
"""

from __future__ import annotations

import contextlib
import os
import resource
import struct

from jobworker import syscalls
from jobworker.supervisor import cgroup_setup, child, jobfiles
from jobworker.supervisor.cgroup_none import Group
from jobworker.supervisor.journal import note, note_exception
from jobworker.supervisor.keeper import HEAD, KEEP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.cgroup import Leaf, Tree
    from jobworker.supervisor.jobfacts import Stage

PROCESS_NAME = b"jobworker-nurse"  # 15 bytes: what the nurse is called, and her children until they exec
MAKE = b"m"
TEST_AND_MAKE = b"t"  # a child died before its time: first find out whether cloning into a leaf works at all
# number of the leaf and of the directory, pid or 0, errno, index in STAGES, whether cloned into the leaf
ANSWER = struct.Struct("<5i")
STAGES: tuple[Stage, ...] = ("cgroup", "setup")
_CGROUP, _SETUP = range(2)
# that come with an answer: output.log, output.idx, pidfd, our ends of stdout, stderr, status and order pipe, order file
DESCRIPTORS = 8
_KEPT = slice(2, 6)  # of these: what the keeper gets
_LAST_DESCRIPTOR = 2**32 - 1
# whatever user the job runs as may open /dev/stderr; only that user's processes have a way to it
_OUTPUT_MODE = 0o622


class Origin:
    """What the supervisor did to itself that its children are not to inherit.

    `ignored` and `blocked` signals; `nofile`: the descriptor limit it was started with, None if it did not raise it.
    """

    __slots__ = ("blocked", "ignored", "nofile")

    def __init__(self, *, ignored: list[int], blocked: list[int], nofile: tuple[int, int] | None) -> None:
        self.ignored = ignored
        self.blocked = blocked
        self.nofile = nofile


class Nurse:
    """The process's state: a tree to make leaves in, a directory for jobs, and how many she has made."""

    __slots__ = ("_count", "_jobs_fd", "_keeper_fd", "_origin", "_socket", "_tree")

    def __init__(
        self, tree: Tree | None, origin: Origin, *, jobs_fd: int, keeper_fd: int, socket: int
    ) -> None:
        self._tree = tree
        self._origin = origin
        self._jobs_fd = jobs_fd
        self._keeper_fd = keeper_fd
        self._socket = socket
        self._count = 0

    def run(self, *, parent: int, first: int) -> None:
        """Answers requests until the supervisor is gone; never returns."""
        try:
            self._settle()
            self._count = first
            while os.getppid() == parent and (request := os.read(self._socket, 1)):
                if request == TEST_AND_MAKE and self._tree is not None and self._tree.into_cgroup:
                    cgroup_setup.try_clone(self._tree)
                self._make()
        except ConnectionError:  # the supervisor ended with an answer unread
            pass
        except BaseException:  # nothing may unwind into the copy of the supervisor
            note_exception()
        finally:
            os._exit(1)

    def _settle(self) -> None:
        """Makes herself what her children are to be, as far as they inherit it: no child need do that again."""
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, syscalls.SIGKILL)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.set_process_name(PROCESS_NAME)
        for number in self._origin.ignored:
            syscalls.reset_signal(number)
        self._close_others()  # of which there may be more than the limit lets her open
        if self._origin.nofile is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._origin.nofile)
        null_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null_fd, 0)
        os.close(null_fd)

    def _close_others(self) -> None:
        """The supervisor's lock and sockets must not live on here."""
        kept = {self._socket, self._keeper_fd, self._jobs_fd}
        if self._tree is not None:
            kept.update((self._tree.fd, *self._tree.v1_fds.values()))
        first = 3
        for fd in sorted(kept):
            syscalls.close_range(first, fd - 1)
            first = fd + 1
        syscalls.close_range(first, _LAST_DESCRIPTOR)

    def _make(self) -> None:
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
            self._give_into_custody(pid, fds[_KEPT])
            syscalls.send_descriptors(self._socket, ANSWER.pack(self._count, pid, 0, 0, into_cgroup), fds)
        except OSError as error:
            note(f"no child could be made: {error.strerror}")
            jobfiles.remove(self._count, jobs_fd=self._jobs_fd)
            with contextlib.suppress(OSError):
                leaf.remove()
            os.write(self._socket, ANSWER.pack(self._count, 0, error.errno or 0, stage, into_cgroup))
        leaf.close_entry()
        syscalls.close_each(fds)

    def _give_into_custody(self, pid: int, fds: list[int]) -> None:
        with contextlib.suppress(OSError):  # without a keeper jobs run all the same
            syscalls.send_descriptors(self._keeper_fd, HEAD.pack(KEEP, self._count, pid), fds)

    def _clone(self, leaf: Leaf | Group, fds: list[int]) -> int:
        """Makes pipes and child; its pid, and in `fds` what the supervisor is to have of it."""
        unwanted = [self._socket, self._keeper_fd]
        place = child.Place(
            joins=leaf.join_fds,
            unwanted=unwanted,
            blocked=self._origin.blocked,
            adopts=self._tree is None,
        )
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for flags in (os.O_CLOEXEC, os.O_CLOEXEC, os.O_CLOEXEC | os.O_NONBLOCK):
                reader, writer = os.pipe2(flags)
                ours.append(reader)
                theirs.append(writer)
            place.stdout, place.stderr, place.status = theirs
            for fd in (place.stdout, place.stderr):
                os.fchmod(fd, _OUTPUT_MODE)
            place.order, our_order = os.pipe2(os.O_CLOEXEC)
            ours.append(our_order)
            theirs.append(place.order)
            place.order_file = os.memfd_create("order", os.MFD_CLOEXEC)
            unwanted += ours
            with contextlib.suppress(OSError):  # who has the same keyring as another job can read its keys
                syscalls.join_new_keyring()
            pid, pidfd = syscalls.clone3(flags=syscalls.CLONE_PARENT, cgroup_fd=leaf.clone_fd)
            if pid == 0:
                child.run(place)
            fds.append(pidfd)
        finally:
            fds += [fd for fd in (*ours, place.order_file) if fd >= 0]
            syscalls.close_each(theirs)
        return pid
