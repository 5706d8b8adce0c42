"""What an error carries beside its status, in the form every gRPC library reads.

The trailer grpc-status-details-bin holds a google.rpc.Status {code = 1, message = 2, repeated Any details = 3};
ours has one detail, an ErrorDetail. Whatever else a peer sends there is ignored.

Source: https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto
"""

from typing import Any

from grpclib.const import Status
from grpclib.encoding.base import StatusDetailsCodecBase

from jobwire.wire import BYTES, WireError, field_bytes, field_varint, fields

TYPE_URL = "type.googleapis.com/jobworker.v1.ErrorDetail"


class DetailsCodec(StatusDetailsCodecBase):
    """grpclib's border for status details: ErrorDetail as its encoded bytes, both ways.

    It takes and gives bytes, so that a client imports the generated classes only once an error is there.
    """

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        detail = field_bytes(1, TYPE_URL.encode()) + field_bytes(2, details)
        return (
            field_varint(1, status.value) + field_bytes(2, (message or "").encode()) + field_bytes(3, detail)
        )

    def decode(self, status: Status, message: str | None, data: bytes) -> bytes | None:
        """The ErrorDetail's bytes, or None when there is none that can be read."""
        try:
            for number, _, value in fields(data):
                if number == 3 and isinstance(value, bytes):
                    any_fields = {key: part for key, wire, part in fields(value) if wire == BYTES}
                    if any_fields.get(1) == TYPE_URL.encode():
                        return bytes(any_fields.get(2, b""))
        except WireError:
            pass
        return None
