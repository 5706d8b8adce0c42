"""Values as people read them: sizes, times, tables, colour on a terminal only.

Reads the environment for NO_COLOR (https://no-color.org) and TERM, and nothing else.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

COLOURS = {"green": "32", "red": "31", "yellow": "33", "dim": "2"}


def size(count: int) -> str:
    """ "512 MiB", "1.2 MiB", "17 B": three digits at most, powers of 1024."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 999.5 or unit == "PiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value >= 99.5 or value == int(value) else f"{value:.1f} {unit}"


def span(length: timedelta | float) -> str:
    """A length of time in its two largest units: "41 s", "3.2 s", "2 m 10 s", "5 d 3 h"."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    for unit, amount, part, small in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= amount:
            rest = whole % amount // small
            return f"{whole // amount} {unit} {rest} {part}" if rest else f"{whole // amount} {unit}"
    return f"{whole} s"


def age(then: datetime, now: datetime | None = None) -> str:
    """How long ago, in one unit: "12s", "5m", "3h", "2d"."""
    seconds = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    for unit, amount in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * amount or (unit == "m" and seconds >= amount):
            return f"{seconds // amount}{unit}"
    return f"{seconds}s"


def on_terminal() -> bool:
    """Whether stdout is looked at by somebody."""
    return sys.stdout.isatty()


def paint(text: str, colour: str | None) -> str:
    """The text in a colour, on a terminal whose owner wants colour."""
    if not colour or not on_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, colours: Sequence[str | None] = ()
) -> list[str]:
    """Lines: columns aligned on a terminal, tabs between them elsewhere; `colours` is one for each row."""
    lines = [list(head), *(list(row) for row in rows)]
    if not on_terminal():
        return ["\t".join(line) for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    padded = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    chosen = [None, *colours, *[None] * (len(rows) - len(colours))]
    return [paint(line, colour) for line, colour in zip(padded, chosen, strict=True)]


def short_ids(ids: Sequence[str]) -> list[str]:
    """The beginnings, of one length and at least eight characters, that tell these ids apart."""
    length = 8
    while length < 36 and len({name[:length] for name in ids}) < len(set(ids)):
        length += 1
    return [name[:length].rstrip("-") for name in ids]


def command(argv: Sequence[str]) -> str:
    """A command line that a shell would read as these arguments, on one line."""
    from shlex import join  # noqa: PLC0415

    return plain(join(argv))


def plain(text: str) -> str:
    """On one line, and without what a terminal would obey: control characters as Python writes them."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
