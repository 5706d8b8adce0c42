"""The codec equals the generated classes on everything they get right, and refuses what they let through."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import betterproto
import pytest
from hypothesis import given
from hypothesis import strategies as st

import generated.jobworker.v1 as api
from jobwire import codec, wire
from jobwire.wire import WireError

MESSAGES = [
    kind for kind in vars(api).values() if isinstance(kind, type) and issubclass(kind, betterproto.Message)
]
INTEGERS = {
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "uint64": st.integers(0, 2**64 - 1),
}
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(lambda t: t.replace(tzinfo=UTC))
SPANS = st.timedeltas(timedelta(0), timedelta(days=10000))  # the generated classes err on negative fractions


def scalars(kind: str, cls: Any) -> st.SearchStrategy[Any]:
    if kind in INTEGERS:
        return INTEGERS[kind]
    if kind == "enum":
        return st.sampled_from(list(cls))
    if kind == "message":
        return {datetime: MOMENTS, timedelta: SPANS}[cls] if cls in {datetime, timedelta} else messages(cls)
    return {
        "bool": st.booleans(),
        "double": st.floats(allow_nan=False),
        "string": st.text(),
        "bytes": st.binary(),
    }[kind]


@st.composite
def messages(draw: st.DrawFn, cls: Any) -> Any:
    meta = cls._betterproto
    values: dict[str, Any] = {}
    chosen = {
        group: draw(st.sampled_from(sorted(f.name for f in fs)))
        for group, fs in meta.oneof_field_by_group.items()
    }
    for name, field in meta.meta_by_field_name.items():
        if (field.group and chosen[field.group] != name) or draw(st.booleans()):
            continue
        if field.map_types:  # no empty keys and values: the generated classes drop them
            entry = meta.cls_by_field[name]._betterproto
            kind, held = entry.meta_by_field_name["value"].proto_type, entry.cls_by_field["value"]
            filled = scalars(kind, held).filter(
                lambda value: bool(value if isinstance(value, str) else bytes(value))
            )
            values[name] = draw(st.dictionaries(st.text(min_size=1), filled, max_size=3))
        elif meta.default_gen[name] is list:
            values[name] = draw(st.lists(scalars(field.proto_type, meta.cls_by_field[name]), max_size=3))
        else:
            values[name] = draw(scalars(field.proto_type, meta.cls_by_field[name]))
    return cls(**values)


@given(st.sampled_from(MESSAGES).flatmap(messages))
def test_encodes_to_the_same_bytes_and_decodes_to_the_same_message(message: betterproto.Message) -> None:
    data = bytes(message)
    assert codec.encode(message) == data
    decoded = codec.decode(type(message), data)
    assert decoded == type(message)().parse(data)
    assert codec.encode(decoded) == data


@given(st.sampled_from(MESSAGES), st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(cls: type[betterproto.Message], data: bytes) -> None:
    try:
        message = codec.decode(cls, data)
    except WireError:
        return
    assert codec.decode(cls, codec.encode(message)) == message


@given(st.sampled_from(MESSAGES).flatmap(messages), st.data())
def test_a_message_is_cut_between_fields_or_refused(
    message: betterproto.Message, data: st.DataObject
) -> None:
    whole = bytes(message)
    cut = whole[: data.draw(st.integers(0, max(0, len(whole) - 1)))]
    try:
        decoded = codec.decode(type(message), cut)
    except WireError:
        return
    assert codec.encode(decoded) == cut


@given(st.timedeltas(timedelta(days=-10000), timedelta(days=10000)))
def test_durations_of_both_signs_survive(span: timedelta) -> None:
    message = api.JobSpec(timeout=span)
    assert codec.decode(api.JobSpec, codec.encode(message)).timeout == span


def test_both_parts_of_a_negative_duration_have_its_sign() -> None:
    data = codec.encode(api.JobSpec(timeout=timedelta(seconds=-1.5)))
    ((_, _, duration),) = wire.fields(data)
    assert isinstance(duration, bytes)
    assert [(number, value) for number, _, value in wire.fields(duration)] == [
        (1, 2**64 - 1),
        (2, 2**64 - 500_000_000),
    ]


@pytest.mark.parametrize(
    ("cls", "data", "field"),
    [
        (api.GetJobRequest, wire.field_varint(1, 5), "job_id"),
        (api.StartJobRequest, wire.field_bytes(1, wire.field_varint(1, 7)), "spec.argv"),
        (api.StreamOutputRequest, wire.field_bytes(2, b"x"), "offset"),
        (api.GetJobRequest, b"\x0a\x05\xff", ""),
        (api.GetJobRequest, wire.field_bytes(1, b"\xff"), "job_id"),
        (api.GetJobRequest, b"\x02\x00", ""),
        (api.GetJobRequest, b"\x0b\x0c", ""),
        (api.StopJobRequest, wire.field_varint(2, 2**40), "signal"),
        (api.JobRecord, wire.field_bytes(5, wire.field_varint(1, 2**62)), "created_at"),
        (
            api.StartJobRequest,
            wire.field_bytes(1, wire.field_bytes(3, wire.field_varint(1, 1))),
            "spec.labels.key",
        ),
    ],
)
def test_bytes_that_do_not_fit_the_schema_are_refused_by_name(
    cls: type[betterproto.Message], data: bytes, field: str
) -> None:
    with pytest.raises(WireError) as caught:
        codec.decode(cls, data)
    assert caught.value.field == field


@pytest.mark.parametrize("message", [api.StopJobRequest(signal=2**31), api.Usage(pids=-1)])
def test_a_number_that_does_not_fit_is_not_sent(message: betterproto.Message) -> None:
    with pytest.raises(WireError):
        codec.encode(message)


def test_unknown_fields_are_kept() -> None:
    data = wire.field_bytes(1, b"id") + wire.field_bytes(100, b"from a later version")
    assert codec.encode(codec.decode(api.GetJobRequest, data)) == data


@pytest.mark.parametrize(
    "in_parts", [False, True], ids=["in one message", "in a message that comes in parts"]
)
def test_a_million_unknown_fields_take_seconds(in_parts: bool) -> None:
    """Were each of them to copy those before it, they would take minutes."""
    unknown = wire.field_varint(15, 1)
    part = wire.field_bytes(1, unknown) if in_parts else unknown
    began = time.process_time()
    message: Any = codec.decode(api.StartJobRequest if in_parts else api.GetJobRequest, part * 1_000_000)
    assert time.process_time() - began < 30
    kept = message.spec if in_parts else message
    assert kept._unknown_fields == unknown * 1_000_000


def test_unknown_enum_numbers_are_visible() -> None:
    record = codec.decode(api.JobRecord, wire.field_varint(4, 99))
    assert (int(record.state), record.state.name) == (99, None)


def test_packed_and_unpacked_lists_are_both_read() -> None:
    packed, unpacked = wire.field_bytes(4, b"\1\2"), wire.field_varint(4, 1) + wire.field_varint(4, 2)
    assert codec.decode(api.StreamOutputRequest, packed).streams == [1, 2]
    assert codec.decode(api.StreamOutputRequest, unpacked).streams == [1, 2]


def test_a_message_in_two_parts_is_merged() -> None:
    parts = [api.JobRecord(output=api.OutputInfo(size=7)), api.JobRecord(output=api.OutputInfo(head=3))]
    merged = codec.decode(api.JobRecord, b"".join(map(codec.encode, parts)))
    assert merged.output == api.OutputInfo(size=7, head=3)


def test_of_two_members_of_a_oneof_the_last_counts() -> None:
    data = wire.field_bytes(1, b"") + wire.field_bytes(2, wire.field_varint(1, 5))
    event = codec.decode(api.StreamOutputResponse, data)
    assert betterproto.which_one_of(event, "event") == ("gap", api.Gap(from_=5))


@given(st.integers(0, 2**64 - 1))
def test_varints(number: int) -> None:
    data = wire.varint(number)
    assert wire.read_varint(data + b"more", 0) == (number, len(data))
