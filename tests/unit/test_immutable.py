"""What a server of tarballs says of lock files, in our own name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.artifacts.file import FileRoute, FileSite
from waypost.artifacts.immutable import Way
from waypost.artifacts.kind import HostPolicy
from waypost.routing.decision import Fetch, Relay, UpstreamHead
from waypost.routing.request import Request

BASE = "https://get.acme.example"
TO = "https://git.example/acme/skates/archive/{rev}.tar.gz"
REV = "442793d9ec0584f6a6e82fa253850c8085bb150a"
LOCKED = f"https://git.example/acme/skates/archive/{REV}.tar.gz?rev={REV}"


def back(url: str, path: str = "/skates/{rev}.tar.gz", to: str = TO) -> str | None:
    return Way(BASE, path, to).back(url)


def test_a_route_is_followed_back() -> None:
    assert back(LOCKED) == f"{BASE}/skates/{REV}.tar.gz?rev={REV}"
    assert back(LOCKED, "/{+x}", "https://git.example/{+x}") == f"{BASE}/acme/skates/archive/{REV}.tar.gz?rev={REV}"
    to = "https://git.example/{owner}/skates/archive/{rev}.tar.gz"
    assert back(LOCKED, "/{rev}/of/{owner}", to) == f"{BASE}/{REV}/of/acme?rev={REV}"


@pytest.mark.parametrize(
    "url",
    [
        LOCKED.replace("git.example", "other.example"),
        LOCKED.replace("git.example", "git.example:444"),
        LOCKED.replace("git.example", "x@git.example"),
        LOCKED.replace("https:", "http:"),
        LOCKED.replace("skates", "boots"),
        f"{LOCKED}#x",
        "https://git.example/acme/skates/archive/../x.tar.gz",
        "https://git.example/acme/skates/archive/a%2Fb.tar.gz/x",
        "https://[git.example/",
        "",
        "nonsense",
    ],
)
def test_what_the_route_does_not_lead_to_is_not_said(url: str) -> None:
    assert back(url) is None


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/skates/{rev}.tar.gz", "https://git.example/acme/skates/archive/main.tar.gz"),
        ("/{a}/{rev}.tar.gz", TO),
        ("/{rev}/{rev}", "https://git.example/acme/skates/archive/{rev}.zip"),
        ("/{rev}", "https://git.example/acme{?rev}"),
        ("/{rev}", "https://git.example/acme#{rev}"),
        ("/{rev}", "https://git.example"),
    ],
)
def test_a_route_that_has_no_way_back_says_nothing(path: str, to: str) -> None:
    assert back(LOCKED, path, to) is None


@given(st.text(max_size=30))
def test_following_back_never_fails_and_never_leaves(text: str) -> None:
    for url in (text, f"https://git.example/{text}", f"https://git.example/acme/skates/archive/{text}.tar.gz"):
        ours = back(url)
        assert ours is None or ours.startswith(f"{BASE}/skates/")


def ask(*links: str, proxy: bool = True) -> list[str]:
    site = FileSite([FileRoute("/skates/{rev}.tar.gz", TO, "skates", None, proxy)], HostPolicy(BASE))
    fetch = site.decide(Request("GET", "get.acme.example", "/skates/main.tar.gz"))
    assert isinstance(fetch, Fetch)
    there = fetch.then(UpstreamHead(302, (("location", "/storage/x"),)))
    assert isinstance(there, Fetch)
    relay = there.then(UpstreamHead(200, tuple(("link", link) for link in links)))
    assert isinstance(relay, Relay)
    return [value for name, value in relay.headers if name == "link"]


def test_a_proxied_tarball_is_locked_in_our_name() -> None:
    ours = f'<{BASE}/skates/{REV}.tar.gz?rev={REV}>; rel="immutable"'
    assert ask(f'<{LOCKED}>; rel="immutable"') == [ours]
    assert ask('<https://x.example/>; rel="next"', f'<{LOCKED}>; rel="immutable"') == [ours]
    assert ask('<https://x.example/>; rel="immutable"', "<>", f"<{LOCKED}>") == []
    assert ask() == []
