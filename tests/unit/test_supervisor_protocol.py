"""Frames of the control socket: what one end packs, the other reads, however the bytes are cut."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.supervisor.protocol import MAX_FRAME, FrameError, FrameReader, pack

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
messages = st.lists(st.dictionaries(st.text(max_size=10), values, max_size=5), max_size=5)


@given(messages, st.lists(st.integers(0, 400), max_size=20))
def test_any_cut_of_the_stream_gives_the_same_messages(
    sent: list[dict[str, object]], cuts: list[int]
) -> None:
    stream = b"".join(map(pack, sent))
    reader = FrameReader()
    received: list[dict[str, object]] = []
    edges = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    for start, end in itertools.pairwise(edges):
        received += reader.feed(stream[start:end])
    assert received == sent


def test_a_frame_is_a_little_endian_length_and_json() -> None:
    assert pack({"a": 1}) == b'\x07\x00\x00\x00{"a":1}'


def test_bytes_that_are_no_utf8_survive_as_escaped_surrogates() -> None:
    argument = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert FrameReader().feed(pack({"argv": [argument]})) == [{"argv": [argument]}]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[]", b"3", b'{"a":1} x', b"[" * 100_000],
    ids=["empty", "cut", "not-utf8", "list", "number", "trailing", "deep"],
)
def test_a_body_that_is_no_object_is_an_error(body: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(len(body).to_bytes(4, "little") + body)


def test_a_length_over_the_maximum_is_an_error_before_its_bytes_arrive() -> None:
    with pytest.raises(FrameError, match="16777217 bytes"):
        FrameReader().feed((MAX_FRAME + 1).to_bytes(4, "little"))


def test_a_message_over_the_maximum_is_not_packed() -> None:
    with pytest.raises(FrameError):
        pack({"argv": ["x" * MAX_FRAME]})


def test_a_frame_of_exactly_the_maximum_passes() -> None:
    message = {"a": "x" * (MAX_FRAME - len(json.dumps({"a": ""}, separators=(",", ":"))))}
    assert FrameReader().feed(pack(message)) == [message]
