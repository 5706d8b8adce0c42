"""`jobworker client …`: the registry of clients, on the state directory itself.

Needs no server and disturbs none: a running one is told, and sees the change with its next request.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from cryptography import x509
from cyclopts import Parameter

from generated.jobworker.v1 import ClientRecord, Role
from jobworker import doorbell, statedir
from jobworker.cli.place import Config, State, pick
from jobworker.errors import InvalidArgument
from jobworker.identity import key_sha256, parse_certificate
from jobworker.store import ClientStore, Database

RoleName = Literal["admin", "operator", "viewer"]
Format = Annotated[Literal["text", "json"], Parameter(name=("--format", "-o"), help="text, or json.")]
LARGEST_CERTIFICATE = 1024 * 1024


def add(
    name: Annotated[str, Parameter(help="The client's name, unique on this worker.")],
    /,
    *,
    cert: Annotated[str, Parameter(help="Its certificate, PEM (its key may be in the same file) or DER.")],
    role: Annotated[
        RoleName, Parameter(help="admin, operator (own jobs), or viewer (reads all).")
    ] = "operator",
    unix_user: Annotated[
        str | None, Parameter(help="The user its jobs run as; a uid of its own when not given.")
    ] = None,
    uid_range: Annotated[str | None, Parameter(help="Where that uid is taken from, FIRST-LAST.")] = None,
    state: State = None,
    config: Config = None,
) -> int:
    """Registers a client."""
    key = key_sha256(_read_certificate(Path(cert)))
    with _clients(state, config, uid_range=uid_range) as clients:
        record = clients.add(
            name,
            role=Role.from_string(role.upper()),
            key_sha256=key,
            unix_user=unix_user,
            unix_nano=time.time_ns(),
        )
    sys.stderr.write(
        f"client '{record.client_id}' is registered as {role}, its jobs run as {_runs_as(record)}\n"
    )
    return 0


def list_all(*, form: Format = "text", state: State = None, config: Config = None) -> int:
    """Lists all clients, by name."""
    with _clients(state, config) as clients:
        rows = [_describe(record) for record in clients.list()]
    if form == "json":
        sys.stdout.writelines(json.dumps(row) + "\n" for row in rows)
        return 0
    table = [["NAME", "ROLE", "RUNS AS", "REGISTERED", "REVOKED", "KEY"]]
    table += [[str(value) if value else "-" for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    return 0


def revoke(
    name: Annotated[str, Parameter(help="The client's name.")],
    /,
    *,
    state: State = None,
    config: Config = None,
) -> int:
    """Turns a client away from now on, its open streams included."""
    with _clients(state, config) as clients:
        clients.revoke(name, unix_nano=time.time_ns())
    sys.stderr.write(f"client '{name}' is revoked\n")
    return 0


@contextmanager
def _clients(state: str | None, config: str | None, *, uid_range: str | None = None) -> Iterator[ClientStore]:
    """The registry; a running server is told afterwards."""
    uids = pick("uid_range", uid_range, config=config)
    directory = statedir.make(pick("state", state, config=config))
    database = Database.open(directory)
    try:
        yield ClientStore(database, uid_range=uids)
    finally:
        database.close()
    doorbell.ring(directory)


def _read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of the file, which is the client's own where others follow."""
    try:
        with path.open("rb") as file:
            return parse_certificate(file.read(LARGEST_CERTIFICATE))
    except OSError as error:
        raise InvalidArgument(
            f"cannot read certificate '{path}': {(error.strerror or str(error)).lower()}", field="cert"
        ) from error
    except ValueError as error:
        raise InvalidArgument(
            f"no certificate is in '{path}'", field="cert", hint="give an X.509 certificate, PEM or DER"
        ) from error


def _describe(record: ClientRecord) -> dict[str, str | None]:
    revoked = record.revoked_at
    return {
        "client_id": record.client_id,
        "role": str(record.role.name).lower(),
        "runs_as": _runs_as(record),
        "registered_at": record.registered_at.isoformat(timespec="seconds"),
        "revoked_at": None if revoked is None else revoked.isoformat(timespec="seconds"),
        "public_key": f"sha256:{record.public_key_sha256.hex()}",
    }


def _runs_as(record: ClientRecord) -> str:
    """As whom its jobs run under a worker of the user who asks, to whom the state directory belongs."""
    if record.unix_user is not None:
        return f"user {record.unix_user}"
    return f"uid {record.uid}" if os.geteuid() == 0 else "the worker's own user"
