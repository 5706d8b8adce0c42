"""What people type, as values: sizes, times and their lengths, signals, labels, variables.

Everything raises ValueError with one clause that says what is accepted (of times, MOMENTS does). Pure: the environment that `--env NAME` copies
from, the present and its time zone are handed in.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from signal import Signals
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgtpe]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|[smhdw])?", re.IGNORECASE | re.ASCII)
_CLOCK = r"\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?"
_TODAY = re.compile(_CLOCK, re.ASCII)
_DATE = re.compile(rf"\d{{4}}-\d\d-\d\d([T ]{_CLOCK})?", re.ASCII)
_UNIX = re.compile(r"@(\d{1,11})(?:\.(\d+))?", re.ASCII)
MOMENTS = (
    "a length of time ago (10m, 1d); a date, a time of day or both (12:30, 2026-11-29T12:00:00Z); or @UNIX"
)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def size(text: str) -> int:
    """Bytes: "512M", "1.5GiB", "4096". K, M, G, T, P, E are powers of 1024, as for docker and systemd."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"'{text}' is no size: a number and K, M, G, T, P or E (512M, 1.5G)")
    number, unit = found.groups()
    scale = 1024 ** " kmgtpe".index(unit.lower()) if unit else 1
    value = int(number) * scale if number.isdigit() else round(float(number) * scale)
    if value >> 64:
        raise ValueError(f"'{text}' is more bytes than there can be")
    return value


def seconds(text: str) -> float:
    """A length of time in seconds: "90", "10m", "1h30m", "500ms", "1.5h"; the last unit may be left out for seconds."""
    rest, total = text.strip(), 0.0
    while rest:
        found = _TIME.match(rest)
        if not found or (found[2] is None and rest != text.strip()):
            break
        total += float(found[1]) * _SECONDS[(found[2] or "s").lower()]
        rest = rest[found.end() :].lstrip()
    if rest or not text.strip():
        raise ValueError(f"'{text}' is no length of time: numbers with ms, s, m, h, d or w (90, 10m, 1h30m)")
    return total


def moment(text: str, *, now: datetime, local: Callable[[datetime], datetime]) -> datetime:
    """A time: "10m", "1d" (so long before `now`), "2026-11-29T12:00:00Z", "2026-11-29 12:30", "12:30", "@UNIX".

    Without a zone it is local time, which `local` makes of a naive datetime; without a date it is of today, `now` being in
    local time. What is finer than microseconds is cut off. A bare number is none: docker would take it for @UNIX.
    """
    typed = text.strip().upper()
    try:
        if found := _UNIX.fullmatch(typed):
            micros = int((found[2] or "")[:6].ljust(6, "0"))
            return datetime.fromtimestamp(int(found[1]), UTC) + timedelta(microseconds=micros)
        if _TODAY.fullmatch(typed):
            typed = f"{now:%Y-%m-%d}T{typed}"
        if _DATE.fullmatch(typed):
            named = datetime.fromisoformat(typed)
            return local(named) if named.tzinfo is None else named
        if not typed[-1:].isdigit():
            return now - timedelta(seconds=seconds(typed))
    except (ValueError, OverflowError, OSError):
        pass
    raise ValueError(f"'{text}' is no time")


def cores(text: str) -> float:
    """Processor cores: "1.5", "2"."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1_000_000:
        raise ValueError(f"'{text}' is no number of cores (1.5, 2)")
    return value


def count(text: str) -> int:
    """A whole number above 0."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"'{text}' is no whole number above 0")
    return int(text)


def integer(text: str) -> int:
    """A whole number, below 0 too."""
    if not re.fullmatch(r"[+-]?\d{1,9}", text, re.ASCII):
        raise ValueError(f"'{text}' is no whole number")
    return int(text)


def rates(texts: Iterable[str], read: Callable[[str], int]) -> dict[str, int]:
    """Rates by path: "/data=10M" each."""
    result = {}
    for text in texts:
        path, equals, value = text.rpartition("=")
        if not equals or not path:
            raise ValueError(f"'{text}' is no rate: PATH=RATE (/data=10M)")
        result[path] = read(value)
    return result


def rlimits(texts: Iterable[str]) -> dict[str, tuple[int | None, int | None]]:
    """Resource limits by name: "nofile=1024", "core=0:unlimited"; one value is both the soft and the hard one."""
    result = {}
    for text in texts:
        name, equals, values = text.partition("=")
        soft, colon, hard = values.partition(":")
        if not name or not equals:
            raise ValueError(f"'{text}' is no resource limit: NAME=SOFT or NAME=SOFT:HARD (nofile=1024)")
        first = _amount(soft)
        result[name.lower()] = (first, _amount(hard) if colon else first)
    return result


def _amount(text: str) -> int | None:
    return None if text == "unlimited" else size(text)


def offset(text: str) -> int:
    """A byte's position: a whole number from 0 on."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"'{text}' is no offset: a whole number from 0 on")
    return int(text)


def lines(text: str) -> int:
    """How many lines: a whole number from 0 on."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"'{text}' is no number of lines: a whole number from 0 on")
    return int(text)


def signal(text: str) -> int:
    """A signal's number: "INT", "SIGINT", "int", "2", "RTMIN+1"."""
    name = text.strip().upper().removeprefix("SIG")
    base, plus, extra = name.partition("+")
    if name.isascii() and name.isdigit() and 0 < int(name) < 65:
        return int(name)
    if f"SIG{base}" in Signals.__members__ and (not plus or (extra.isascii() and extra.isdigit())):
        number = int(Signals[f"SIG{base}"]) + (int(extra) if plus else 0)
        if number < 65:
            return number
    raise ValueError(f"'{text}' is no signal: a name or a number (INT, SIGTERM, 9)")


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Labels: "key=value" each; a key alone has the value ""."""
    result = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key:
            raise ValueError(f"'{text}' is no label: KEY=VALUE")
        result[key] = value
    return result


def variables(texts: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Environment: "NAME=value", or "NAME" with the value it has in `environ` (left out where it has none)."""
    result = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise ValueError(f"'{text}' is no variable: NAME=VALUE, or NAME to pass this one on")
        if equals:
            result[name] = value
        elif name in environ:
            result[name] = environ[name]
    return result
