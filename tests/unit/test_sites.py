"""The contract of routing.site, for every kind of the registry."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from waypost.artifacts.catch_all import CatchAllRow
from waypost.artifacts.container import ContainerRow, PatternRow
from waypost.artifacts.file import FileRoute
from waypost.artifacts.file_regex import FileRegexRow
from waypost.artifacts.homebrew import BottleImagesRow
from waypost.artifacts.kind import HostPolicy, origins
from waypost.artifacts.npm import NpmRestRow, NpmRow
from waypost.artifacts.pixel import PixelRow
from waypost.artifacts.python import PythonFileRow
from waypost.artifacts.registry import kinds
from waypost.artifacts.simple import ProjectRow
from waypost.artifacts.telemetry import InstallRow, TelemetryRow
from waypost.artifacts.tree import TreeRow
from waypost.routing.decision import Fact, Fetch, Page, Redirect, Refuse, Reply, UpstreamHead
from waypost.routing.request import Request

HOST = "host.example"
POLICY = HostPolicy(f"https://{HOST}", fallback="https://fallback.upstream.example/simple/")
DIGEST = "sha256:" + "0" * 64

# Rows of each kind, with every way to lead elsewhere. All lead to *.upstream.example or to the host itself.
ROWS = {
    "container": [
        ContainerRow("acme/skates", "registry.upstream.example", "team/skates", "skates"),
        PatternRow("col/*", "other.upstream.example"),
    ],
    "file": [
        FileRoute("/f/{x}", "https://dl.upstream.example/{x}?own=1", "skates"),
        FileRoute("/p/{+x}", "https://dl.upstream.example:8443/{+x}", "skates"),
        FileRoute("/q?v={v}", "https://dl.upstream.example/?v={v}#{v}", "skates"),
        FileRoute("/{+x}", "http://dl.upstream.example{/x}", "skates", proxy=True),
        FileRoute(
            "/m/{version}",
            "https://dl.upstream.example/{version}",
            "skates",
            others=("https://www.upstream.example:444/{version}", "http://dl.upstream.example/?{version}"),
            latest=(
                "https://dl.upstream.example/l",
                "https://www.upstream.example:444/l",
                "http://dl.upstream.example/l",
            ),
        ),
        FileRoute("/count", None, "skates"),
    ],
    "file-regex": [
        FileRegexRow(r"^/r/(?P<x>.+)$", "https://dl.upstream.example/{+x}", "skates"),
        FileRegexRow(r"f(?P<y>.*)", "https://dl.upstream.example/{y}", "skates"),
    ],
    "python-file": [
        PythonFileRow("skates", "skates-1.tar.gz", "1", "https://files.upstream.example/s.tar.gz", "skates")
    ],
    "python": [
        ProjectRow("skates", ("https://dl.upstream.example/simple/", "https://other.upstream.example/"), "skates"),
        ProjectRow("list", ("http://dl.upstream.example/simple/",), "list", None, True),
    ],
    "catch-all": [CatchAllRow("www.upstream.example:444", "skates")],
    "telemetry": [TelemetryRow("/t", "skates"), TelemetryRow("/t2", "skates", None, ["token"])],
    "homebrew": [BottleImagesRow("acme/tap", (("registry.upstream.example", "team/tap"),), "skates")],
    "npm": [
        NpmRow("skates", ("https://registry.upstream.example/npm", "http://other.upstream.example")),
        NpmRow("@acme/skates", ("https://registry.upstream.example",), proxy=True),
    ],
    "npm-rest": [NpmRestRow()],
    "pixel": [PixelRow()],
    "install": [InstallRow()],
}
AUTHORITIES = {
    HOST, "registry.upstream.example", "other.upstream.example", "dl.upstream.example", "dl.upstream.example:8443",
    "files.upstream.example", "www.upstream.example:444", "fallback.upstream.example",
}  # fmt: skip
ROWS |= {  # trees differ in what they read in a path alone
    kind.name: [kind.row("skates", ("https://dl.upstream.example/tree", "https://www.upstream.example:444"))]
    for kind in kinds()
    if isinstance(kind.row, type) and issubclass(kind.row, TreeRow)
}
# What upstreams may say to whatever is asked of them.
SIMPLE = b"""{"meta": {"api-version": "1.0"}, "name": "skates", "files": [
    {"filename": "skates-1.tar.gz", "url": "https://storage.upstream.example/x", "hashes": {}}]}"""
ANSWERS = [
    UpstreamHead(200, (("content-type", "application/vnd.pypi.simple.v1+json"),), SIMPLE),
    UpstreamHead(200, (("content-type", "text/html"),), b"{}"),
    UpstreamHead(404, ()),
    UpstreamHead(307, (("location", "https://storage.upstream.example/x"),)),
    UpstreamHead(302, (("location", "/elsewhere"),)),
]
REACHES = {kind.name: kind.reach(ROWS[kind.name]) for kind in kinds()}
SITES = {kind.name: kind.site(ROWS[kind.name], POLICY) for kind in kinds()}

# What sites look for, and what has led other software astray.
WORDS = st.sampled_from(
    ["v2", "simple", "skates", "skates-1.tar.gz", "a.png", "package-event", "install", "t", "t2", "f", "p", "q", "r", "count", "m",
     "acme", "tap", "col", "manifests", "blobs", "tags", "list", "latest", DIGEST, "_catalog", "referrers", "uploads",
     "@acme", "@acme%2fskates", "-", "skates-1.tgz", "dist-tags", "attestations", "..", ".", "", "%2e%2e", "%2f", "%", "%zz", "%00", "%0d%0a", "%ff", "\\", "@", "@evil.example", "evil.example", ":80", "?", "#",
     "https:", "{x}", "é", "\ud800", "\r\n", "\x00", " "]
)  # fmt: skip
PATHS = st.lists(WORDS | st.text(max_size=6), max_size=6).map("/".join)
PATHS = PATHS.map(lambda path: f"/{path}") | PATHS
QUERIES = st.none() | st.text(max_size=12) | st.lists(
    st.sampled_from(["v=1", "x-pxid=1", "a=%ff", "own=2", "%6fwn=3", "=", "&", "a+b=c+d", "n=5&last=x", "é=\ud800"])
).map("&".join)  # fmt: skip
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["accept", "range", "if-none-match", "authorization", "content-type", "user-agent", "x"]),
        st.sampled_from(["Homebrew/4.2", "*", "Bearer token", "Bearer \xff", "bytes=0-", ""]) | st.text(max_size=6),
    ),
    max_size=3,
)
BODIES = st.sampled_from([b"", b"{}", b'{"a": {"b": 1}}{"c": "\\ud800"}', b"\xff", b"[" * 3000, b'{"x": ']) | st.binary(
    max_size=20
)
REQUESTS = st.builds(
    Request,
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW", ""]),
    st.just(HOST),
    PATHS,
    QUERIES,
    HEADERS,
    BODIES,
    st.sampled_from(["http", "https"]),
)


def test_every_kind_is_tried():
    assert set(ROWS) == {kind.name for kind in kinds()}


@pytest.mark.parametrize("name", SITES)
@settings(max_examples=150, deadline=None)
@given(request=REQUESTS)
@example(request=Request("GET", HOST, "/v2/acme/skates/tags/list", "n=\ud800"))
@example(request=Request("GET", HOST, f"/v2/col/x/blobs/{DIGEST}"))
@example(request=Request("GET", HOST, f"/v2/acme/tap/x/blobs/{DIGEST}"))
@example(request=Request("HEAD", HOST, "/f/x", None, [("user-agent", "Homebrew/4.2")]))
@example(request=Request("GET", HOST, "//evil.example/@evil.example"))
@example(request=Request("GET", HOST, "/m/1"))
@example(request=Request("GET", HOST, "/m/latest"))
@example(request=Request("GET", HOST, "/r/x"))
@example(request=Request("GET", HOST, "/simple/skates/skates-1.tar.gz"))
@example(request=Request("GET", HOST, "/simple/other/"))
def test_the_contract(name, request):
    site = SITES[name]
    decision = site.decide(request)
    assert all(isinstance(line, str) for line in site.explain(request))
    assert same(decision, site.decide(request))
    if isinstance(decision, Redirect):
        for one in (decision, *decision.others):
            check_url(one.location)
            check_facts(one.facts)
            assert within_reach(name, one.location)
    elif isinstance(decision, Fetch):
        for one in (decision, *decision.others):
            check_url(one.url)
            assert "authorization" not in {header.lower() for header, _ in one.headers}
            for head in ANSWERS:
                then = one.then(head)
                if isinstance(then, Reply) and isinstance(decision.keep, Page) and decision.keep.choose:
                    then = decision.keep.choose(then)
                assert not isinstance(then, Redirect) or REACHES[name].further or within_reach(name, then.location)
    elif isinstance(decision, Reply):
        check_facts(decision.facts)
        check_headers(decision.headers)
    elif decision is not None:
        assert isinstance(decision, Refuse)
        assert 400 <= decision.status < 600
        check_headers(decision.headers)
        msgspec.json.encode(decision.message)
    if request.method == "HEAD" and not isinstance(decision, Fetch | None):
        assert not getattr(decision, "facts", ())


def within_reach(name, location):
    """Whether clients are sent where reach says, to ourselves, or to the fallback of the whole host."""
    return origins([location]) <= REACHES[name].origins | origins([POLICY.base_url, POLICY.fallback])


def same(one, other):
    """Equal, but for what is a function: `then` of a Fetch, and `choose` of a Page."""
    if isinstance(one, tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Fetch | Page) and type(one) is type(other):
        return all(same(getattr(one, field), getattr(other, field)) for field in one.__struct_fields__)
    return one == other or (callable(one) and callable(other))


def check_url(url):
    assert url.isascii()
    assert url.isprintable()
    assert not set(url) & set(' "<>\\^`{|}')
    parts = urlsplit(url)
    assert parts.scheme in ("http", "https")
    assert parts.netloc in AUTHORITIES


def check_headers(headers):
    for name, value in headers:
        assert name.isascii()
        assert value.isprintable()
        value.encode("latin-1")


def check_facts(facts):
    for fact in facts:
        assert isinstance(fact, Fact)
        msgspec.msgpack.encode(fact)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_rows_are_frozen_and_tagged(kind):
    for row in ROWS[kind.name]:
        config = row.__struct_config__
        assert (config.frozen, config.array_like, bool(config.tag)) == (True, True, True)


def test_tags_are_different():
    tags = [row.__struct_config__.tag for rows in ROWS.values() for row in {type(row): row for row in rows}.values()]
    assert len(set(tags)) == len(tags)


def test_the_order_of_kinds():
    """docs/request-handling.md tells it."""
    assert [kind.name for kind in kinds() if not kind.root] == [
        "install", "pixel", "container", "npm", "file", "file-regex", "python", "python-file", "telemetry", "catch-all",
        "npm-rest",
    ]  # fmt: skip
