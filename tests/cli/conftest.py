"""The command line as a person or a script uses it: real processes, bytes in and out."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.harness import Worker
from tests.harness.worker import CHECKOUT, PATIENCE

Done = subprocess.CompletedProcess[bytes]


class Jobctl:
    """`jobctl` of one client: call it for a whole run, `begin` it to talk with it meanwhile."""

    def __init__(self, environment: dict[str, str], stack: ExitStack) -> None:
        self.environment = environment
        self._stack = stack

    def __call__(self, *arguments: str, **environment: str) -> Done:
        """Runs it to its end."""
        return subprocess.run(
            command(*arguments), cwd=CHECKOUT, env=self.environment | environment, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def text(self, *arguments: str) -> str:
        """What a run that succeeds prints, without the newline at the end."""
        done = self(*arguments)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout.decode().removesuffix("\n")

    def json(self, *arguments: str) -> list[Any]:
        """The objects that a run which succeeds prints, one from each line."""
        return [json.loads(line) for line in self.text("-o", "json", *arguments).splitlines()]

    def begin(
        self, *arguments: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Starts it; it is gone when the test ends."""
        process = subprocess.Popen(
            command(*arguments), cwd=CHECKOUT, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=stdout, stderr=stderr, start_new_session=True,
        )  # fmt: skip
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "jobctl.cli", *arguments]


@pytest.fixture
def as_client(worker: Worker) -> Iterator[Callable[[str], Jobctl]]:
    """The command line of any client."""
    with ExitStack() as stack:
        yield lambda name: Jobctl(worker.environment(name), stack)


@pytest.fixture
def jobctl(as_client: Callable[[str], Jobctl]) -> Jobctl:
    """The command line of alice."""
    return as_client("alice")


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: our end, and the end to give to a process."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def read_until(descriptor: int, text: bytes) -> bytes:
    """What comes until the text is there; the worker's own deadline ends a wait that is in vain."""
    read = b""
    while text not in read:
        data = os.read(descriptor, 65536)
        assert data, f"ended with {read!r}"
        read += data
    return read
