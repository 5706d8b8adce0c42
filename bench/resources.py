"""What do limits cost, how long does a tree take to die, and what do ten thousand jobs leave in the supervisor?

Asks the supervisor itself, over its socket: what the network adds is for the other questions. No peer is measured.
"""

import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.measure import report
from jobworker.supervisor.protocol import FrameReader, pack

PATIENCE = 60.0  # seconds
MIB = 2**20
LIMITS = {
    "cpus": 1.5,
    "cpu_weight": 50,
    "memory_bytes": 512 * MIB,
    "swap_bytes": 0,
    "pids": 100,
    "rlimits": {"nofile": [1024, 1024], "core": [0, 0], "fsize": [2**30, 2**30]},
    "nice": 1,
    "oom_score_adj": 100,
}
SESSIONS = "trap '' TERM; for n in $(seq 50); do setsid sh -c 'echo up; exec sleep 1000' & done; wait"

Message = dict[str, Any]


class Link:
    """A connection to a supervisor, and its process."""

    def __init__(self, state: Path, process: "subprocess.Popen[bytes]") -> None:
        self.state = state
        self.process = process
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(state / "supervisor.sock"))
        self._reader = FrameReader()
        self._received: list[Message] = []
        self._count = 0
        self.welcome = self.ask({"op": "hello", "protocol": 1})

    def send(self, message: Mapping[str, object]) -> int:
        self._count += 1
        self._socket.sendall(pack({**message, "seq": self._count}))
        return self._count

    def ask(self, message: Mapping[str, object]) -> Message:
        seq = self.send(message)
        return self.await_(lambda received: received.get("seq") == seq)

    def await_(self, wanted: Callable[[Message], bool]) -> Message:
        while True:
            for position, message in enumerate(self._received):
                if wanted(message):
                    return self._received.pop(position)
            self._received += self._reader.feed(self._socket.recv(1 << 20))

    def launch(self, argv: Sequence[str], limits: Mapping[str, object]) -> tuple[str, Message]:
        job = f"job-{self._count}"
        request = {
            "op": "launch", "job": job, "argv": argv, "env": {"PATH": os.environ["PATH"]}, "workdir": None,
            "scratch": None, "uid": None, "gid": None, "limits": limits, "timeout_ms": None, "wait_for_tree": False,
        }  # fmt: skip
        reply = self.ask(request)
        if reply["op"] != "launched":
            raise RuntimeError(f"the job was not started: {reply}")
        return job, reply

    def ended(self, job: str) -> Message:
        return self.await_(lambda received: received.get("event") == "exited" and received["job"] == job)

    def memory_kib(self) -> int:
        lines = Path(f"/proc/{self.welcome['pid']}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


@contextmanager
def supervisor() -> Iterator[Link]:
    """A supervisor of our own; ended, with all that is its, with the context."""
    with tempfile.TemporaryDirectory(prefix="jobworker-bench-") as directory:
        reader, writer = os.pipe()
        command = [sys.executable, "-S", "-E", "-s", "-m", "jobworker.supervisor", "--state", directory]
        process = subprocess.Popen(
            [*command, "--ready-fd", str(writer)], pass_fds=[writer], stderr=subprocess.DEVNULL
        )
        os.close(writer)
        with open(reader, "rb") as ready:
            if ready.read() != b"ready\n":
                raise RuntimeError("the supervisor did not start")
        try:
            yield Link(Path(directory), process)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def start_to_exec(link: Link, limits: Mapping[str, object]) -> float:
    """Milliseconds from the request until the program is executed; the next child is ready by then."""
    select.select([], [], [], 0.02)
    begin = time.perf_counter()
    job, _ = link.launch(["/bin/true"], limits)
    elapsed = (time.perf_counter() - begin) * 1e3
    link.ended(job)
    return elapsed


def starts_per_second(link: Link, limits: Mapping[str, object]) -> float:
    """/bin/true from its request to its exit record, 200 one after the other."""
    begin = time.perf_counter()
    for _ in range(200):
        job, _ = link.launch(["/bin/true"], limits)
        link.ended(job)
    return 200 / (time.perf_counter() - begin)


def tree_gone(link: Link) -> float:
    """Milliseconds from a stop without grace until none of 50 sessions is left and the exit record is there."""
    job, _ = link.launch(["sh", "-c", SESSIONS], {})
    log = link.state / "jobs" / job / "output.log"
    while log.stat().st_size < 150:
        select.select([], [], [], 0.005)
    begin = time.perf_counter()
    link.send({"op": "stop", "job": job, "signal": 15, "grace_ms": 0})
    record = link.ended(job)
    assert record["survivors"] == 0
    return (time.perf_counter() - begin) * 1e3


def memory(link: Link, jobs: int) -> tuple[int, int]:
    """KiB resident before and after so many jobs, the first hundred not counted."""
    for number in range(jobs + 100):
        if number == 100:
            before = link.memory_kib()
        job, _ = link.launch(["/bin/true"], {})
        link.ended(job)
    return before, link.memory_kib()


def main() -> None:
    """All of them."""
    with supervisor() as link:
        missing = {entry["limit"] for entry in link.welcome["cgroup"]["unenforced"]}
        kinds = {"no limits": {}, "all limits": {k: v for k, v in LIMITS.items() if k not in missing}}
        starts: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(200):
            for kind, limits in kinds.items():
                starts[kind].append(start_to_exec(link, limits))
        report("Start until exec", "ms", starts)
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(5):
            for kind, limits in kinds.items():
                rates[kind].append(starts_per_second(link, limits))
        report("Jobs one after the other", "per second", rates)
        report("Stop of 50 sessions", "ms", {"until all are gone": [tree_gone(link) for _ in range(20)]})
        before, after = memory(link, 10_000)
        report("Supervisor memory", "KiB", {"before 10,000 jobs": [before], "after": [after]})


if __name__ == "__main__":
    main()
