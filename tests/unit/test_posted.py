from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.artifacts.posted import LARGEST, flatten, objects


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b'{"x": 1}', [{"x": 1}]),
        (b'{"x": 1}\n {"y": 2}{"z": 3}', [{"x": 1}, {"y": 2}, {"z": 3}]),
        (b'1 "a" [2] {"x": 1} null', [{"x": 1}]),
        (b'{"x": 1}{"y": ', [{"x": 1}]),
        (b"\xff\xfe", []),
        (b"[" * 60_000, []),
    ],
)
def test_objects_follow_one_another(body, expected):
    assert objects(body, 1000) == expected


def test_at_most_so_many_objects():
    assert len(objects(b"{}" * 20, limit=10)) == 10


def test_flattening():
    assert flatten({"a": {"b": {"c": "x"}}, "d": 1, "e": None, "f": True, "g": [1, {"h": 2}]}) == {
        "a.b.c": "x",
        "d": "1",
        "e": "null",
        "f": "true",
        "g": '[1, {"h": 2}]',
    }


@pytest.mark.parametrize("depth", [10, 500, 900, 950, 980, 1000, 5000])
def test_depth_harms_nobody(depth):
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        body = b'{"x":' + opening * depth + b"1" + closing * depth + b"}"
        for found in objects(body, 10):
            msgspec.json.encode(flatten(found))


def test_a_small_body_does_not_grow():
    nested = {"k" * 30_000: {str(number): number for number in range(5000)}}
    flat = flatten(nested)
    assert flat
    assert sum(len(key) + len(value) for key, value in flat.items()) <= LARGEST


def test_lone_surrogates_can_be_encoded_later():
    (found,) = objects(rb'{"\ud800": "\udfff", "a": {"b": ["\ud800"]}, "pair": "\ud83d\ude00"}', 10)
    flat = flatten(found)
    assert flat == {"?": "?", "a.b": '["?"]', "pair": "\N{GRINNING FACE}"}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(flat)) == flat


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=4))
def test_what_was_written_is_read(values):
    body = b" \n".join(json.dumps(value).encode() for value in values)
    found = objects(body, 10)
    assert json.dumps(found) == json.dumps(values)  # as text, since NaN is not itself
    for value in found:
        msgspec.msgpack.encode(flatten(value))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read(body):
    for value in objects(body, 10):
        msgspec.msgpack.encode(flatten(value))
