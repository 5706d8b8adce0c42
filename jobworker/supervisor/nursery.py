"""Children that are born before they are needed, since a clone and its cgroup cost more than all the rest of a start.

Decides when the nurse is to make one: one is always ready, the next is asked for when the answer to a launch is on its
way, and two when launches come faster than that. Handing out a ready child and waiting for one are the same thing at
different times. How children are made is the nurse's business, what is held of each `seat`'s, what they are ordered to do the
launch's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select

from jobworker import syscalls
from jobworker.supervisor import family, jobfiles
from jobworker.supervisor.cgroup_none import Group
from jobworker.supervisor.journal import note
from jobworker.supervisor.nurse import ANSWER, DESCRIPTORS, MAKE, STAGES, TEST_AND_MAKE, Nurse, Origin
from jobworker.supervisor.seat import Seat, kill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.cgroup import Tree
    from jobworker.supervisor.custody import Custody
    from jobworker.supervisor.jobfacts import Stage, StartFailure
    from jobworker.supervisor.loop import Loop

_READ = select.EPOLLIN  # what `loop` calls READ; not imported before the nurse is hired
RESERVE = 32  # descriptors that are not used for jobs: ending one takes a few
_TAKEN_OVER = 6  # descriptors of a job at a takeover: those that the keeper holds, and the output's files
_ENDING = 8  # of one at its end where there are no cgroups: as many but the status pipe's, and three to await a process
_NO_DESCRIPTORS = "the supervisor has no descriptors left for more jobs"
_PATIENCE_MS = 10_000  # a nurse that takes longer is stuck


class StartError(Exception):
    """A step before the program's first instruction failed."""

    def __init__(self, stage: Stage, errno: int, detail: str) -> None:
        super().__init__(detail)
        self.failure: StartFailure = {"stage": stage, "errno": errno, "detail": detail}


class Nursery:
    """Where launches take their children from."""

    __slots__ = (
        "_asked",
        "_jobs_fd",
        "_last",
        "_loop",
        "_nurse",
        "_origin",
        "_ready",
        "_retest",
        "_socket",
        "custody",
        "tree",
    )

    def __init__(
        self, tree: Tree | None, origin: Origin, *, jobs_fd: int, custody: Custody, last: int
    ) -> None:
        """Clones the nurse from this process, which had better be small; numbers up to `last` have been used."""
        self.tree = tree
        self._origin = origin
        self._jobs_fd = jobs_fd
        self.custody = custody
        self._loop: Loop | None = None
        self._ready: list[Seat] = []
        self._asked = 0  # children asked for and not received yet
        self._last = last  # number of the last one
        self._retest = False
        self._hire()

    def attend(self, loop: Loop) -> None:
        """From now on takes children in as soon as they are ready."""
        self._loop = loop
        loop.watch(self._socket, _READ, self._on_answer)

    def take(self, *, beside: int) -> Seat:
        """A waiting child, for a job beside so many others; StartError when none can be made, or held by a successor."""
        per_job = _ENDING if self.tree is None else _TAKEN_OVER
        if (beside + 1) * per_job + 2 * RESERVE > _descriptor_limit():
            raise StartError("setup", errno.EMFILE, _NO_DESCRIPTORS)
        while self._ready:
            seat = self._ready.pop()
            if seat.is_alive():
                return seat
            self._bury(seat)
        seat = self._await_child()
        if not seat.is_alive():
            self._bury(seat)
            seat = self._await_child()
        self.refill()  # launches come fast: the next is made while this one is sent on its way
        return seat

    def put_back(self, seat: Seat) -> None:
        """Takes back a child that was not needed."""
        self._ready.append(seat)

    def discard(self, seat: Seat) -> None:
        """Ends a child that is not needed; leaves the directory."""
        seat.discard()
        self.custody.drop(seat.number)

    def refill(self) -> None:
        """Has the next child made, if there is none; a failure is for the launch that will need it."""
        if not self._ready and not self._asked:
            self._ask()

    def close(self) -> None:
        """Ends the children that wait, and the nurse."""
        if self._asked:
            with contextlib.suppress(StartError):
                self._ready.append(self._receive())
        while self._ready:
            self._throw_away(self._ready.pop())
        self._dismiss()

    def doubt_clone(self) -> None:
        """A child was killed before its exec: perhaps by the kernel, because our own cgroup was once killed."""
        self._retest = True

    def _ask(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # she is dead; found out when the child is needed
            os.write(self._socket, TEST_AND_MAKE if self._retest else MAKE)
        self._asked += 1
        self._retest = False

    def _await_child(self) -> Seat:
        """The child on its way; if that could not be made, another: the reason may have been a disk that was full then."""
        if self._asked:
            with contextlib.suppress(StartError):
                return self._receive()
        self.refill()
        return self._receive()

    def _bury(self, seat: Seat) -> None:
        self._throw_away(seat)
        self.doubt_clone()

    def _throw_away(self, seat: Seat) -> None:
        self.discard(seat)
        jobfiles.remove(seat.number, jobs_fd=self._jobs_fd)

    def _on_answer(self, _events: int) -> None:
        if self._asked:
            with contextlib.suppress(StartError):
                self._ready.append(self._receive())
        elif self._loop is not None:  # a hang-up; found out when the next child is asked for
            self._loop.unwatch(self._socket)

    def _hire(self) -> None:
        self._socket, hers = syscalls.socketpair()
        parent = os.getpid()
        pid, self._nurse = syscalls.clone3()
        if pid == 0:
            keeper_fd = self.custody.socket
            nurse = Nurse(self.tree, self._origin, jobs_fd=self._jobs_fd, keeper_fd=keeper_fd, socket=hers)
            nurse.run(parent=parent, first=self._last)
        os.close(hers)
        if self._loop is not None:
            self._loop.watch(self._socket, _READ, self._on_answer)

    def _dismiss(self) -> None:
        if self._loop is not None:
            self._loop.unwatch(self._socket)
        kill(self._nurse)
        os.close(self._nurse)
        os.close(self._socket)

    def _replace_nurse(self) -> None:
        """Removes what she was making when she died, and does not use its number again."""
        note("the nurse has ended, or does not answer: another one is hired")
        self._dismiss()
        for _ in range(self._asked):
            self._last += 1
            self._remove_unfinished(self._last)
        self._asked = 0
        self._hire()

    def _remove_unfinished(self, number: int) -> None:
        self.custody.drop(number)
        jobfiles.remove(number, jobs_fd=self._jobs_fd)
        if self.tree is None:
            return
        leaf = self.tree.new_leaf(str(number))
        place = f"/{os.path.basename(self.tree.path)}/{number}"
        for pid in {*leaf.processes(), *_children_in(place)}:  # our child, though we never heard of it
            os.kill(pid, syscalls.SIGKILL)
            os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            leaf.remove()

    def _receive(self) -> Seat:
        data, fds = self._read_answer()
        if not data:
            self._replace_nurse()
            self._ask()
            data, fds = self._read_answer()
        if not data:
            raise StartError("setup", 0, "the process that makes children does not answer")
        self._asked -= 1
        self._last, pid, number, stage, into_cgroup = ANSWER.unpack(data)
        if self.tree is not None:
            self.tree.into_cgroup = bool(into_cgroup)
        if pid == 0:
            raise StartError(
                STAGES[stage], number, f"it could not be prepared: {os.strerror(number).lower()}"
            )
        if len(fds) < DESCRIPTORS or max(fds) >= _descriptor_limit() - RESERVE:
            self._refuse(pid, fds)
            raise StartError("setup", errno.EMFILE, _NO_DESCRIPTORS)
        leaf = Group() if self.tree is None else self.tree.new_leaf(str(self._last))
        return Seat(self._last, pid, leaf=leaf, fds=fds)

    def _refuse(self, pid: int, fds: list[int]) -> None:
        syscalls.close_each(fds)
        os.kill(pid, syscalls.SIGKILL)
        os.waitpid(pid, 0)
        self._remove_unfinished(self._last)

    def _read_answer(self) -> tuple[bytes, list[int]]:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(_PATIENCE_MS):
            return b"", []
        try:
            return syscalls.receive_descriptors(self._socket, size=ANSWER.size, count=DESCRIPTORS)
        except ConnectionResetError:  # she died with a request unread
            return b"", []


def _children_in(place: str) -> list[int]:
    """Our children in a cgroup, those included that have ended, which it does not list."""
    return [pid for pid in family.children(os.getpid()) if _cgroup(pid).endswith(place)]


def _cgroup(pid: int) -> str:
    with open(f"/proc/{pid}/cgroup") as file:
        ours = next((line for line in file if line.startswith("0::")), "")
    return ours.rstrip("\n").removesuffix(" (deleted)")


def _descriptor_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
