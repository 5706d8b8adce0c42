"""Users of this host, as the system's user database knows them.

Knows nothing of clients and jobs. Names come from outside and may be anything.
"""

from __future__ import annotations

import pwd
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnixUser:
    """One user; `shell` is never empty."""

    name: str
    uid: int
    gid: int
    shell: str


def by_name(name: str) -> UnixUser | None:
    """The user of this name, None when there is none."""
    try:
        return _user(pwd.getpwnam(name))
    except (KeyError, ValueError):  # ValueError: a NUL in the name
        return None


def by_uid(uid: int) -> UnixUser | None:
    """The user of this uid, None when there is none."""
    try:
        return _user(pwd.getpwuid(uid))
    except KeyError:
        return None


def _user(entry: pwd.struct_passwd) -> UnixUser:
    return UnixUser(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_shell or "/bin/sh")
