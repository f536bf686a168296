"""Request bytes never choose scheme, host or port of a redirect, nor climb out of a route's folder."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from waypost.artifacts.catch_all import CatchAllRow, CatchAllSite
from waypost.artifacts.file import FileRoute, FileSite
from waypost.artifacts.file_regex import FileRegexRow, FileRegexSite
from waypost.artifacts.kind import HostPolicy
from waypost.routing.decision import Fetch, Redirect, Refuse
from waypost.routing.request import Request
from waypost.routing.site import Site

POLICY = HostPolicy("https://get.example")
AUTHORITY = "dl.target.example:8443"

ROUTES = [
    ("/a/{x}/{y}", "https://dl.target.example:8443/base/{x}/{y}"),
    ("/b/{+x}", "https://dl.target.example:8443/base/{+x}"),
    ("/c/{x}-{y}", "https://dl.target.example:8443/base{/x,y}"),
    ("/d/{+x}", "https://dl.target.example:8443{?x}"),
    ("/e/{+x}/{y}", "https://dl.target.example:8443/base/{y}?u={+x}&fixed=1"),
    ("/f/{x}{?q}", "https://dl.target.example:8443/base/f{.x}{;q}#{+q}"),
    ("/g/{+x}", "https://dl.target.example:8443/base/{x:4}{&x}"),
]
SITES: list[Site] = [
    FileSite([FileRoute(path, to, "skates") for path, to in ROUTES], POLICY),
    FileSite([FileRoute(path, to, "skates", proxy=True) for path, to in ROUTES], POLICY),
    FileRegexSite(
        [FileRegexRow(r"^/.(?P<x>.*)/(?<y>[^/]*)?", "https://dl.target.example:8443/base/{+x}/{y}{?y}", "skates")],
        POLICY,
    ),
    CatchAllSite([CatchAllRow(AUTHORITY, "skates")], POLICY),
]

HOSTILE = [
    "\r\n", "\r", "\n", "%0d%0a", "//", "\\", "%5c", "@", "%40", ":80", "%3a", "%2f", "%2F%2f", "..", ".",
    "%2e", "%2E%2e", "..;", "#", "%23", "?", "%3f", "&", "=", "evil.example", "é", "%c3%a9", "\ud800",
    "\x00", "%00", " ", "%", "%zz", "[", "]", "\t", "<", '"', "{x}", "a", "1.2.3", "/", "-",
    "\u2028", "。", "／",
]  # fmt: skip
pieces = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=3), max_size=8).map("".join)
paths = st.builds(
    lambda letter, rest: f"/{letter}{rest}", st.sampled_from([f"{c}/" for c in "abcdefg"] + ["", "/"]), pieces
)

# Scheme and authority as the rule has them, then a path, a query or nothing; printable ASCII throughout.
LOCATION = re.compile(r"https://dl\.target\.example:8443(?:[/?][!#-;=?-\[\]_a-z~]*)?")


@pytest.mark.parametrize("site", SITES, ids=["file", "proxied", "regex", "catch-all"])
@settings(max_examples=400, deadline=None)
@given(
    path=paths,
    query=st.none() | pieces,
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    body=st.binary(max_size=40),
)
@example(path="/b//evil.example/", query=None, method="GET", body=b"")
@example(path="/b/\\evil.example", query="//evil.example", method="GET", body=b"")
@example(path="/b/@evil.example:80/", query=None, method="GET", body=b"")
@example(path="/c/..-%2e%2e", query=None, method="GET", body=b"")
def test_the_authority_is_the_rules(site: Site, path: str, query: str | None, method: str, body: bytes) -> None:
    decision = site.decide(Request(method, "get.example", path, query, body=body))
    if decision is None or isinstance(decision, Refuse):
        return
    assert isinstance(decision, Redirect | Fetch)
    location = decision.location if isinstance(decision, Redirect) else decision.url
    assert LOCATION.fullmatch(location), location
    parts = urlsplit(location)
    assert (parts.scheme, parts.netloc) == ("https", AUTHORITY)
    assert not climbs(parts.path)


def climbs(path: str) -> bool:
    """A second opinion: decode, take every separator there is, drop parameters, look for dots."""
    segments = re.split(r"[/\\]", unquote(path, errors="replace"))
    return any(segment.partition(";")[0] in (".", "..") for segment in segments)


@settings(max_examples=300, deadline=None)
@given(query=pieces)
def test_a_name_appears_once(query: str) -> None:
    site = FileSite([FileRoute("/{x}", "https://dl.target.example:8443/?x={x}&a=1", "skates")], POLICY)
    decision = site.decide(Request("GET", "get.example", "/1", query))
    assert isinstance(decision, Redirect)
    names = [pair.partition("=")[0] for pair in urlsplit(decision.location).query.split("&")]
    decoded = [unquote(name.replace("+", " "), errors="replace") for name in names]
    assert decoded[:2] == ["x", "a"]
    assert len(set(decoded)) == len(decoded)
