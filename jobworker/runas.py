"""Whom a job runs as, and in which environment its program starts.

Decides from the caller and the spec: a Unix user that may be named, the one that the client's policy names,
or the client's own uid. A worker that is not root has no choice: the kernel will refuse what it cannot do.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass

from jobworker import unixusers
from jobworker.errors import FailedPrecondition, PermissionDenied
from jobworker.policy import Caller, may_run_as
from jobworker.unixusers import UnixUser

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Identity:
    """A job's user; `change` tells whether the supervisor has to become it."""

    user: UnixUser
    change: bool


class UnknownUserError(Exception):
    """The user is not one of this host; `errno` and text are the start failure's."""

    errno = errno.ENOENT


def choose(caller: Caller, user: str | None, *, worker: UnixUser) -> Identity:
    """Whom the caller's job runs as; PermissionDenied for a user not its own, UnknownUserError for none at all."""
    if user is not None and not may_run_as(caller, user):
        raise PermissionDenied(
            f"client '{caller.client_id}' may not run jobs as user '{user}'",
            hint="leave the user out, or have an admin register the client with --unix-user",
        )
    name = user if user is not None else caller.unix_user
    if name is not None:
        named = unixusers.by_name(name)
        if named is None:
            raise UnknownUserError(f"no user '{name}' on the worker")
        return Identity(named, change=worker.uid == 0 or named.uid != worker.uid)
    if worker.uid != 0:
        return Identity(worker, change=False)
    if caller.uid is None:
        raise FailedPrecondition(
            f"client '{caller.client_id}' has no uid to run jobs as", hint="revoke it and add it again"
        )
    own = UnixUser(caller.client_id, caller.uid, caller.uid, "/bin/sh")
    return Identity(own, change=True)


def environment(env: Mapping[str, str], *, job_id: str, user: UnixUser, scratch: str) -> dict[str, str]:
    """A clean environment, then what the job's own `env` adds or replaces."""
    return {
        "PATH": PATH,
        "HOME": scratch,
        "USER": user.name,
        "LOGNAME": user.name,
        "SHELL": user.shell,
        "LANG": "C.UTF-8",
        "TMPDIR": scratch,
        "JOBWORKER_JOB_ID": job_id,
        **env,
    }
