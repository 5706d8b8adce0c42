"""A job that writes piece by piece, each once the one before is in its log: in which order they arrive is no matter of luck."""

import os
from collections.abc import Sequence
from pathlib import Path

from tests.harness.programs import Argv, sh
from tests.supervisor.peer import wait_until

OUT, ERR = 1, 2
WRITE_WHEN_TOLD = """
    exec 3<>"$1"
    shift
    while [ $# -gt 0 ]; do printf %s "$2" >&"$1"; read go <&3; shift 2; done"""


class Paced:
    """`argv` is the program; somebody has to let it go on."""

    def __init__(self, directory: Path, pieces: Sequence[tuple[int, str]]) -> None:
        """Stream and text of each piece; the directory is one that the job's user can get through."""
        self._pieces = pieces
        self._gate = directory / f"gate-{len(os.listdir(directory))}"
        os.mkfifo(self._gate)
        self._gate.chmod(0o666)
        self.argv: Argv = sh(
            WRITE_WHEN_TOLD, str(self._gate), *(str(word) for piece in pieces for word in piece)
        )

    def let_go_on(self, log: Path) -> None:
        """Returns once everything is in the log, and the job is about to exit."""
        size = 0
        with self._gate.open("w") as gate:
            for _, text in self._pieces:
                size += len(text.encode())
                wait_until(log, lambda content, size=size: len(content) == size)  # type: ignore[misc]
                print(file=gate, flush=True)
        self._gate.unlink()
