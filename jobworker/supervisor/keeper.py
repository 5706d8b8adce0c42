"""The process above the supervisor: holds what must not die with it, and starts it again when it does.

Decides nothing about jobs. It keeps a copy of each job's pidfd and of the read ends of its pipes, so that a job whose
supervisor is killed goes on writing; it is the subreaper to whom orphaned jobs fall, so that their exit status is
known (PR_SET_CHILD_SUBREAPER, prctl(2)); and it holds the lock of the state directory for both. It is small and does
little, since nothing watches over it but the supervisor, which becomes the keeper itself, and starts another in its own
place, when this one dies.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct

from jobworker import syscalls
from jobworker.supervisor.journal import note
from jobworker.supervisor.options import spawn, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.options import Options

PROCESS_NAME = b"jobworker-keep"
SIGNALS = [syscalls.SIGTERM, syscalls.SIGHUP, syscalls.SIGINT, syscalls.SIGCHLD]

# Messages, either way: a kind, a number and a pid, then 64-bit words. They are part of an upgrade: a new supervisor talks
# to a keeper of the version before, so what is here stays.
KEEP, DROP, FETCH, READY, EXITED, END = b"K", b"D", b"F", b"R", b"X", b"E"
HEAD = struct.Struct("<cxxxIi")  # kind, number of the child, its pid
# wait status, user and system time in microseconds, largest resident size in KiB
STATUS = struct.Struct("<iQQQ")
NUMBER = struct.Struct("<I")
# number, pid and descriptors of one child: what a supervisor hands on through an exec
TABLE = struct.Struct("<Ii4i")
LISTENER = 0  # the number under which the listening socket is kept
MESSAGE_SIZE = 4096
DROPPED_AT_ONCE = (MESSAGE_SIZE - HEAD.size) // NUMBER.size
DESCRIPTORS = 4  # of one child: pidfd, read ends of stdout, stderr and status pipe

_CANNOT_START = 1  # exit status of a supervisor that has said why
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 30.0  # seconds before a supervisor that died at its start is started again


class Kept:
    """What is held of one child; `pid` 0 when it is not ours to wait for, and so not for us to tell of its end."""

    __slots__ = ("fds", "pid")

    def __init__(self, pid: int, fds: list[int]) -> None:
        self.pid = pid
        self.fds = fds


class Keeper:
    """The process's state."""

    def __init__(self, options: Options) -> None:
        """With `kept_fd` among the options this was a supervisor, and is the parent of what it has to keep."""
        self._options = options
        self._kept: dict[int, Kept] = {}
        for number, kept in read_table(options.kept_fd).items():
            self._kept[number] = Kept(kept.pid if _is_ours(kept.pid) else 0, kept.fds)
        self._statuses: dict[int, bytes] = {}  # pid → packed STATUS of children that ended while nobody asked
        self._socket = -1
        self._signals = -1
        self._supervisor = 0  # its pid, 0 while there is none
        self._is_ready = False
        self._is_asked_to_end = False
        self._poll = select.poll()

    def run(self) -> int:
        """Starts the supervisor, and again whenever it dies; returns the exit status of one that ends by itself."""
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        self._signals = syscalls.signalfd(SIGNALS)
        self._poll.register(self._signals, select.POLLIN)
        self._take_in_dead()  # those that ended before there was a signal to hold
        ready_fd, pause = self._options.ready_fd, _FIRST_PAUSE
        while True:
            status = self._serve(ready_fd)
            ready_fd = -1
            if self._is_ready:
                pause = _FIRST_PAUSE
            elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == _CANNOT_START and not self._kept:
                return _CANNOT_START
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
                return 0
            note(f"the supervisor has ended with status {status:#x}; {len(self._kept)} children are kept")
            if not self._is_ready:
                if self._is_asked_to_end:
                    return _CANNOT_START
                # nothing tells when it would start; a signal is reason to try at once
                if self._poll.poll(pause * 1000):
                    self._on_signals()
                pause = min(2 * pause, _LAST_PAUSE)

    def _serve(self, ready_fd: int) -> int:
        """Starts one supervisor and serves it; its wait status, that of one that says why not when no supervisor can be started."""
        try:
            self._start(ready_fd=ready_fd)
        except OSError as error:
            if not self._kept:
                raise
            note(f"no supervisor can be started: {error.strerror}")
            return _CANNOT_START << 8
        return self._attend()

    def _start(self, *, ready_fd: int) -> None:
        self._is_ready = False
        ours, theirs = syscalls.socketpair()
        command = self._options.command(keeper_fd=theirs, ready_fd=ready_fd)
        try:
            self._supervisor = spawn(command, fds=(theirs, ready_fd, self._options.lock_fd))
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        if ready_fd >= 0:
            os.close(ready_fd)
        self._socket = ours
        self._poll.register(ours, select.POLLIN)
        if self._is_asked_to_end:
            os.kill(self._supervisor, syscalls.SIGTERM)

    def _attend(self) -> int:
        """Serves the supervisor until it has ended; its wait status."""
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._socket:
                    self._receive(wait=False)
                elif fd == self._signals and (status := self._on_signals()) is not None:
                    while self._socket >= 0:  # what it, or its nurse, said last
                        self._receive(wait=True)
                    return status

    def _on_signals(self) -> int | None:
        """Passes on what was meant for the supervisor, and takes in the dead; the supervisor's status if it is among them."""
        data = os.read(self._signals, 128 * 16)
        numbers = {int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 128)}
        while self._socket >= 0 and self._receive(wait=False):  # who is kept, before who has died
            pass
        for number in numbers & {syscalls.SIGTERM, syscalls.SIGHUP}:
            self._is_asked_to_end |= number == syscalls.SIGTERM
            if self._supervisor:
                os.kill(self._supervisor, number)
        return self._take_in_dead()

    def _take_in_dead(self) -> int | None:
        ended = None
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait3(os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._supervisor:
                    self._supervisor = 0
                    ended = status
                else:
                    times = round(usage.ru_utime * 1e6), round(usage.ru_stime * 1e6)
                    self._on_orphan(pid, STATUS.pack(status, *times, usage.ru_maxrss))
        return ended

    def _on_orphan(self, pid: int, status: bytes) -> None:
        """A job's main process, or one that a job left behind somewhere in its tree, which nobody asks about."""
        if any(kept.pid == pid for kept in self._kept.values()):
            self._statuses[pid] = status
            self._send(EXITED, pid=pid, data=status)  # told again to who fetches later: twice does no harm

    def _receive(self, *, wait: bool) -> bool:
        """Takes in one message, if there is one; whether there was."""
        try:
            data, fds = syscalls.receive_descriptors(
                self._socket, size=MESSAGE_SIZE, count=DESCRIPTORS, wait=wait
            )
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data, fds = b"", []
        if not data:
            self._poll.unregister(self._socket)
            os.close(self._socket)
            self._socket = -1
            return False
        kind, number, pid = HEAD.unpack_from(data)
        if kind == KEEP:
            self._drop(number)
            self._kept[number] = Kept(pid, fds)
        elif kind == DROP:
            for (dropped,) in NUMBER.iter_unpack(data[HEAD.size :]):
                self._drop(dropped)
        elif kind == FETCH:
            self._give_all()
        elif kind == READY:
            self._is_ready = True
            # sd_notify(3): from us, whom the service manager knows
            tell(self._options.notify_fd, "READY=1\n")
            self._options.notify_fd = -1
        return True

    def _drop(self, number: int) -> None:
        kept = self._kept.pop(number, None)
        if kept is not None:
            self._statuses.pop(kept.pid, None)
            syscalls.close_each(kept.fds)

    def _give_all(self) -> None:
        for number, kept in self._kept.items():
            self._send(KEEP, number=number, pid=kept.pid, fds=kept.fds)
        for pid, status in self._statuses.items():
            self._send(EXITED, pid=pid, data=status)
        self._send(END)

    def _send(
        self, kind: bytes, *, number: int = 0, pid: int = 0, data: bytes = b"", fds: list[int] | None = None
    ) -> None:
        if self._socket < 0:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has just died: soon we are told
            syscalls.send_descriptors(self._socket, HEAD.pack(kind, number, pid) + data, fds or [])


def read_table(kept_fd: int) -> dict[int, Kept]:
    """What a supervisor has handed on through an exec, in the file that this closes; nothing for -1."""
    if kept_fd < 0:
        return {}
    with open(kept_fd, "rb") as file:
        rows = TABLE.iter_unpack(file.read())
        return {number: Kept(pid, [fd for fd in fds if fd >= 0]) for number, pid, *fds in rows}


def _is_ours(pid: int) -> bool:
    """Whether we are its parent: else an earlier keeper was, and whoever adopts orphans on this host is now."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:  # EINVAL for 0
        return False
    return True
