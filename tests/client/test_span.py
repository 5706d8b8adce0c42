"""Which part of an output is asked for: encoded as the generated classes would have it, refused when it is none."""

import inspect
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generated.jobworker import v1
from jobctl import InvalidArgument, Stream, requests
from jobctl.output import Cursor
from jobctl.span import Span, span
from jobwire.codec import decode, encode

NOW = 1_700_000_000_000_000_000
COUNTS = st.none() | st.integers(0, 2**64 - 1)
ZONES = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
MOMENTS = st.datetimes(datetime(1970, 1, 3), datetime(9000, 1, 1), timezones=ZONES)


def span_of(**options: Any) -> Span:
    return span(now_unix_nano=NOW, **options)


def asked(cursor: Cursor) -> v1.StreamOutputRequest:
    method, data = cursor.request()
    assert method == "/jobworker.v1.JobService/StreamOutput"
    return decode(v1.StreamOutputRequest, data)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "offset": st.integers(0, 2**63),
        "follow": st.booleans(),
        "streams": st.lists(st.sampled_from(list(Stream)), max_size=2),
        "tail_lines": COUNTS,
        "tail_bytes": COUNTS,
        "until_offset": st.none() | st.integers(2**63, 2**64 - 1),
    },
)


@given(OPTIONS, st.none() | st.lists(MOMENTS, min_size=2, max_size=2).map(sorted))
def test_all_that_can_be_said(options: Any, moments: list[datetime] | None) -> None:
    since, until = moments or (None, None)
    cursor = Cursor("0199", span_of(since=since, until=until, **options))
    fields: Any = {"follow": True} | options | {"since": since, "until": until}
    fields["streams"] = [v1.Stream(one) for one in options.get("streams", ())]
    assert encode(asked(cursor)) == encode(v1.StreamOutputRequest(job_id="0199", **fields))


def test_every_field_of_the_request_can_be_said() -> None:
    said = set(inspect.signature(span).parameters) - {"now_unix_nano"} | {"job_id"}
    assert said == set(v1.StreamOutputRequest.__dataclass_fields__)


def test_so_long_ago() -> None:
    request = asked(Cursor("0199", span_of(since=timedelta(hours=1), until=timedelta(0))))
    assert request.until == datetime.fromtimestamp(NOW // 10**9, UTC)
    assert request.since == datetime.fromtimestamp(NOW // 10**9 - 3600, UTC)
    assert asked(Cursor("0199", span_of(since=timedelta.max))).since == datetime.fromtimestamp(0, UTC)


@given(
    first=st.sampled_from(
        [
            v1.StreamOutputResponse(position=v1.Position(offset=77)),
            v1.StreamOutputResponse(gap=v1.Gap(from_=5, to=77)),
            v1.StreamOutputResponse(chunk=v1.Chunk(stream=v1.Stream(1), offset=70, data=b"seventy")),
        ]
    )
)
def test_once_a_place_is_known_it_is_asked_for_by_offset(first: v1.StreamOutputResponse) -> None:
    """The end and the streams stay; where it began is not counted back again from another present."""
    from jobctl.events import parse  # noqa: PLC0415

    until = datetime(2026, 1, 1, tzinfo=UTC)
    kept: Any = {"follow": True, "until": until, "until_offset": 100, "streams": [v1.Stream(1)]}
    options: Any = kept | {"streams": [Stream.STDOUT]}
    cursor = Cursor("0199", span_of(tail_lines=3, tail_bytes=9, since=timedelta(days=999), **options))
    before = asked(cursor)
    assert asked(cursor) == before
    assert (before.tail_lines, before.tail_bytes, before.offset) == (3, 9, 0)
    event = parse(encode(first))
    assert event is not None
    cursor.advance(event)
    assert asked(cursor) == v1.StreamOutputRequest(job_id="0199", offset=77, **kept)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"offset": -1}, "offset"),
        ({"offset": 1.5}, "offset"),
        ({"offset": 2**64}, "offset"),
        ({"tail_lines": -1}, "tail_lines"),
        ({"tail_bytes": -1}, "tail_bytes"),
        ({"until_offset": -1}, "until_offset"),
        ({"offset": 10, "until_offset": 9}, "until_offset"),
        ({"since": datetime(2026, 1, 1)}, "since"),
        ({"since": timedelta(seconds=-1)}, "since"),
        ({"since": 1_700_000_000}, "since"),
        ({"since": "10m"}, "since"),
        ({"until": datetime(2026, 1, 1)}, "until"),
        ({"since": timedelta(1), "until": timedelta(2)}, "until"),
        ({"streams": "stdout"}, "streams"),
        ({"streams": [0]}, "streams"),
    ],
)
async def test_what_is_nonsense_is_refused_before_anything_is_sent(options: Any, field: str) -> None:
    from jobctl import Client  # noqa: PLC0415

    client = Client("127.0.0.1:1", ca="no-such-file", cert="no-such-file")
    with pytest.raises(InvalidArgument) as raised:
        client.job("0199").output(**options)
    assert raised.value.field == field


def test_the_whole_is_what_a_run_goes_on_with() -> None:
    assert Cursor("0199").request() == (
        requests.JOBS + "StreamOutput",
        requests.job("0199") + requests.FOLLOW,
    )
    assert span_of() == (0, b"", requests.FOLLOW)
