"""WWW-Authenticate, as RFC 9110 allows it and as registries write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.upstream.challenge import Challenge, ChallengeError, bearer, parse_challenges

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull"'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            HUB,
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:library/x:pull",
                    },
                )
            ],
        ),
        # RFC 9110 section 11.6.1, its own example
        (
            'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
            [
                Challenge("basic", {"realm": "simple"}),
                Challenge("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
            ],
        ),
        ('BEARER Realm = "https://a.example/"', [Challenge("bearer", {"realm": "https://a.example/"})]),
        (
            'Bearer scope="a:b:pull,push",realm="r"',
            [Challenge("bearer", {"scope": "a:b:pull,push", "realm": "r"})],
        ),
        ("Negotiate", [Challenge("negotiate")]),
        ("Negotiate, Basic realm=x", [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        (
            "Negotiate YWJj==, Bearer realm=r",
            [Challenge("negotiate", token68="YWJj=="), Challenge("bearer", {"realm": "r"})],
        ),
        (", ,Basic realm=x,, ,", [Challenge("basic", {"realm": "x"})]),
        ('Basic realm="", x="\\\\"', [Challenge("basic", {"realm": "", "x": "\\"})]),
        ("", []),
    ],
)
def test_reads(line: str, expected: list[Challenge]) -> None:
    assert parse_challenges([line]) == expected


@pytest.mark.parametrize(
    "line",
    [
        'Bearer realm="open',
        'Bearer realm="a" service="b"',
        "Bearer realm=a, realm=b",
        "=x",
        "Bearer realm=,x=y",
        'B/r realm="a"',
        "Bearer @",
    ],
)
def test_refuses(line: str) -> None:
    with pytest.raises(ChallengeError):
        parse_challenges([line])


def test_lines_are_one_list_and_bearer_is_found_behind_others() -> None:
    found = parse_challenges(["Basic realm=a, Bearer service=b", HUB])
    assert [one.scheme for one in found] == ["basic", "bearer", "bearer"]
    chosen = bearer(found)
    assert chosen is not None
    assert chosen.parameters["service"] == "registry.docker.io"
    assert bearer(found[:2]) is None


token = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=12)


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.tuples(token, st.dictionaries(token.map(str.lower), values, min_size=1, max_size=3)), max_size=3))
def test_what_is_written_is_read_again(challenges: list[tuple[str, dict[str, str]]]) -> None:
    line = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges([line]) == [Challenge(scheme.lower(), parameters) for scheme, parameters in challenges]


@given(st.text(st.sampled_from('Bearer realm="\\,= \t/x'), max_size=40))
def test_any_text_is_read_or_refused(line: str) -> None:
    try:
        parse_challenges([line])
    except ChallengeError:
        pass
