"""How far a saving is, on one line of a terminal: bytes, rate, and time left where the end is known.

Drawn when bytes come and at most ten times a second, so that it costs a transfer nothing and needs no timer.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from jobctl.cli import render
from jobctl.cli.failure import note
from jobctl.events import Chunk, Gap

if TYPE_CHECKING:
    from types import TracebackType

    from jobctl.events import Event

BAR = 24  # columns
PAUSE = 0.1  # seconds between two drawings


def on_terminal() -> bool:
    """Whether there is somebody to look at it."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Progress:
    """One saving's line on stderr; `last` is the offset at which the output ends, if that is known."""

    def __init__(self, name: str, *, last: int | None) -> None:
        self._name = name
        self._first: int | None = None
        self._last = last
        self._begun = self._drawn = time.monotonic()
        self._saved = 0

    def seen(self, event: Event) -> None:
        """The event is saved."""
        if isinstance(event, Gap):
            _draw("")  # a note follows
        elif isinstance(event, Chunk):
            if self._first is None:
                self._first = event.offset
            self._saved += len(event.data)
            now = time.monotonic()
            if now - self._drawn >= PAUSE:
                self._drawn = now
                _draw(line(self._name, self._saved, now - self._begun, self._share(event)))

    def _share(self, chunk: Chunk) -> float | None:
        if self._first is None or self._last is None or self._last <= self._first:
            return None
        return min(1.0, (chunk.offset + len(chunk.data) - self._first) / (self._last - self._first))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the line away, and says what was saved when all went well."""
        _draw("")
        if kind is None:
            passed = time.monotonic() - self._begun
            figures = f"{render.size(self._saved)} to {self._name} in {render.span(passed)}"
            note(f"saved {figures}{_rate(self._saved, passed)}")


def line(name: str, saved: int, seconds: float, share: float | None) -> str:
    """ "log.txt [######------] 25%, 256 MiB, 300 MiB/s, 3 s left"; without a share neither bar nor time left."""
    figures = f"{render.size(saved)}{_rate(saved, seconds)}"
    if share is None:
        return f"{name}: {figures}"
    done = int(share * BAR)
    left = f", {render.span(seconds * (1 - share) / share)} left" if share else ""
    return f"{name} [{'#' * done}{'-' * (BAR - done)}] {share:.0%}, {figures}{left}"


def _rate(size: int, seconds: float) -> str:
    return f", {render.size(int(size / seconds))}/s" if seconds > 0 else ""


def _draw(text: str) -> None:
    with suppress(OSError):
        columns = os.get_terminal_size(2).columns or 80
        sys.stderr.write(f"\r\x1b[K{text[: columns - 1]}")
        sys.stderr.flush()
