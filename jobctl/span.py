"""A span of a job's output: where it begins, where it ends, which streams; checked, and encoded for the request.

What says where it begins is asked once: as soon as the first event has told that offset, a follower whose connection
broke goes on by offsets, and asks again only for the rest. Pure: the present is handed in.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from jobctl.errors import InvalidArgument
from jobctl.events import Stream
from jobctl.requests import FOLLOW, timestamp, whole
from jobwire.wire import field_bytes, field_varint

if TYPE_CHECKING:
    from collections.abc import Iterable

Moment = datetime | timedelta  # a time with its zone, or so long ago

_EPOCH = datetime.fromtimestamp(0, UTC)


class Span(NamedTuple):
    """Fields of a StreamOutputRequest, encoded; `beginning` counts until the first event has come."""

    offset: int
    beginning: bytes
    rest: bytes


def span(
    *,
    now_unix_nano: int,
    offset: int = 0,
    follow: bool = True,
    streams: Iterable[Stream] = (),
    tail_lines: int | None = None,
    tail_bytes: int | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    until_offset: int | None = None,
) -> Span:
    """Begins at the latest of all beginnings that are given and ends at the first end; raises InvalidArgument."""
    beginning, end, start = b"", b"", whole(offset, "offset")
    for number, name, count in ((5, "tail_lines", tail_lines), (6, "tail_bytes", tail_bytes)):
        if count is not None:
            beginning += field_varint(number, whole(count, name))
    first = None if since is None else unix_nano(since, "since", now_unix_nano=now_unix_nano)
    if first is not None:
        beginning += field_bytes(7, timestamp(first))
    if until_offset is not None:
        if whole(until_offset, "until_offset") < start:
            raise InvalidArgument("the end is before the beginning", field="until_offset")
        end += field_varint(8, until_offset)
    if until is not None:
        last = unix_nano(until, "until", now_unix_nano=now_unix_nano)
        if first is not None and last < first:
            raise InvalidArgument("the end is before the beginning", field="until")
        end += field_bytes(9, timestamp(last))
    chosen = _streams(streams)
    rest = (FOLLOW if follow else b"") + (field_bytes(4, chosen) if chosen else b"") + end
    return Span(start, beginning, rest)


def unix_nano(moment: Moment, field: str, *, now_unix_nano: int) -> int:
    """A point in time, in nanoseconds since 1970; raises InvalidArgument."""
    if isinstance(moment, timedelta):
        if moment < timedelta(0):
            raise InvalidArgument(f"{moment} is no length of time", field=field)
        return max(0, now_unix_nano - moment // timedelta(microseconds=1) * 1000)
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidArgument(
            f"{moment} is no point in time",
            field=field,
            hint="a datetime with its time zone, datetime.now(UTC) say, or a timedelta: so long ago",
        )
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def _streams(streams: Iterable[Stream]) -> bytes:
    chosen = tuple(streams)
    known = set(Stream)
    for stream in chosen:
        if stream not in known:
            raise InvalidArgument(f"{stream!r} is no stream", field="streams", hint="of jobctl.Stream")
    return bytes(chosen)
