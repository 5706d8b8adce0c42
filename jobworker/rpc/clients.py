"""ClientService: the registry of public keys, for admins.

Decides that a revocation ends the client's open calls. The registry itself decides about names, keys and uids.
"""

from __future__ import annotations

import time

from cryptography import x509

from generated.jobworker import v1
from jobworker.errors import InvalidArgument
from jobworker.identity import Identity, key_sha256, parse_certificate
from jobworker.rpc.calls import Call, OpenCalls
from jobworker.store import ClientStore


class ClientVerbs:
    """What the door calls for ClientService."""

    def __init__(self, clients: ClientStore, *, calls: OpenCalls, identity: Identity) -> None:
        self._clients = clients
        self._calls = calls
        self._identity = identity

    async def register_client(
        self, call: Call, request: v1.RegisterClientRequest
    ) -> v1.RegisterClientResponse:
        call.subject = request.client_id
        record = self._clients.add(
            request.client_id,
            role=request.role,
            key_sha256=key_sha256(_certificate(request.certificate)),
            unix_user=request.unix_user,
            unix_nano=time.time_ns(),
        )
        return v1.RegisterClientResponse(client=record)

    async def list_clients(self, call: Call, request: v1.ListClientsRequest) -> v1.ListClientsResponse:
        return v1.ListClientsResponse(clients=self._clients.list())

    async def revoke_client(self, call: Call, request: v1.RevokeClientRequest) -> v1.RevokeClientResponse:
        call.subject = request.client_id
        record = self._clients.revoke(request.client_id, unix_nano=time.time_ns())
        self._calls.recheck(self._identity, but=call)
        return v1.RevokeClientResponse(client=record)


def _certificate(data: bytes) -> x509.Certificate:
    try:
        return parse_certificate(data)
    except ValueError as error:
        raise InvalidArgument(
            "certificate cannot be read", field="certificate", hint="send one X.509 certificate, DER or PEM"
        ) from error
