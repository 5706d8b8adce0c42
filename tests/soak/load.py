"""The jobs of the soak: programs of which every byte and the end are known beforehand, or told by themselves.

Each job has a key, under which it leaves in a directory of ours how often it was started (a byte each time) and, when
it has written as much as it would, how much that was. Needs a shell and coreutils only. What a worker makes of them is
not known here.
"""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jobctl import EndReason

LOUD_LINES = 60_000
PADDING = "." * 60
MISSING = ["/no/such/program"]

_BEGIN = 'printf x >>"$1.starts"; '
_LINES = """
    n=0
    until [ -e "$1.end" ]; do
        m=0; while [ $m -lt 20 ]; do %s n=$((n+1)); m=$((m+1)); done
        sleep 0.004
    done
    echo "$n" >"$1.written"
"""
_BOTH = f'echo "$n {PADDING}"; echo "$n {PADDING}" >&2;'
_STDERR = f'echo "$n {PADDING}" >&2;'

WRITER = _BEGIN + _LINES % _BOTH + 'exit "$2"'
LOUD = _BEGIN + f'seq {LOUD_LINES} & seq {LOUD_LINES} >&2; wait; exit "$2"'
QUICK = _BEGIN + 'echo "$1"; echo "$2" >&2; exit "$2"'
SLEEPER = _BEGIN + "exec sleep 3600"
DIES = _BEGIN + 'echo "$1"; kill -s USR1 $$'
DAEMON = _BEGIN + f'setsid sh -c \'{_LINES % _STDERR}\' sh "$1" & echo "$1"; exit "$2"'
LEAVES = _BEGIN + 'setsid sleep 3600 & echo "$1"; exit "$2"'

Lines = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class End:
    """How a job ended; None is what the worker says is not known, or what there is none of."""

    reason: EndReason
    exit_code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A program, and what is known of it: how it ends, and what it writes to stdout and stderr.

    `told` jobs write until they are told to end. `stopped` and `signalled` ones run until that is done to them;
    `writes` when its main process does, so that it ends by SIGPIPE where nobody takes what it writes.
    """

    name: str
    script: str
    reason: EndReason
    signal: int | None = None
    stdout: str = ""
    stderr: str = ""
    told: bool = False
    writes: bool = False
    wait_for_tree: bool = False
    timeout: float | None = None
    ended_by: int | None = None


EXITED, SIGNALED = EndReason(EndReason.EXITED), EndReason(EndReason.SIGNALED)

STEADY = (
    Kind("writer", WRITER, EXITED, stdout="numbered", stderr="numbered", told=True, writes=True),
    Kind("daemon", DAEMON, EXITED, stdout="key", stderr="numbered", told=True, wait_for_tree=True),
    Kind("sleeper", SLEEPER, EndReason(EndReason.STOPPED), signal=signal.SIGTERM, ended_by=signal.SIGTERM),
    Kind("victim", SLEEPER, SIGNALED, signal=signal.SIGKILL, ended_by=signal.SIGKILL),
)
BRIEF = (
    Kind("quick", QUICK, EXITED, stdout="key", stderr="code", writes=True),
    Kind("loud", LOUD, EXITED, stdout="loud", stderr="loud"),
    Kind("dies", DIES, SIGNALED, signal=signal.SIGUSR1, stdout="key", writes=True),
    Kind("leaves", LEAVES, EXITED, stdout="key", writes=True),
    Kind("timed", SLEEPER, EndReason(EndReason.TIMED_OUT), signal=signal.SIGKILL, timeout=0.4),
    Kind("missing", "", EndReason(EndReason.START_FAILED)),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One job to be started; `base` is where it tells of itself."""

    kind: Kind
    key: str
    code: int
    base: Path

    @property
    def argv(self) -> list[str]:
        """Its command line."""
        if not self.kind.script:
            return MISSING
        return ["/bin/sh", "-c", self.kind.script, "sh", str(self.base), str(self.code)]

    @property
    def end(self) -> End:
        """How it ends, when nothing of it gets lost."""
        return End(self.kind.reason, self.code if self.kind.reason == EXITED else None, self.kind.signal)

    @property
    def starts(self) -> int:
        """How often its program was started."""
        path = self.base.with_suffix(".starts")
        return path.stat().st_size if path.exists() else 0

    def tell_to_end(self) -> None:
        """What it waits for, if it is told."""
        self.base.with_suffix(".end").touch()

    def written(self) -> dict[int, bytes] | None:
        """All that it wrote to each stream; None when it has not told, since it was ended before."""
        path = self.base.with_suffix(".written")
        if self.kind.told and not path.exists():
            return None
        count = int(path.read_text()) if self.kind.told else LOUD_LINES
        return {1: self._stream(self.kind.stdout, count), 2: self._stream(self.kind.stderr, count)}

    def could_have_written(self, stream: int, data: bytes) -> bool:
        """Whether these bytes are the beginning of what it writes to a stream."""
        lines = data.count(b"\n") + 1
        what = self.kind.stdout if stream == 1 else self.kind.stderr
        return self._stream(what, min(lines, LOUD_LINES) if what == "loud" else lines).startswith(data)

    def _stream(self, what: str, lines: int) -> bytes:
        if what == "numbered":
            return "".join(f"{number} {PADDING}\n" for number in range(lines)).encode()
        if what == "loud":
            return "".join(f"{number}\n" for number in range(1, lines + 1)).encode()
        return {"": "", "key": f"{self.base}\n", "code": f"{self.code}\n"}[what].encode()


def steady(choice: random.Random, directory: Path) -> Iterator[Job]:
    """Jobs that run all through the round: two writers, one of each of the others."""
    for number, kind in enumerate((STEADY[0], *STEADY)):
        yield _job(kind, f"steady-{number}-{kind.name}", choice, directory)


def brief(choice: random.Random, directory: Path, *, count: int) -> Iterator[Job]:
    """Jobs that are being started, run and end while things are killed."""
    for number in itertools.count():
        if number == count:
            return
        kind = choice.choice(BRIEF)
        yield _job(kind, f"brief-{number}-{kind.name}", choice, directory)


def _job(kind: Kind, name: str, choice: random.Random, directory: Path) -> Job:
    return Job(kind, f"{directory.name}-{name}", choice.randrange(256), directory / name)
