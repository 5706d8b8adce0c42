"""The kinds of values that settings have, and how each is written as text: addresses, ranges, sizes, lengths of time.

Everything that reads raises ValueError with one clause that says what is accepted. Pure; which setting is of
which kind is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

DEFAULT_PORT = 9090
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
AGES = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
MAX_SIZE = 2**53 - 1  # what the supervisor's protocol holds exactly
MAX_AGE = 999_999  # of any unit
HIGHEST_UID = 2**32 - 2  # the one above means "leave unchanged" to setresuid

T = TypeVar("T")

_SIZE = re.compile(r"(\d{1,18})\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_AGE = re.compile(r"(\d{1,18})\s*([smhd]?)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UidRange:
    """Uids given to clients, both ends included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __contains__(self, uid: int) -> bool:
        return self.first <= uid <= self.last


def parse_address(text: str) -> Address:
    """HOST:PORT, [IPV6]:PORT, HOST or :PORT; ValueError says what is wrong."""
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"'{port}' is not a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address is written in brackets, [::1]:9090")
    return Address(host or "0.0.0.0", int(port))  # noqa: S104 - ":9090" says so


def parse_uid_range(text: str) -> UidRange:
    """FIRST-LAST; ValueError says what is wrong."""
    first, separator, last = text.partition("-")
    if not separator or not first.strip().isdecimal() or not last.strip().isdecimal():
        raise ValueError("give two numbers, 61184-65519")
    uids = UidRange(int(first), int(last))
    if not 0 < uids.first <= uids.last <= HIGHEST_UID:
        raise ValueError("the first must be above 0 and not above the last")
    return uids


def parse_seconds(text: str) -> float:
    """Seconds, not negative and finite; ValueError says what is wrong."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError("give seconds, 0 or more")
    return seconds


def parse_size(text: str) -> int:
    """Bytes, at least 1, K, M, G and T being powers of 1024; ValueError says what is wrong."""
    found = _SIZE.fullmatch(text.strip())
    size = int(found[1]) * UNITS[found[2].upper()] if found else 0
    if not 0 < size <= MAX_SIZE:
        raise ValueError("give bytes, 1 or more; 512M and 4G are short for that")
    return size


def parse_age(text: str) -> timedelta:
    """A length of time above 0: "90s", "12h", "30d"; seconds when it has no unit. ValueError says what is wrong."""
    found = _AGE.fullmatch(text.strip())
    if not found or not int(found[1]) or int(found[1]) > MAX_AGE:
        raise ValueError("give a length of time: 90s, 15m, 12h, 30d")
    return int(found[1]) * AGES[found[2].lower() or "s"]


def parse_flag(text: str) -> bool:
    """yes or no, or true or false; ValueError says what is wrong."""
    answer = {"yes": True, "true": True, "no": False, "false": False}.get(text.strip().lower())
    if answer is None:
        raise ValueError("give yes or no")
    return answer


def write_flag(value: bool) -> str:
    """As `parse_flag` reads it."""
    return "yes" if value else "no"


def parse_count(text: str) -> int:
    """A whole number above 0; ValueError says what is wrong."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError("give a whole number, 1 or more")
    return int(text)


def or_none(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """For what can be switched off: "none" and "0" say so."""

    def parse_or_none(text: str) -> T | None:
        if text.strip().lower() in {"none", "0"}:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"{error}; or none") from None

    return parse_or_none


def write_size(size: int) -> str:
    """As `parse_size` reads it, in the largest unit that leaves a whole number."""
    unit = next(unit for unit in reversed(UNITS) if size % UNITS[unit] == 0)
    return f"{size // UNITS[unit]}{unit}"


def write_age(age: timedelta) -> str:
    """As `parse_age` reads it, in the largest unit that leaves a whole number."""
    unit = next((unit for unit in reversed(AGES) if not age % AGES[unit]), "s")
    return f"{age // AGES[unit]}{unit}"


def parse_path(text: str) -> Path:
    """A path, not empty."""
    if not text or "\0" in text:
        raise ValueError("give a path")
    return Path(text)


def parse_text(text: str) -> str:
    """Any text, not empty."""
    if not text:
        raise ValueError("give a value")
    return text
