"""`jobctl client list | add | revoke`: who may use the worker. For admins."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from jobctl import types
from jobctl.cli import render
from jobctl.cli.describe import client_facts, word
from jobctl.cli.session import DEFAULT, Session, read, show
from jobctl.errors import ConfigError

HEAD = ("CLIENT", "ROLE", "RUNS AS", "REGISTERED", "REVOKED")


async def list_client(*, session: Session = DEFAULT) -> int:
    """List the registered clients."""
    async with session.client() as client:
        records = await client.list_clients()
    if session.as_json:
        for record in records:
            session.emit(client_facts(record))
        return 0
    for line in render.table(HEAD, [_row(record) for record in records]):
        show(line)
    return 0


async def add_client(
    name: str,
    /,
    *,
    certificate: Annotated[str, Parameter(name="--certificate")],
    role: str = "operator",
    unix_user: str | None = None,
    session: Session = DEFAULT,
) -> int:
    """Register a client by its certificate.

    Parameters
    ----------
    name
        What it is called on this worker.
    certificate
        File with its certificate, PEM or DER; only the public key counts.
    role
        admin (everything), operator (its own jobs) or viewer (reads all, changes nothing).
    unix_user
        The Unix user its jobs run as; a user id of its own when absent.
    """
    number = read("--role", _role, role)
    try:
        with open(certificate, "rb") as file:  # noqa: ASYNC230 - a small file, before there is anything to hold up
            data = file.read(1 << 20)
    except OSError as error:
        raise ConfigError(f"cannot read {certificate}: {(error.strerror or str(error)).lower()}") from error
    async with session.client() as client:
        record = await client.register_client(
            name, certificate=public_part(data), role=number, unix_user=unix_user
        )
    _told(session, record)
    return 0


async def revoke_client(name: str, /, *, session: Session = DEFAULT) -> int:
    """Turn a client away from now on; its jobs run on.

    Parameters
    ----------
    name
        What it is called on this worker.
    """
    async with session.client() as client:
        record = await client.revoke_client(name)
    _told(session, record)
    return 0


def public_part(pem: bytes) -> bytes:
    """The first certificate of a PEM file, so that a key beside it never leaves this machine; DER as it is."""
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    start = pem.find(begin)
    stop = pem.find(end, start)
    return pem[start : stop + len(end)] + b"\n" if start >= 0 and stop >= 0 else pem


def _told(session: Session, record: types.ClientRecord) -> None:
    if session.as_json:
        session.emit(client_facts(record))


def _role(text: str) -> types.Role:
    known = [role for role in types.Role if role]
    for role in known:
        if (role.name or "").lower() == text.lower():
            return types.Role(role)
    raise ValueError(f"'{text}' is no role: {', '.join((role.name or '').lower() for role in known)}")


def _row(record: types.ClientRecord) -> tuple[str, ...]:
    runs_as = record.unix_user or ("" if record.uid is None else f"uid {record.uid}")
    revoked = "" if record.revoked_at is None else render.age(record.revoked_at)
    return record.client_id, word(record.role), runs_as, render.age(record.registered_at), revoked
