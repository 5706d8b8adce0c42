"""Kernel calls that Python's `os` does not have: one small function each, OSError on failure, no policy.

Calls go through ctypes.PyDLL, which keeps the interpreter lock: a child made by clone3 while another
thread held a lock of libc or of the interpreter would hang in its first allocation. Only what waits for the
disk lets go of it, and is nothing for a process that clones. Standard library only,
and the only place of the project that imports ctypes. Sources: the man pages of the calls, section 2.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LIBC = ctypes.PyDLL(None, use_errno=True)
_UNLOCKED_LIBC = ctypes.CDLL(None, use_errno=True)
_SYSCALL = _LIBC.syscall
_SYSCALL.restype = ctypes.c_long

# the same numbers on every architecture
_SYS_PIDFD_SEND_SIGNAL = 424
_SYS_CLONE3 = 435
_SYS_CLOSE_RANGE = 436
_CLONE_PIDFD = 0x1000
_CLONE_INTO_CGROUP = 0x200000000
CLONE_PARENT = 0x8000  # the child becomes our sibling: our parent waits for it
_CLONE_ARGS = (ctypes.c_uint64 * 11)()  # struct clone_args of Linux 5.7, whose last field is the cgroup
_PIDFD = ctypes.c_int(-1)

_SYS_KEYCTL = 250 if os.uname().machine == "x86_64" else 219  # asm-generic/unistd.h
_KEYCTL_JOIN_SESSION_KEYRING = 1

_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO = struct.Struct("=QQ11Ii")  # mask, cgroup, pids and ids, exit status
_PIDFD_INFO_EXIT = 8

_PR_SET_NAME = 15
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_AF_UNIX = 1
_SOCK_SEQPACKET = 5
_SOL_SOCKET = 1
_SCM_RIGHTS = 1
_MSG_DONTWAIT = 0x40
_MSG_NOSIGNAL = 0x4000
_MSG_CMSG_CLOEXEC = 0x40000000

IN_MODIFY = 0x2
IN_Q_OVERFLOW = 0x4000
_INOTIFY_EVENT = struct.Struct("iIII")

_FIONREAD = 0x541B  # asm-generic/ioctls.h

_FALLOC_FL_KEEP_SIZE = 0x1
_FALLOC_FL_PUNCH_HOLE = 0x2
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

# their numbers are those of every architecture Python is built for but MIPS; `signal` would bring `enum` into each child
SIGHUP = 1
SIGINT = 2
SIGKILL = 9
SIGPIPE = 13
SIGTERM = 15
SIGCHLD = 17
SIGSTOP = 19
SIGXFSZ = 25
SIGNALS = 64
_SIG_SETMASK = 2
_RENAME_NOREPLACE = 1
_SIGSET_SIZE = 128  # glibc's sigset_t, larger than the kernel's
_DEFAULT_ACTION = bytes(64)  # struct sigaction of the kernel: SIG_DFL, no flags, nothing blocked
_KERNEL_SIGSET_SIZE = 8
_SYS_RT_SIGACTION = 13 if os.uname().machine == "x86_64" else 134  # asm-generic/unistd.h


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def clone3(*, flags: int = 0, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Forks, into the cgroup2 directory `cgroup_fd` when given: (pid, pidfd) in the parent, (0, -1) in the child.

    The pidfd is close-on-exec. The at-fork hooks of the interpreter do not run: the caller has one thread, and
    its child only makes system calls and execs. The cgroup must be fresh: one that was ever killed kills the child.
    """
    arguments = _CLONE_ARGS
    arguments[0] = flags | _CLONE_PIDFD | (0 if cgroup_fd is None else _CLONE_INTO_CGROUP)
    arguments[1] = ctypes.addressof(_PIDFD)
    arguments[4] = 0 if flags & CLONE_PARENT else SIGCHLD  # a sibling sends its parent what we would
    arguments[10] = cgroup_fd or 0
    pid = _check(_SYSCALL(_SYS_CLONE3, arguments, 88))
    return (pid, _PIDFD.value) if pid else (0, -1)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Signals the very process that a pidfd stands for; ProcessLookupError when it is gone."""
    _check(_SYSCALL(_SYS_PIDFD_SEND_SIGNAL, pidfd, signal, None, 0))


def is_readable(fd: int) -> bool:
    """Whether a descriptor has something to tell now; a pidfd has when its process has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def pidfd_exit_status(pidfd: int) -> int | None:
    """The wait status of a process that somebody else has reaped; None while nobody has.

    OSError where the kernel cannot tell: before Linux 6.15 (ENOTTY), or when it was reaped before the pidfd was opened.
    Source: PIDFD_GET_INFO in include/uapi/linux/pidfd.h.
    """
    info = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, 0, *[0] * 11, 0))
    fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    mask, *_, status = _PIDFD_INFO.unpack(info)
    return status if mask & _PIDFD_INFO_EXIT else None


def close_range(first: int, last: int) -> None:
    """Closes every open descriptor from `first` to `last`; none need be open."""
    if first <= last:
        _check(_SYSCALL(_SYS_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(0)))


def close_each(fds: Iterable[int]) -> None:
    """Closes these descriptors, all of which are open."""
    for fd in fds:
        os.close(fd)


def prctl(option: int, value: int) -> None:
    """Sets an attribute of the calling process, one of the PR_ constants above."""
    _check(
        _LIBC.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    )


def join_new_keyring() -> None:
    """Gives the process an empty session keyring of its own, which its children share (session-keyring(7)).

    OSError where the kernel has no keys, or may give none (EPERM, EDQUOT).
    """
    _check(_SYSCALL(_SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None))


def set_process_name(name: bytes) -> None:
    """Sets what `ps` and /proc/PID/comm show, up to 15 bytes; an exec replaces it."""
    _check(_LIBC.prctl(_PR_SET_NAME, ctypes.c_char_p(name)))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Gives `length` bytes from `offset` back to the file system; they read as zeros, the size stays."""
    _check(_LIBC.fallocate(fd, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, offset, length))


def reserve(fd: int, length: int) -> None:
    """Gives a file the space for its first `length` bytes, which later need none; its size stays."""
    _check(_LIBC.fallocate(fd, _FALLOC_FL_KEEP_SIZE, 0, length))


def count_readable(fd: int) -> int:
    """How many bytes a pipe holds (pipe(7), FIONREAD)."""
    return int.from_bytes(fcntl.ioctl(fd, _FIONREAD, bytes(4)), "little")


def rename_new(old: str, new: str, *, dir_fd: int) -> None:
    """Renames within a directory and replaces nothing: FileExistsError, or EINVAL where the file system cannot tell."""
    _check(_LIBC.renameat2(dir_fd, os.fsencode(old), dir_fd, os.fsencode(new), _RENAME_NOREPLACE))


def signalfd(signals: list[int]) -> int:
    """A close-on-exec, non-blocking descriptor that becomes readable when one of these blocked signals is pending."""
    return _check(_LIBC.signalfd(-1, _sigset(signals), os.O_NONBLOCK | os.O_CLOEXEC))


def set_signal_mask(signals: list[int]) -> None:
    """Blocks exactly these signals in the calling thread."""
    _check(_LIBC.sigprocmask(_SIG_SETMASK, _sigset(signals), None))


def reset_signal(signal: int) -> None:
    """Gives a signal its default action back; signals that have no other action are left alone.

    Asks the kernel, past libc: that keeps 32 and 33 to itself, and whoever started us may have ignored them.
    """
    _SYSCALL(_SYS_RT_SIGACTION, signal, _DEFAULT_ACTION, None, _KERNEL_SIGSET_SIZE)


def _sigset(signals: list[int]) -> bytes:
    bits = sum(1 << signal - 1 for signal in signals if 1 <= signal <= SIGNALS)
    return bits.to_bytes(_SIGSET_SIZE, "little")


def socketpair() -> tuple[int, int]:
    """Two connected, close-on-exec sockets that keep messages apart (SOCK_SEQPACKET)."""
    pair = (ctypes.c_int * 2)()
    _check(_LIBC.socketpair(_AF_UNIX, _SOCK_SEQPACKET | os.O_CLOEXEC, 0, pair))
    return pair[0], pair[1]


def send_descriptors(fd: int, data: bytes, descriptors: list[int]) -> None:
    """Sends a message and copies of some descriptors over a unix socket (unix(7), SCM_RIGHTS)."""
    count = len(descriptors)
    control = struct.pack(f"@Nii{count}i", 16 + 4 * count, _SOL_SOCKET, _SCM_RIGHTS, *descriptors)
    message = _Message(data, control if descriptors else b"")
    _check(_LIBC.sendmsg(fd, message.header, _MSG_NOSIGNAL))


def receive_descriptors(fd: int, *, size: int, count: int, wait: bool = True) -> tuple[bytes, list[int]]:
    """The next message of up to `size` bytes and `count` descriptors, close-on-exec; b"" when the peer is gone.

    Without `wait` BlockingIOError when there is none.
    """
    message = _Message(bytes(size), bytes(16 + 4 * count))
    flags = _MSG_CMSG_CLOEXEC | (0 if wait else _MSG_DONTWAIT)
    length = _check(_LIBC.recvmsg(fd, message.header, flags))
    control = message.control.raw
    taken = max(0, int.from_bytes(control[:8], "little") - 16) // 4
    return message.data.raw[:length], list(struct.unpack_from(f"@{taken}i", control, 16))


class _Message:
    """The buffers of one struct msghdr, kept alive together."""

    def __init__(self, data: bytes, control: bytes) -> None:
        self.data = ctypes.create_string_buffer(data, len(data))
        self.control = ctypes.create_string_buffer(control, len(control))
        vector = struct.pack("@PN", ctypes.addressof(self.data), len(data))
        self._vector = ctypes.create_string_buffer(vector, len(vector))
        where = ctypes.addressof(self.control) if control else 0
        self.header = struct.pack("@PIPNPNi", 0, 0, ctypes.addressof(self._vector), 1, where, len(control), 0)


def syncfs(fd: int) -> None:
    """Returns when all of the file system that `fd` lies on is on the disk; other threads go on meanwhile."""
    _check(_UNLOCKED_LIBC.syncfs(fd))


def inotify_init() -> int:
    """A close-on-exec, non-blocking inotify descriptor."""
    return _check(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_add_watch(fd: int, path: str | bytes, mask: int) -> int:
    """Watches `path` for the events in `mask`; the watch descriptor, the same again for a path watched already."""
    return _check(_LIBC.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask)))


def inotify_rm_watch(fd: int, watch: int) -> None:
    """Ends a watch; an IN_IGNORED event follows."""
    _check(_LIBC.inotify_rm_watch(fd, watch))


def parse_inotify(data: bytes) -> list[tuple[int, int, bytes]]:
    """The (watch descriptor, mask, name) of each event in what was read from an inotify descriptor."""
    events = []
    position = 0
    while position < len(data):
        watch, mask, _, length = _INOTIFY_EVENT.unpack_from(data, position)
        position += _INOTIFY_EVENT.size
        events.append((watch, mask, data[position : position + length].rstrip(b"\0")))
        position += length
    return events
