"""What the paths of a Nix cache name, and what becomes of its descriptions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.nix import NixRow, NixSite, read, rewritten, split
from waypost.artifacts.tree import OTHER, File
from waypost.routing.decision import Fetch, Page, Redirect, Refuse, Reply, UpstreamHead
from waypost.routing.request import Request

ROOTS = ("https://one.example/cache", "https://two.example")
HASH = "sykfz5c611cz8pxj7y2sg41yb837df2w"
NAR = "nar/1m87d40rflan2zcq69c3q7ljzcj3a2x7bk7xfj22690kb1533wr2.nar.xz"
NARINFO = """\
StorePath: /nix/store/{hash}-{name}
URL: {url}
Compression: xz
FileHash: sha256:1m87d40rflan2zcq69c3q7ljzcj3a2x7bk7xfj22690kb1533wr2
FileSize: 168
NarHash: sha256:0addczm9fjxkwraq3rf9z66ndy1w8scg7pi05xdyf4rjpl2h73gj
NarSize: 288
References: {references}
Sig: acme-1:I1A0tR5xjZJLKhSPU1A8YHgVXIID+wmJuT0NSVljGjf/pyh0y7GfUwXxsZzZfgqCVf9+9uDSMKXNu15W+yjTCg==
"""


def narinfo(url: str = NAR, name: str = "skates-1.2", hash_: str = HASH) -> bytes:
    return NARINFO.format(hash=hash_, name=name, url=url, references="").encode()


def ask(path: str, method: str = "GET", query: str | None = None, base: str = "http://n.example", **row: Any) -> Any:
    site = NixSite([NixRow("cache", row.pop("roots", ROOTS), "acme", **row)], HostPolicy(base))
    return site.decide(Request(method, "n.example", path, query))


# As `builtins.parseDrvName` of Nix 2.8 answers; where it says "", there is no version.
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("skates-1.2", ("skates", "1.2")),
        ("a-b-1.2-dev", ("a-b", "1.2-dev")),
        ("foo", ("foo", None)),
        ("foo-x11-1", ("foo-x11", "1")),
        ("foo-2bar", ("foo", "2bar")),
        ("gtk+3-3.24", ("gtk+3", "3.24")),
        ("x-r3108", ("x-r3108", None)),
        ("foo-_1", ("foo", "_1")),
        ("foo-", ("foo-", None)),
        ("a--1", ("a", "-1")),
        ("python3.11-requests-2.31.0", ("python3.11-requests", "2.31.0")),
        ("-1", ("-1", None)),  # Nix has a nameless one there
    ],
)
def test_names_are_split_as_nix_does(name: str, parts: tuple[str, str | None]) -> None:
    assert split(name) == parts


@pytest.mark.parametrize(
    ("path", "file"),
    [
        (f"nar-of/skates-1.2/{NAR}", File("binary-download", "skates", "1.2", None, True)),
        ("nar-of/source/nar/abc.nar", File("binary-download", "source", None, None, True)),
        (NAR, File("binary-download", same=True)),
        ("0abc.nar.bz2", File("binary-download", same=True)),
        ("nix-cache-info", File("index-fetch")),
        (f"{HASH}.ls", OTHER),
        ("log/abc-skates-1.2.drv", OTHER),
        ("realisations/sha256:abc!out.doi", OTHER),
        ("debuginfo/abc.debug", OTHER),
        ("nar-of/skates-1.2/", OTHER),
        ("nar-of/", OTHER),
        ("nar-of/../nar/abc.nar", OTHER),
        ("nar-of/a b/nar/abc.nar", OTHER),
        ("nar/a/b.nar", OTHER),
        ("", OTHER),
    ],
)
def test_a_path_names_a_file(path: str, file: File) -> None:
    assert read(path) == file


# Descriptions


def test_an_archive_is_named_and_nothing_else_changes() -> None:
    before, after = narinfo(), rewritten(HASH, ROOTS, narinfo())
    assert after == before.replace(f"URL: {NAR}".encode(), f"URL: nar-of/skates-1.2/{NAR}".encode())


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("nar/abc.nar?hash=def", "nar-of/skates-1.2/nar/abc.nar?hash=def"),
        ("https://two.example/nar/abc.nar", "nar-of/skates-1.2/nar/abc.nar"),
        # To lead to another host, a request would have to say which.
        ("https://elsewhere.example/nar/abc.nar", "https://elsewhere.example/nar/abc.nar"),
        ("https://two.example.evil.example/abc.nar", "https://two.example.evil.example/abc.nar"),
    ],
)
def test_archives_of_other_hosts_stay_theirs(url: str, ours: str) -> None:
    assert f"\nURL: {ours}\n".encode() in (rewritten(HASH, ROOTS, narinfo(url)) or b"")


def test_a_name_may_need_escaping() -> None:
    body = rewritten(HASH, ROOTS, narinfo(name="what?-c++_=-1.2"))
    assert b"\nURL: nar-of/what%3F-c++_=-1.2/nar/" in (body or b"")
    location = ask(f"/nar-of/what%3F-c++_=-1.2/{NAR}").location
    assert location == f"https://one.example/cache/{NAR}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>sign in here</html>",
        narinfo(hash_="0" * 32),
        narinfo(name=".."),
        narinfo(name="a/b"),
        narinfo(name="a b"),
        narinfo().replace(b"NarHash", b"NoHash"),
        narinfo().replace(b"URL", b"No"),
        narinfo("nar/a b.nar"),
        narinfo("nar/é.nar"),
        narinfo(""),
        narinfo()[:60],
        b"\xff" * 100,
    ],
)
def test_what_is_no_description_of_it_is_refused(body: bytes) -> None:
    assert rewritten(HASH, ROOTS, body) is None


@given(st.binary(max_size=200))
def test_rewriting_never_fails(noise: bytes) -> None:
    body = narinfo()
    rewritten(HASH, ROOTS, noise)
    rewritten(HASH, ROOTS, body[:80] + noise + body[80:])


# Questions


def test_descriptions_are_served_and_leave_no_fact() -> None:
    for method in ("GET", "HEAD"):
        fetch = ask(f"/{HASH}.narinfo", method)
        assert isinstance(fetch, Fetch)
        assert [one.url for one in (fetch, *fetch.others)] == [f"{root}/{HASH}.narinfo" for root in ROOTS]
        assert isinstance(fetch.keep, Page)
        assert fetch.keep.facts == ()
        assert fetch.method == "GET"  # what is kept answers both
    reply = fetch.then(UpstreamHead(200, (), narinfo()))
    assert isinstance(reply, Reply)
    assert reply.headers == (("Content-Type", "text/x-nix-narinfo"),)
    assert b"nar-of/skates-1.2/" in reply.body


def test_the_caches_own_page_is_served_and_is_an_index() -> None:
    fetch = ask("/nix-cache-info")
    assert [fact.kind for fact in fetch.keep.facts] == ["index-fetch"]
    assert ask("/nix-cache-info", "HEAD").keep.facts == ()
    assert fetch.then(UpstreamHead(200, (), b"StoreDir: /nix/store\nPriority: 40\n")).status == 200
    assert fetch.then(UpstreamHead(200, (), b"<html>")).code == "UPSTREAM_MISBEHAVED"


@pytest.mark.parametrize(
    ("status", "headers", "refusal"),
    [
        (404, (), (404, "NOT_FOUND")),
        (403, (), (404, "NOT_FOUND")),
        (410, (), (404, "NOT_FOUND")),
        (429, (("retry-after", "7"),), (429, "TOOMANYREQUESTS")),
        (401, (), (502, "UPSTREAM_FAILED")),
        (500, (), (502, "UPSTREAM_FAILED")),
        (302, (), (502, "UPSTREAM_FAILED")),
        (302, (("location", "http://one.example/plain"),), (502, "UPSTREAM_FAILED")),
        (200, (("content-encoding", "br"),), (502, "UPSTREAM_MISBEHAVED")),
    ],
)
def test_what_an_upstream_may_say(status: int, headers: Any, refusal: tuple[int, str]) -> None:
    answer = ask(f"/{HASH}.narinfo").then(UpstreamHead(status, headers, narinfo()))
    assert isinstance(answer, Refuse)
    assert (answer.status, answer.code) == refusal


def test_a_redirect_is_followed() -> None:
    fetch = ask(f"/{HASH}.narinfo").then(UpstreamHead(302, (("location", "https://s.example/x"),)))
    assert isinstance(fetch, Fetch)
    assert fetch.url == "https://s.example/x"
    assert fetch.then(UpstreamHead(200, (), narinfo())).status == 200  # type: ignore[union-attr]


# Archives


def test_an_archive_is_where_the_upstream_says() -> None:
    redirect = ask(f"/nar-of/skates-1.2/{NAR}", query="hash=x")
    assert isinstance(redirect, Redirect)
    assert redirect.location == f"https://one.example/cache/{NAR}?hash=x"
    assert redirect.others[0].location == f"https://two.example/{NAR}?hash=x"
    assert redirect.pin is None
    (fact,) = redirect.facts
    assert (fact.kind, fact.package, fact.artifact, fact.version) == ("binary-download", "cache", "skates", "1.2")
    assert fact.platform is None
    assert ask(f"/nar-of/skates-1.2/{NAR}", "HEAD").facts == ()


@pytest.mark.parametrize(
    "path",
    ["nar-of/a-1/../x", "nar-of/a-1/%2e%2e/x", "nar-of/../x", "nar-of/a-1/x/..%2f..%2fy", "nar-of/%2e%2e/../../y"],
)
def test_nothing_climbs_out_of_the_cache(path: str) -> None:
    answer = ask(f"/{path}")
    assert isinstance(answer, Refuse) or answer.location.startswith("https://one.example/cache/")
    if isinstance(answer, Redirect):
        assert ".." not in answer.location


@given(st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60))
def test_whatever_is_asked_stays_in_the_cache(path: str) -> None:
    answer = ask(f"/nar-of/{path}")
    assert isinstance(answer, Refuse) or answer.location.startswith("https://one.example/cache/")


def test_what_is_not_counted_is_redirected() -> None:
    for path in (f"/{HASH}.ls", "/log/x.drv", "/realisations/x.doi", "/debuginfo/x.debug", "/x.narinfo"):
        redirect = ask(path)
        assert isinstance(redirect, Redirect)
        assert redirect.facts == ()
        assert redirect.location == f"https://one.example/cache{path}"


def test_it_is_read_only() -> None:
    assert ask(f"/{HASH}.narinfo", "PUT").status == 405


def test_explain_says_what_a_path_is() -> None:
    site = NixSite([NixRow("cache", ROOTS)], HostPolicy("http://n.example"))
    (line,) = site.explain(Request("GET", "n.example", f"/{HASH}.narinfo"))
    assert "while that is down https://two.example" in line
    (line,) = site.explain(Request("GET", "n.example", f"/nar-of/skates-1.2/{NAR}"))
    assert "a file (skates, 1.2)" in line
