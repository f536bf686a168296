"""Image patterns: a table, and a matcher that expands alternatives one by one as an oracle."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.routing.pattern import MOST_NESTED, Pattern, PatternError


@pytest.mark.parametrize(
    ("pattern", "name", "wildcards"),
    [
        ("acme/*", "acme/web", ("web",)),
        ("acme/*", "acme/", None),
        ("acme/*", "acme", None),
        ("acme/*", "acme/web/x", None),
        ("acme/*", "xacme/web", None),
        ("*", "web", ("web",)),
        ("*/*", "acme/web", ("acme", "web")),
        ("acme/*-*", "acme/a-b-c", ("a-b", "c")),
        ("acme/{web,db}", "acme/db", ()),
        ("acme/{web,db}", "acme/dbx", None),
        ("acme/{web,db-*}", "acme/db-1", ("1",)),
        ("acme/{web,db-*}", "acme/web", ("",)),
        ("acme/{a{b,c},d}e", "acme/ace", ()),
        ("acme/web{,-dev}", "acme/web", ()),
        ("acme/web{,-dev}", "acme/web-dev", ()),
        ("{a,*}b", "ab", ("",)),
        ("{a,*}b", "xb", ("x",)),
        ("acme/a,b", "acme/a,b", ()),
        (r"acme/\*", "acme/*", ()),
        (r"acme/\*", "acme/x", None),
        (r"acme/{a\,b,c}", "acme/a,b", ()),
        (r"acme/\{\}\\", "acme/{}\\", ()),
        ("acme/a.b", "acme/axb", None),
        ("acme/*", "acme/\ud800", None),
    ],
)
def test_match(pattern: str, name: str, wildcards: tuple[str, ...] | None) -> None:
    assert Pattern.parse(pattern).match(name) == wildcards


def test_literal_is_what_every_match_has() -> None:
    assert Pattern.parse("acme/*").literal == 5
    assert Pattern.parse("acme/{web,db-*}").literal == 8
    assert Pattern.parse("acme/{,x}").literal == 5
    assert Pattern.parse(r"\*").literal == 1


@pytest.mark.parametrize(
    ("pattern", "position"),
    [
        ("", 0),
        ("/a", 0),
        ("a/", 0),
        ("a//b", 0),
        ("a{b", 1),
        ("a}b", 1),
        ("a/{b/c,d}", 4),
        ("a\\", 1),
        ("a\\/b", 1),
        ("{" * (MOST_NESTED + 1) + "}" * (MOST_NESTED + 1), MOST_NESTED),
    ],
)
def test_a_pattern_that_cannot_be_read_is_refused(pattern: str, position: int) -> None:
    with pytest.raises(PatternError) as caught:
        Pattern.parse(pattern)
    assert caught.value.position == position


# A pattern as a tree: text, "*", or a list of alternatives, each a list of such.
nodes = st.recursive(
    st.sampled_from(["a", "b", "-", "*"]),
    lambda inner: st.lists(st.lists(inner, max_size=2), min_size=1, max_size=2),
    max_leaves=5,
)
segments = st.lists(st.lists(nodes, min_size=1, max_size=3), min_size=1, max_size=2)


def written(tree: list) -> str:
    return "".join(
        node if isinstance(node, str) else "{" + ",".join(written(branch) for branch in node) + "}" for node in tree
    )


def expansions(tree: list) -> list[str]:
    """All ways to choose an alternative everywhere: patterns with nothing but text and "*"."""
    results = [""]
    for node in tree:
        choices = [node] if isinstance(node, str) else [text for branch in node for text in expansions(branch)]
        results = [before + choice for before in results for choice in choices]
    return results


@cache
def glob(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(glob(pattern[1:], text[size:]) for size in range(1, len(text) + 1) if "/" not in text[:size])
    return text[:1] == pattern[0] and glob(pattern[1:], text[1:])


@settings(max_examples=400, deadline=None)
@given(segments, st.lists(st.text("ab-", max_size=4), min_size=1, max_size=3).map("/".join))
def test_match_agrees_with_trying_every_alternative(trees: list, name: str) -> None:
    pattern = Pattern.parse("/".join(map(written, trees)))
    texts = [""]
    for number, tree in enumerate(trees):
        texts = [before + "/" * bool(number) + text for before in texts for text in expansions(tree)]
    assert (pattern.match(name) is not None) == any(glob(text, name) for text in texts)
    assert pattern.literal == min(len(text.replace("*", "")) for text in texts)
