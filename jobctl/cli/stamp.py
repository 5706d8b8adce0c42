"""Lines with the time they were taken, for `logs -t`: whole lines only, so that two streams on one terminal stay apart.

A line that comes in several chunks has the time of its first byte. What is not yet a line is held until it is one, or the
output ends or has a gap: then it is given a newline. A line longer than LONGEST is passed on in pieces, in which lines
of the other stream may come between.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jobctl.cli.runloop import Plain
from jobctl.events import Chunk, End, Gap, Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobctl.cli.sink import Sink
    from jobctl.events import Event

LONGEST = 64 << 10  # bytes of an unfinished line that are held


class Stamps:
    """One stream, chunk by chunk."""

    def __init__(self) -> None:
        self._held = b""  # the beginning of a line, with its time
        self._within = False  # whether a line goes on whose beginning was passed on already

    def lines(self, data: bytes, time_unix_nano: int) -> bytes:
        """What can be shown now that this has come."""
        prefix = stamp(time_unix_nano)
        *whole, rest = data.split(b"\n")
        out = b""
        if whole:
            first = self._held if self._held or self._within else prefix
            out = first + (b"\n" + prefix).join(whole) + b"\n"
            self._held, self._within = prefix if rest else b"", False
        elif rest and not self._held and not self._within:
            self._held = prefix
        self._held += rest
        if len(self._held) > LONGEST:
            out, self._held, self._within = out + self._held, b"", True
        return out

    def rest(self) -> bytes:
        """What is held, ended by a newline; the next byte begins a line."""
        out = self._held + b"\n" if self._held or self._within else b""
        self._held, self._within = b"", False
        return out


def stamp(time_unix_nano: int) -> bytes:
    """RFC 3339 in UTC with microseconds, and a space: what `--since` takes, to the last digit that is told."""
    seconds, nanos = divmod(time_unix_nano, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanos // 1000:06d}Z ".encode()


class Stamped(Plain):
    """Each line with its time; a gap is a note between lines."""

    def __init__(self, sinks: Mapping[Stream, Sink] | None = None, *, verbose: bool = False) -> None:
        super().__init__(sinks, verbose=verbose)
        self._stamps = {stream: Stamps() for stream in Stream}

    async def show(self, event: Event) -> None:
        """As Plain does, line by line."""
        if isinstance(event, Chunk):
            await self.put(event.stream, self._stamps[event.stream].lines(event.data, event.time_unix_nano))
            return
        if isinstance(event, (Gap, End)):
            await self.finish()
        await super().show(event)

    async def finish(self) -> None:
        """Shows what is held."""
        for stream, stamps in self._stamps.items():
            await self.put(stream, stamps.rest())
