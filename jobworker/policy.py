"""Who may do what: the table role by verb, and the rules of ownership.

Decides nothing but yes or no, from values it is given. A verb is the name of an RPC method; the one door
that every request passes asks `may`, and `Jobs` asks `may_see` and `may_change` for the job at hand. What
a caller may not see does not exist for it: the difference between "not yours" and "not there" is not told.
"""

from __future__ import annotations

from dataclasses import dataclass

from generated.jobworker.v1 import Role

ADMIN = Role(Role.ADMIN)
OPERATOR = Role(Role.OPERATOR)
VIEWER = Role(Role.VIEWER)

_EVERYBODY = frozenset({ADMIN, OPERATOR, VIEWER})
_WHO_CHANGES = frozenset({ADMIN, OPERATOR})
_ADMINS = frozenset({ADMIN})

VERBS: dict[str, frozenset[Role]] = {
    "StartJob": _WHO_CHANGES,
    "RunJob": _WHO_CHANGES,
    "StopJob": _WHO_CHANGES,
    "SignalJob": _WHO_CHANGES,
    "PauseJob": _WHO_CHANGES,
    "ResumeJob": _WHO_CHANGES,
    "UpdateJob": _WHO_CHANGES,
    "DeleteJob": _WHO_CHANGES,
    "GetJob": _EVERYBODY,
    "ListJobs": _EVERYBODY,
    "WaitJob": _EVERYBODY,
    "StreamOutput": _EVERYBODY,
    "GetWorker": _EVERYBODY,
    "RegisterClient": _ADMINS,
    "ListClients": _ADMINS,
    "RevokeClient": _ADMINS,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes this request: a registered client; `unix_user` or else `uid` is whom its jobs run as."""

    client_id: str
    role: Role
    unix_user: str | None = None
    uid: int | None = None


def may(role: Role, verb: str) -> bool:
    """Whether the role has the verb at all; a verb that is not in the table is nobody's."""
    return role in VERBS.get(verb, frozenset())


def may_see_all(caller: Caller) -> bool:
    """Whether everybody's jobs exist for the caller."""
    return caller.role in (ADMIN, VIEWER)


def may_see(caller: Caller, owner: str) -> bool:
    """Whether a job of `owner` exists for the caller."""
    return caller.client_id == owner or may_see_all(caller)


def may_change(caller: Caller, owner: str) -> bool:
    """Whether the caller may stop, signal, pause, update or delete a job of `owner`."""
    return caller.role == ADMIN or (caller.role == OPERATOR and caller.client_id == owner)


def may_favour(caller: Caller) -> bool:
    """Whether the caller's jobs may be put before other processes of the host, or have more than the worker itself."""
    return caller.role == ADMIN


def may_run_as(caller: Caller, user: str) -> bool:
    """Whether the caller may name this Unix user; an admin may name any, since it could register a client for it."""
    return caller.role == ADMIN or user == caller.unix_user
