"""A worker for tests: the real server and its supervisor, on a port the system chose, in a directory of its own.

Starts and ends processes, by id, and says where things are; what a test does with them is the test's business. At the
end it looks whether the worker left a process or a cgroup behind, and fails the test if so.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from tests.harness import processes
from tests.harness.certificates import CLIENTS, Certificates

CHECKOUT = Path(__file__).parents[2]
READY = re.compile(r"serving on (\S+:\d+)")
PATIENCE = 30.0  # seconds; a virtual machine starts a process 30 times slower than the machine it runs on


class Worker:
    """One state directory and the processes that serve it.

    `address` is host:port as given by the last start; `log` the last lines the server printed.
    """

    def __init__(
        self,
        certificates: Certificates,
        *,
        options: Sequence[str] = (),
        like: Path | None = None,
        directory: Path | None = None,
    ) -> None:
        self.certificates = certificates
        self.options = list(options)
        self.log: deque[str] = deque(maxlen=1000)
        self.address = ""
        # Short, so that the path of a unix socket fits, and searchable, so that jobs of other users reach their scratch.
        self.directory = directory or Path(tempfile.mkdtemp(prefix="jw-"))
        self.directory.mkdir(exist_ok=True)
        self.directory.chmod(0o711)
        self.state = self.directory / "state"
        self._server: subprocess.Popen[str] | None = None
        if like is not None:
            copy_records(like, self.state)

    # -- processes

    def start(self) -> None:
        """Start the server and wait until it says that it serves; RuntimeError with its output if it does not."""
        listen = self.address or "127.0.0.1:0"
        command = [*jobworker("serve"), "--state", str(self.state), "--listen", listen, *self.options]
        command += [
            "--cert",
            str(self.certificates.of("server")),
            "--client-ca",
            str(self.certificates.authority),
        ]
        self._server = subprocess.Popen(
            command, cwd=CHECKOUT, env=clean_environment(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        ready: Future[str] = Future()
        threading.Thread(target=self._listen, args=(self._server, ready), daemon=True).start()
        try:
            self.address = ready.result(PATIENCE)
        except Exception:
            self.kill9()
            raise

    def _listen(self, server: subprocess.Popen[str], ready: "Future[str]") -> None:
        """Keep reading what the server prints, so that it never blocks on us; the first line that fits is the news."""
        assert server.stdout is not None
        with server.stdout:
            for line in server.stdout:
                self.log.append(line)
                if not ready.done() and (found := READY.search(line)):
                    ready.set_result(found[1])
        if not ready.done():
            ready.set_exception(RuntimeError("the worker did not start:\n" + "".join(self.log)))

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._server is not None, "the server was never started"
        return self._server.pid

    @property
    def supervisor_pid(self) -> int | None:
        """Process id of the supervisor, if one runs."""
        try:
            pid = int((self.state / "supervisor.lock").read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return None
        return pid if processes.alive(pid) else None

    @property
    def keeper_pid(self) -> int | None:
        """Process id of the supervisor's keeper, if both run."""
        supervisor = self.supervisor_pid
        return None if supervisor is None else processes.keeper(supervisor)

    def kill9(self) -> None:
        """End the server as a crash would; the supervisor and the jobs go on."""
        assert self._server is not None
        self._server.kill()
        self._server.wait(PATIENCE)

    def terminate(self) -> int:
        """Ask the server to end, as an operator would, and return its exit status."""
        assert self._server is not None
        self._server.terminate()
        return self._server.wait(PATIENCE)

    def restart(self) -> None:
        """Kill the server if it runs, and start it again on the same address."""
        if self._server is not None and self._server.poll() is None:
            self.kill9()
        self.start()

    def close(self) -> None:
        """End everything, remove everything, and fail if something was left behind."""
        supervisor, keeper = self.supervisor_pid, self.keeper_pid
        trouble = []
        try:
            if (
                self._server is not None
                and self._server.poll() is None
                and not processes.end(self.pid, seconds=PATIENCE)
            ):
                trouble.append("the server ignored SIGTERM")
            supervisor, keeper = self.supervisor_pid or supervisor, self.keeper_pid or keeper
            if supervisor is not None and not processes.end(supervisor, seconds=PATIENCE):
                trouble.append("the supervisor ignored SIGTERM")
            if keeper is not None and not processes.wait_gone(keeper, seconds=PATIENCE):
                trouble.append("the keeper outlives its supervisor")
            trouble += self._leftovers()
        finally:
            if self._server is not None:
                self._server.wait(PATIENCE)
            shutil.rmtree(self.directory, ignore_errors=True)
            shutil.rmtree(f"/var/tmp/jobworker-{processes.state_hash(self.state)}", ignore_errors=True)
        assert not trouble, "\n".join([*trouble, "the server had printed:", *self.log])

    def _leftovers(self) -> list[str]:
        """What a worker whose processes have ended must not leave: job cgroups, and processes that know its directory."""
        found = [f"cgroup left: {leaf}" for leaf in processes.leaves_of(self.state)]
        for mark in {str(self.directory), f"jobworker-{processes.state_hash(self.state)}"}:
            found += [f"process left: {pid} {command}" for pid, command in processes.mentioning(mark).items()]
        for tree in processes.cgroups_of(self.state):
            with contextlib.suppress(OSError):
                tree.rmdir()
        return found

    # -- what clients need

    def environment(self, client: str) -> dict[str, str]:
        """The environment in which `jobctl` is this client, and reads no configuration of the person at the keyboard."""
        return clean_environment() | {
            "JOBCTL_ADDRESS": self.address,
            "JOBCTL_CA": str(self.certificates.authority),
            "JOBCTL_CERT": str(self.certificates.of(client)),
            "JOBCTL_CONFIG": str(self.directory / "no-such-config.toml"),
        }

    def jobctl(
        self, *arguments: str, client: str = "alice", timeout: float = PATIENCE
    ) -> "subprocess.CompletedProcess[str]":
        """Run the command line to its end; its exit status is the caller's to check."""
        command = [sys.executable, "-m", "jobctl.cli", *arguments]
        return subprocess.run(
            command, cwd=CHECKOUT, env=self.environment(client), text=True, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip

    def job_directory(self, job_id: str) -> Path:
        """Where a job's output and exit record lie."""
        return self.state / "jobs" / job_id


def jobworker(*arguments: str) -> list[str]:
    """The command that runs `jobworker` from this checkout."""
    return [sys.executable, "-m", "jobworker.cli", *arguments]


def clean_environment() -> dict[str, str]:
    """This process' environment without what would steer the commands under test."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("JOBCTL_", "JOBWORKER_"))
    }


def register_everybody(state: Path, certificates: Certificates) -> None:
    """Register the clients that all tests know, as an operator does it."""
    for name, role in CLIENTS.items():
        command = jobworker("client", "add", name, "--cert", str(certificates.of(name)), "--role", role)
        subprocess.run(
            [*command, "--state", str(state)],
            cwd=CHECKOUT,
            env=clean_environment(),
            check=True,
            timeout=PATIENCE,
        )


def copy_records(source: Path, target: Path) -> None:
    """Begin a state directory with the registered clients of another one that nobody serves."""
    target.mkdir(mode=0o711)
    for path in source.glob("jobs.db*"):
        shutil.copy2(path, target)


@contextlib.contextmanager
def running(worker: Worker) -> Iterator[Worker]:
    """Start a worker, and close it whatever happens."""
    try:
        worker.start()
        yield worker
    finally:
        worker.close()
