"""What a job's first process does between clone and exec, and how it says what went wrong.

Decides the order of the steps and the words for their failures. It runs in a copy of the supervisor, so it
only makes system calls: no locks, no loop, no cleaning up. Success is silent, since exec closes the status pipe;
a failure is written there as three lines (stage, errno, detail), and the process ends.
"""

from __future__ import annotations

import errno
import os
import resource
import stat

from jobworker import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.requests import LaunchSpec

_DETAIL_LENGTH = 2000  # characters; with the rest it stays below PIPE_BUF
_HEAD_LENGTH = 4096  # bytes of a program looked at to see what it needs


class Descriptors:
    """What the child is given: ways into its cgroups, its three standard streams, the status pipe."""

    __slots__ = ("joins", "status", "stderr", "stdin", "stdout")

    def __init__(self, joins: list[int], *, stdin: int, stdout: int, stderr: int, status: int) -> None:
        self.joins = joins
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.status = status


def run(spec: LaunchSpec, fds: Descriptors, *, ignored: list[int], nofile: tuple[int, int] | None) -> None:
    """Becomes the job's program, or reports why not and exits; never returns.

    `ignored` are the signals that the supervisor ignores, `nofile` the limit it was started with if it raised it.
    """
    stage = "cgroup"
    try:
        for fd in fds.joins:
            os.write(fd, b"0")
        stage = "setup"
        os.setsid()
        os.dup2(fds.stdin, 0)
        os.dup2(fds.stdout, 1)
        os.dup2(fds.stderr, 2)
        if nofile is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, nofile)
        stage = "user"
        if spec.uid is not None and spec.gid is not None:
            os.setgroups(())
            os.setresgid(spec.gid, spec.gid, spec.gid)
            os.setresuid(spec.uid, spec.uid, spec.uid)
        stage = "workdir"
        os.chdir(spec.workdir)
        stage = "setup"
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        for number in ignored:
            syscalls.reset_signal(number)
        syscalls.set_signal_mask([])
        stage = "exec"
        _execute(spec.argv, spec.env)
    except BaseException as error:  # nothing may unwind into the copy of the supervisor's loop
        _report(fds.status, stage, error, spec)
    finally:
        os._exit(127)


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


def _report(status_fd: int, stage: str, error: BaseException, spec: LaunchSpec) -> None:
    number = error.errno or 0 if isinstance(error, OSError) else 0
    try:
        detail = _explain(stage, error, spec)
    except Exception:  # the errno still tells
        detail = os.strerror(number).lower()
    text = f"{stage}\n{number}\n{detail[:_DETAIL_LENGTH]}"
    os.write(status_fd, text.encode("utf-8", "replace"))


def _explain(stage: str, error: BaseException, spec: LaunchSpec) -> str:
    if not isinstance(error, OSError):
        return f"internal error: {error!r}"
    reason = os.strerror(error.errno or 0).lower()
    if stage == "exec":
        return _explain_exec(error, spec, reason)
    if stage == "cgroup":
        return f"cannot enter its cgroup: {reason}"
    if stage == "user":
        return f"cannot become user {spec.uid}, group {spec.gid}: {reason}"
    if stage == "workdir":
        return f"working directory '{os.fsdecode(spec.workdir)}': {reason}"
    return reason


def _explain_exec(error: OSError, spec: LaunchSpec, reason: str) -> str:
    program = spec.argv[0]
    path = error.filename or (program if b"/" in program else None)
    if path is None:
        return f"not found in PATH={os.fsdecode(spec.env.get(b'PATH', b''))}"
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
