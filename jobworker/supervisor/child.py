"""What a job's first process does between clone and exec, and how it says what went wrong.

Decides the order of the steps and the words for their failures. The process is born before it is needed: it enters
its cgroups, takes its place and waits for its order, which names the program. It runs in a copy of the nurse, so it
only makes system calls: no locks, no loop, no cleaning up, and no ctypes, whose memory would be copied page by page.
Success is silent, since exec closes the status pipe; a failure is written there as three lines (stage, errno, detail),
and the process ends.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import stat
from _signal import SIG_SETMASK, pthread_sigmask  # type: ignore[import-not-found]  # `signal` makes enums of its answer

from jobworker import syscalls

_ORDER_SIZE = 8  # bytes on the order pipe: the length of the order itself, which is in the order file
_DETAIL_LENGTH = 2000  # characters; of what is more than PIPE_BUF with the rest the end is not read
_NO_MEMORY = "rlimits.as or rlimits.data leaves too little memory to execute anything"
_HEAD_LENGTH = 4096  # bytes of a program looked at to see what it needs


class NoOrderError(Exception):
    """The supervisor has ended; a successor reads it from the status pipe, should this have been a job already."""


class Order:
    """What to become: program and arguments, environment, directory, and the user and group, None to stay as it is."""

    __slots__ = ("argv", "env", "gid", "uid", "workdir")

    def __init__(
        self, argv: list[bytes], env: dict[bytes, bytes], workdir: bytes, uid: int | None, gid: int | None
    ) -> None:
        self.argv = argv
        self.env = env
        self.workdir = workdir
        self.uid = uid
        self.gid = gid


class Place:
    """The descriptors of a child: ways into its cgroups, its output, order pipe and file, status pipe.

    `adopts`: the orphans among its descendants are to fall to it, since there is no cgroup that holds them together.

    `unwanted` are those of its maker: kept open here they would outlive her, and an order pipe would never end.
    `blocked` are the signals that wait until the program runs; `stage` is the step the child is at, for its report.
    """

    __slots__ = (
        "adopts",
        "blocked",
        "joins",
        "order",
        "order_file",
        "stage",
        "status",
        "stderr",
        "stdout",
        "unwanted",
    )

    def __init__(self, *, joins: list[int], unwanted: list[int], blocked: list[int], adopts: bool) -> None:
        self.adopts = adopts
        self.joins = joins
        self.unwanted = unwanted
        self.blocked = blocked
        self.stdout = self.stderr = self.status = self.order = self.order_file = -1
        self.stage = "cgroup"


def pack_order(order: Order) -> tuple[bytes, bytes]:
    """What goes into the order file, and then onto the order pipe."""
    data = marshal.dumps((order.argv, order.env, order.workdir, order.uid, order.gid))
    return data, len(data).to_bytes(_ORDER_SIZE, "little")


def run(place: Place) -> None:
    """Takes its place, awaits its order and becomes that program, or reports why not and exits; never returns."""
    order = None
    try:
        for fd in place.joins:
            os.write(fd, b"0")
        place.stage = "setup"
        if place.adopts:
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        os.setsid()
        os.dup2(place.stdout, 1)
        os.dup2(place.stderr, 2)
        for fd in place.unwanted:
            os.close(fd)
        _practise(place)
        order = _await_order(place)
        _obey(order, place, blocked=[])
    except BaseException as error:  # nothing may unwind into the copy of the nurse
        if isinstance(error, MemoryError):
            place.stage = "limit"
        _report(place, error, order)
    finally:
        os._exit(127)


def _practise(place: Place) -> None:
    """Goes through the motions, so that the memory they touch is copied now and not when somebody waits."""
    order = _unpack_order(pack_order(Order([b"./"], {b"PATH": b"/"}, b"/", None, None))[0])
    with contextlib.suppress(OSError):  # the program is a directory, which cannot be executed
        _obey(order, place, blocked=place.blocked)
    place.stage = "setup"


def _await_order(place: Place) -> Order:
    length = os.read(place.order, _ORDER_SIZE)
    if not length:
        raise NoOrderError("the supervisor ended before the program was started")
    return _unpack_order(os.pread(place.order_file, int.from_bytes(length, "little"), 0))


def _unpack_order(data: bytes) -> Order:
    return Order(*marshal.loads(data))  # noqa: S302  # from the process we are a copy of


def _obey(order: Order, place: Place, *, blocked: list[int]) -> None:
    place.stage = "user"
    if order.uid is not None and order.gid is not None:
        os.setgroups(())
        os.setresgid(order.gid, order.gid, order.gid)
        os.setresuid(order.uid, order.uid, order.uid)
    place.stage = "workdir"
    os.chdir(order.workdir)
    place.stage = "exec"
    pthread_sigmask(SIG_SETMASK, blocked)
    _execute(order.argv, order.env)


def _execute(argv: list[bytes], env: dict[bytes, bytes]) -> None:
    """Executes argv[0], looked up along PATH unless it has a slash (POSIX: execvp); returns never, raises OSError."""
    program = argv[0]
    if b"/" in program:
        os.execve(program, argv, env)  # noqa: S606  # starting programs is the product
    remembered: OSError | None = None
    search = env.get(b"PATH")
    for directory in search.split(b":") if search else ():
        path = (directory or b".") + b"/" + program
        try:
            os.execve(path, argv, env)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            if isinstance(error, PermissionError) or os.path.lexists(path):
                remembered = remembered or OSError(error.errno, "", path)
    raise remembered or OSError(errno.ENOENT, "")


def _report(place: Place, error: BaseException, order: Order | None) -> None:
    number = error.errno or 0 if isinstance(error, OSError) else 0
    try:
        detail = _explain(place.stage, error, order)
    except Exception:  # the errno still tells
        detail = os.strerror(number).lower()
    text = f"{place.stage}\n{number}\n{detail[:_DETAIL_LENGTH]}"
    with contextlib.suppress(BrokenPipeError):  # nobody is left who would read it
        os.write(place.status, text.encode("utf-8", "replace"))


def _explain(stage: str, error: BaseException, order: Order | None) -> str:
    if not isinstance(error, OSError):
        return _explain_other(error)
    reason = os.strerror(error.errno or 0).lower()
    if stage == "cgroup":
        return f"cannot enter its cgroup: {reason}"
    if order is None:
        return reason
    if stage == "exec":
        return _explain_exec(error, order, reason)
    if stage == "user":
        return f"cannot become user {order.uid}, group {order.gid}: {reason}"
    return f"working directory '{os.fsdecode(order.workdir)}': {reason}"


def _explain_other(error: BaseException) -> str:
    if isinstance(error, NoOrderError):
        return str(error)
    return _NO_MEMORY if isinstance(error, MemoryError) else f"internal error: {error!r}"


def _explain_exec(error: OSError, order: Order, reason: str) -> str:
    program = order.argv[0]
    path = error.filename or (program if b"/" in program else None)
    if path is None:
        return f"not found in PATH={os.fsdecode(order.env.get(b'PATH', b''))}"
    if error.errno == errno.ENOENT:
        return _explain_missing(path)
    if error.errno == errno.EACCES:
        return _explain_denied(path)
    if error.errno == errno.ENOEXEC:
        return "neither a binary for this machine nor a script with a #! line"
    if error.errno == errno.E2BIG:
        return "the arguments and the environment are too long"
    return reason


def _explain_missing(path: bytes) -> str:
    """ENOENT is also the kernel's answer when the program is there and its interpreter is not."""
    if not os.path.exists(path):
        return "not found"
    with open(path, "rb", buffering=0) as file:
        head = file.read(_HEAD_LENGTH)
    interpreter = _script_interpreter(head) if head.startswith(b"#!") else _elf_interpreter(head)
    return f"interpreter '{os.fsdecode(interpreter)}' not found"


def _script_interpreter(head: bytes) -> bytes:
    words = head[2:].split(b"\n", 1)[0].split()
    return words[0] if words else b""


def _elf_interpreter(head: bytes) -> bytes:
    """The PT_INTERP segment of a 64-bit little endian program (elf(5))."""
    offset = int.from_bytes(head[32:40], "little")
    size = int.from_bytes(head[54:56], "little")
    for number in range(int.from_bytes(head[56:58], "little")):
        entry = head[offset + number * size :][:56]
        if int.from_bytes(entry[:4], "little") == 3:
            start = int.from_bytes(entry[8:16], "little")
            return head[start : start + int.from_bytes(entry[32:40], "little")].rstrip(b"\0")
    return b""


def _explain_denied(path: bytes) -> str:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return "is a directory"
    return "not executable" if not mode & 0o111 else "permission denied"
