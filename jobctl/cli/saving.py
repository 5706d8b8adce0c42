"""A file that has its name only once it is whole: written as FILE.part beside it, then renamed.

What is no regular file (a pipe, /dev/null) is written as it is. A part that cannot be finished stays, and is told:
it may be hours of somebody's output. The next attempt begins it anew; two at a time are refused.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TextIO

from jobctl.cli.failure import cannot_write, note
from jobctl.errors import JobctlError

if TYPE_CHECKING:
    from types import TracebackType


class Saving:
    """Use it as `with Saving(path) as saving`; raises JobctlError when the file cannot be written."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._path = path
        self.descriptor = -1
        self._part = ""

    @property
    def part(self) -> str:
        """Where it is written."""
        return self._part or self.name

    def text(self) -> TextIO:
        """The file, for lines of text."""
        return os.fdopen(self.descriptor, "w", encoding="utf-8", closefd=False)

    def __enter__(self) -> Self:
        try:
            self._open()
        except OSError as error:
            self._close()
            raise cannot_write(self.part, error) from error
        return self

    def _open(self) -> None:
        before = None
        with suppress(FileNotFoundError):
            before = os.stat(self.name)
        if before is not None and not stat.S_ISREG(before.st_mode):
            self.descriptor = os.open(self.name, os.O_WRONLY)
            return
        self._path = os.path.realpath(self.name)  # what a link leads to is replaced, not the link
        self._part = self._path + ".part"
        self.descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        if not self._is_ours():
            part, self._part = self._part, ""
            self._close()
            raise JobctlError(f"{part} is being written by another jobctl", hint="save to another file")
        os.ftruncate(self.descriptor, 0)
        if before is not None:
            os.fchmod(self.descriptor, stat.S_IMODE(before.st_mode))

    def _is_ours(self) -> bool:
        """Locks it; False when another has it, or has just given it its name: then it is whole, and not to be touched."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self.descriptor), os.stat(self._part))
        except (BlockingIOError, FileNotFoundError):
            return False

    def keep(self) -> None:
        """It is whole: gives it its name."""
        if self._part:
            try:
                os.rename(self._part, self._path)
            except OSError as error:
                raise cannot_write(self.name, error) from error
            self._part = ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._part:
            if os.fstat(self.descriptor).st_size:
                note(f"what has come so far is in {self._part}")
            else:
                os.unlink(self._part)
        self._close()

    def _close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
