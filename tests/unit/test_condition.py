"""If-None-Match, as RFC 9110 sections 8.8.3 and 13.1.2 have it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.routing.condition import is_known, unless_known
from waypost.routing.decision import Fact, Reply
from waypost.routing.request import Request

DIGEST = "sha256:" + "a" * 64
ETAG = f'"{DIGEST}"'
REPLY = Reply(
    200,
    (("Content-Type", "x/y"), ("Content-Length", "2"), ("Docker-Content-Digest", DIGEST), ("ETag", ETAG), ("Age", "3")),
    b"{}",
    (Fact(kind="manifest-fetch", package="p"),),
)


@pytest.mark.parametrize(
    "lines",
    [[ETAG], [f"W/{ETAG}"], ["*"], [" * "], [f'"other", {ETAG}'], [f'"other",W/{ETAG} , "more"'], ['"other"', ETAG],
     [f', ,"",{ETAG}'], [f'"with,comma",{ETAG}'], [f"{ETAG},garbage"], [f'"\xfc",{ETAG}'], [f"\t{ETAG}\t"]],
)  # fmt: skip
def test_what_names_it(lines: list[str]) -> None:
    assert is_known(lines, ETAG)
    assert is_known(lines, f"W/{ETAG}")


@pytest.mark.parametrize(
    "lines",
    [[""], [","], ['"other"'], [DIGEST], [ETAG.upper()], [f"w/{ETAG}"], [f"W /{ETAG}"], [f"'{DIGEST}'"], [f'"{ETAG}"'],
     [f"garbage,{ETAG}"], [f'"other" {ETAG}'], [f'"other, {ETAG}'], [f"{ETAG}x"], ["**"], ['"*"'], [f'"{DIGEST}'],
     ['"other"', "*"], [f'"a b",{ETAG}'], ["W/*"]],
)  # fmt: skip
def test_what_does_not(lines: list[str]) -> None:
    assert not is_known(lines, ETAG)


OPAQUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters='"\x7f'), max_size=8)
TAG = st.tuples(st.booleans(), OPAQUE)
BLANK = st.text(" \t", max_size=2)


@given(st.lists(st.tuples(TAG, BLANK, BLANK, st.integers(0, 2)), max_size=6), OPAQUE, st.integers(0, 6))
def test_any_list(elements: list[tuple[tuple[bool, str], str, str, int]], wanted: str, cut: int) -> None:
    """Against the grammar read the other way: lists are made of tags whose membership is known."""
    parts = [
        f'{"," * empty}{before}{"W/" if weak else ""}"{opaque}"{after}'
        for (weak, opaque), before, after, empty in elements
    ]
    lines = [",".join(parts[:cut]), ",".join(parts[cut:])]
    assert is_known([line for line in lines if line], f'"{wanted}"') == any(
        opaque == wanted for (_, opaque), *_ in elements
    )


@given(st.text(max_size=200))
def test_anything_at_all_is_read_without_harm(value: str) -> None:
    is_known([value], ETAG)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_it_gets_304_without_content_and_is_not_recorded(method: str) -> None:
    request = Request(method, "d.example", "/v2/x/manifests/1", headers=[("if-none-match", ETAG)])
    assert unless_known(request, REPLY) == Reply(304, (("Docker-Content-Digest", DIGEST), ("ETag", ETAG), ("Age", "3")))


@pytest.mark.parametrize(
    ("method", "headers", "reply"),
    [
        ("GET", [], REPLY),
        ("GET", [("if-none-match", '"other"')], REPLY),
        ("GET", [("if-match", ETAG)], REPLY),
        ("POST", [("if-none-match", ETAG)], REPLY),
        ("GET", [("if-none-match", "*")], Reply(200, (("Content-Type", "x/y"),), b"{}")),
        ("GET", [("if-none-match", "*")], Reply(404, (("ETag", ETAG),))),
    ],
)
def test_everybody_else_gets_the_answer(method: str, headers: list[tuple[str, str]], reply: Reply) -> None:
    assert unless_known(Request(method, "d.example", "/x", headers=headers), reply) is reply
