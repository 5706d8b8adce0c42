"""A real supervisor process, and the other end of its control socket, as plain blocking code with deadlines."""

import contextlib
import functools
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobworker import syscalls
from jobworker.supervisor.protocol import FrameReader, pack
from tests.harness import processes

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds until an event that does not come is a failure
Message = dict[str, Any]


# a program whose child traces it (ptrace(2)), and takes no notice of its end before SIGUSR1
TRACED = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PTRACER, ANYBODY, PTRACE_SEIZE = 0x59616D61, ctypes.c_ulong(-1), 0x4206
libc.prctl(PR_SET_PTRACER, ANYBODY, 0, 0, 0)
reader, writer = os.pipe()
if os.fork() == 0:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    refused = libc.ptrace(PTRACE_SEIZE, os.getppid(), None, None)
    os.write(writer, os.strerror(ctypes.get_errno()).encode() if refused else b"traced")
    signal.sigwait([signal.SIGUSR1])
    os._exit(0)
print(os.getpid(), os.read(reader, 100).decode(), flush=True)
os._exit(3)
"""


def launch_request(job: str, argv: list[str], **fields: object) -> Message:
    """A launch with nothing special but the fields given."""
    return {
        "op": "launch",
        "job": job,
        "argv": argv,
        "env": {"PATH": "/usr/local/bin:/usr/bin:/bin"},
        "workdir": None,
        "scratch": None,
        "uid": None,
        "gid": None,
        "limits": {},
        "timeout_ms": None,
        "wait_for_tree": False,
    } | fields


class Supervisor:
    """One supervisor on a state directory; `ready` is what it said on its ready descriptor."""

    def __init__(
        self,
        state: Path,
        *options: str,
        python: str = sys.executable,
        user: int | None = None,
        wrap: Sequence[str] = (),
        code: Path = CHECKOUT,
    ) -> None:
        """`wrap` is a command that becomes the one that follows it."""
        self.state = state
        state.mkdir(exist_ok=True)
        if user is not None:
            os.chown(state, user, user)
        reader, writer = os.pipe()
        command = [*wrap, python, "-S", "-E", "-s", "-m", "jobworker.supervisor", "--state", str(state)]
        with (state / "supervisor.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--ready-fd", str(writer), *options],
                cwd=code,
                pass_fds=[writer],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        os.close(writer)
        with open(reader, "rb") as file:
            self.ready = file.read().decode()

    @property
    def pid(self) -> int:
        """The supervisor itself; `process` is its keeper."""
        return int((self.state / "supervisor.lock").read_text())

    @property
    def log(self) -> str:
        return (self.state / "supervisor.log").read_text()

    def connect(self) -> "Peer":
        return Peer(self.state)

    def job_directory(self, job: str) -> Path:
        return self.state / "jobs" / job

    def output(self, job: str) -> bytes:
        return (self.job_directory(job) / "output.log").read_bytes()

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def nurse(self) -> int:
        """The process that makes the others: the one child that stays in the supervisor's own session."""
        for _ in range(100_000):
            with contextlib.suppress(ProcessLookupError):
                ours = [pid for pid in self.children() if os.getsid(pid) == self.process.pid]
                if len(ours) == 1:
                    return ours[0]
        raise AssertionError("there is no nurse, or more than one")

    def waiting_child(self, peer: "Peer") -> int:
        """The process made ready for the next launch, some milliseconds after the last: each call is a turn of the loop."""
        for _ in range(10_000):
            with contextlib.suppress(ProcessLookupError):
                waiting = self.waiting_children(peer)
                if len(waiting) == 1:
                    return waiting[0]
        raise AssertionError("no child was made ready")

    def waiting_children(self, peer: "Peer") -> list[int]:
        """Those that are no job: not one that has just ended either. ProcessLookupError when one goes meanwhile."""
        jobs = {listed["pid"] for listed in peer.jobs()}
        children = [pid for pid in self.children() if pid not in jobs and processes.alive(pid)]
        return [pid for pid in children if os.getsid(pid) == pid]

    def descriptors(self, peer: "Peer") -> list[str]:
        """What kind of thing each open descriptor is, sorted, once the child for the next launch was taken in."""
        for _ in range(10_000):
            self.waiting_child(peer)
            with contextlib.suppress(FileNotFoundError):
                names = [os.readlink(entry) for entry in Path(f"/proc/{self.pid}/fd").iterdir()]
                if any("memfd:order" in name for name in names):
                    return sorted(re.sub(r"\d+", "N", name.replace(str(self.state), "")) for name in names)
        raise AssertionError("no child was made ready")

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill_supervisor(self) -> int:
        """Kills the supervisor alone; returns its pid once another one is in its place and serves."""
        killed = self.pid
        os.kill(killed, signal.SIGKILL)
        with self.connect() as peer:
            assert peer.welcome["pid"] not in (killed, self.process.pid)
        return killed

    def kill(self) -> None:
        """Kills both processes, so that nothing is taken over: the supervisor does not see its keeper die."""
        if self.process.poll() is not None:
            return
        pidfd = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        self.process.kill()
        self.process.wait(PATIENCE)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [], PATIENCE)
        os.close(pidfd)


class Peer:
    """One connection: says hello, sends requests, and finds the answers among what comes back."""

    def __init__(self, state: Path, *, hello: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        directory = os.open(state, os.O_RDONLY)
        self.socket.connect(f"/proc/self/fd/{directory}/supervisor.sock")
        os.close(directory)
        self._reader = FrameReader()
        self._received: list[Message] = []
        self._seq = 0
        try:
            self.welcome = self.call({"op": "hello", "protocol": 1}) if hello else {}
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, message: Message) -> int:
        self._seq += 1
        self.socket.sendall(pack(message | {"seq": self._seq}))
        return self._seq

    def call(self, message: Message) -> Message:
        seq = self.send(message)
        return self.receive(lambda received: received.get("seq") == seq)

    def receive(self, wanted: Callable[[Message], bool]) -> Message:
        """The first message that fits, from those received already or yet to come; the others are kept."""
        deadline = time.monotonic() + PATIENCE
        position = 0
        while True:
            while position < len(self._received):
                if wanted(self._received[position]):
                    return self._received.pop(position)
                position += 1
            assert time.monotonic() < deadline, f"no such message, only {self._received[-5:]}"
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError
            self._received += self._reader.feed(data)

    def launch(self, job: str, argv: list[str], **fields: object) -> Message:
        return self.call(launch_request(job, argv, **fields))

    def exited(self, job: str) -> Message:
        return self.receive(lambda received: received.get("event") == "exited" and received["job"] == job)

    def run(self, job: str, argv: list[str], **fields: object) -> Message:
        """Launches and gives back the exit record."""
        launched = self.launch(job, argv, **fields)
        assert launched["op"] == "launched", launched
        return self.exited(job)

    def stop(self, job: str, *, number: int = signal.SIGTERM, grace_ms: int = 10_000) -> Message:
        return self.call({"op": "stop", "job": job, "signal": int(number), "grace_ms": grace_ms})

    def signal(self, job: str, number: int, *, tree: bool) -> Message:
        return self.call({"op": "signal", "job": job, "signal": int(number), "tree": tree})

    def upgrade(self) -> Message:
        return self.call({"op": "upgrade"})

    def jobs(self) -> list[Message]:
        jobs: list[Message] = self.call({"op": "list"})["jobs"]
        return jobs


def wait_until(path: Path, condition: Callable[[bytes], bool]) -> bytes:
    """The content of a growing file as soon as it fits the condition."""
    is_main = threading.current_thread() is threading.main_thread()
    fd = _inotify() if is_main else syscalls.inotify_init()
    watch = syscalls.inotify_add_watch(fd, str(path), syscalls.IN_MODIFY)
    try:
        while not condition(content := path.read_bytes()):
            assert select.select([fd], [], [], PATIENCE)[0], f"{path} stays at {content[-200:]!r}"
            os.read(fd, 65536)
        return content
    finally:
        with contextlib.suppress(OSError):  # the file is gone
            syscalls.inotify_rm_watch(fd, watch)
        if not is_main:
            os.close(fd)


@functools.cache
def _inotify() -> int:
    """One for all waits that come after each other: a user has few, and the kernel takes its time to free one."""
    return syscalls.inotify_init()


def wait_for_output(path: Path, text: bytes) -> None:
    """Returns once a file contains the text."""
    wait_until(path, lambda content: text in content)
