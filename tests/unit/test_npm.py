"""npm packages: what is asked of which registry, and where clients are sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_compile import compiled, host, package, problems

from waypost.artifacts.kind import DeclarationError, HostPolicy, Package
from waypost.artifacts.npm import KIND, LONGEST_VERSION, NpmRestRow, NpmRestSite, NpmRow, NpmSite
from waypost.artifacts.packument import ABBREVIATED, FULL
from waypost.routing.decision import Fetch, Redirect, Refuse, Reply, UpstreamHead
from waypost.routing.request import Request

ROOTS = ("https://one.example/npm", "https://two.example")
NPM = KIND[0]
SHORT = f"{ABBREVIATED}; q=1.0, {FULL}; q=0.8, */*"


def ask(path: str, method: str = "GET", accept: str = SHORT, base: str = "https://npm.example", **row: Any) -> Any:
    rows = [NpmRow(name, row.get("roots", ROOTS), "acme", row.get("proxy", False)) for name in ("skates", "@acme/x")]
    headers = [("accept", accept), ("range", "bytes=0-9"), ("cookie", "c")]
    return NpmSite(rows, HostPolicy(base)).decide(
        Request(method, "npm.example", path, None, headers, b"", base[:5].rstrip(":"))
    )


def packument(name: str = "skates", tarball: str = "https://one.example/npm/skates/-/skates-1.0.0.tgz") -> bytes:
    one = {"version": "1.0.0", "dist": {"tarball": tarball, "integrity": "sha512-x"}}
    return json.dumps({"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": one}}).encode()


def answered(fetch: Fetch, body: bytes, status: int = 200, **headers: str) -> Any:
    return fetch.then(UpstreamHead(status, tuple((k.replace("_", "-"), v) for k, v in headers.items()), body))


def chosen(fetch: Fetch, body: bytes) -> Any:
    assert fetch.keep is not None
    return fetch.keep.choose(answered(fetch, body))  # type: ignore[union-attr]


def test_a_packument_is_asked_of_each_upstream_and_kept() -> None:
    fetch = ask("/skates")
    assert isinstance(fetch, Fetch)
    assert [one.url for one in (fetch, *fetch.others)] == [f"{root}/skates" for root in ROOTS]
    assert fetch.headers == (("Accept", SHORT),)
    assert fetch.keep.failure == 503  # type: ignore[union-attr]
    (fact,) = fetch.keep.facts  # type: ignore[union-attr]
    assert (fact.kind, fact.package, fact.owner) == ("index-fetch", "skates", "acme")
    reply = chosen(fetch, packument())
    assert json.loads(reply.body)["versions"]["1.0.0"]["dist"] == {
        "tarball": "https://npm.example/skates/-/skates-1.0.0.tgz",
        "integrity": "sha512-x",
    }
    assert reply.headers == (("Content-Type", FULL), ("Vary", "Accept"))


def test_both_forms_are_kept_and_each_says_which_it_is() -> None:
    short, full = ask("/skates"), ask("/skates", accept="application/json")
    assert short.keep.asked != full.keep.asked
    assert full.headers == (("Accept", FULL),)
    assert (
        dict(answered(short, packument(), content_type=f"{ABBREVIATED}; charset=utf-8").headers)["Content-Type"]
        == ABBREVIATED
    )


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (SHORT, ABBREVIATED),  # npm, yarn 1, pnpm
        (ABBREVIATED, ABBREVIATED),
        ("application/json", FULL),
        ("*/*", FULL),
        ("", FULL),
        ("text/html", FULL),
        (f"{ABBREVIATED};q=0.5, application/json", FULL),
    ],
)
def test_the_form_that_is_wanted(accept: str, form: str) -> None:
    assert ask("/skates", accept=accept).keep.asked == f"https://npm.example/skates {form}"


@pytest.mark.parametrize("path", ["/@acme/x", "/@acme%2fx", "/@acme%2Fx", "/%40acme%2fx", "/@acme/x/", "//@acme/x"])
def test_every_spelling_of_a_scoped_name(path: str) -> None:
    fetch = ask(path)
    assert fetch.url == "https://one.example/npm/@acme%2fx"
    assert fetch.keep.asked == ask("/@acme/x").keep.asked
    reply = chosen(fetch, packument("@acme/x"))
    assert b'"https://npm.example/@acme/x/-/x-1.0.0.tgz"' in reply.body


@pytest.mark.parametrize(
    "path", ["/boots", "/@acme", "/@other/x", "/x", "/Skates", "/skates%2f", "/sk%61tes%00", "/", "", "*", "/%2e%2e/skates",
             "/-/v1/search", "/-/npm/v1/keys", "/-/npm/v1/attestations/boots@1", "/-/package/boots/dist-tags", "/-/whoami"]
)  # fmt: skip
def test_what_is_not_declared_is_somebody_elses(path: str) -> None:
    expected = path == "/skates%2f"  # the same name, with a slash at its end
    assert (ask(path) is not None) is expected


def test_dist_tags_and_versions_are_read_from_the_packument() -> None:
    for path in ("/-/package/@acme%2fx/dist-tags", "/-/package/@acme/x/dist-tags"):
        tags = ask(path)
        assert tags.keep.asked == ask("/@acme/x").keep.asked
        assert json.loads(chosen(tags, packument("@acme/x")).body) == {"latest": "1.0.0"}
    for version in ("1.0.0", "latest"):
        fetch = ask(f"/skates/{version}")
        assert fetch.keep.asked == ask("/skates", accept=FULL).keep.asked
        assert json.loads(chosen(fetch, packument()).body)["version"] == "1.0.0"
    assert chosen(ask("/skates/2.0.0"), packument()).status == 404
    assert ask(f"/skates/{'1' * (LONGEST_VERSION + 1)}").status == 404
    assert ask("/-/package/skates/collaborators").status == 404
    assert ask("/skates/1.0.0/more").status == 404


TARBALL = "/skates/-/skates-1.0.0.tgz"


def test_a_tarball_leads_to_where_the_packument_says_that_it_is() -> None:
    redirect = chosen(ask(TARBALL), packument(tarball="https://cdn.example/download/abc?sig=1"))
    assert isinstance(redirect, Redirect)
    assert (redirect.status, redirect.location) == (307, "https://cdn.example/download/abc?sig=1")
    (fact,) = redirect.facts
    assert (fact.kind, fact.package, fact.owner, fact.version) == ("binary-download", "skates", "acme", "1.0.0")
    assert (fact.artifact, fact.upstream) == ("skates-1.0.0.tgz", "cdn.example")
    # Whether a registry is up says nothing of a store that is not its own.
    assert (redirect.others, redirect.root) == ((), None)


def test_while_its_host_is_down_it_leads_to_another_upstream() -> None:
    redirect = chosen(ask(TARBALL), packument())
    assert redirect.location == "https://one.example/npm/skates/-/skates-1.0.0.tgz"
    (other,) = redirect.others
    assert other.location == "https://two.example/skates/-/skates-1.0.0.tgz"
    assert other.facts[0].upstream == "two.example"
    assert [one.root for one in (redirect, other)] == [f"{root}/" for root in ROOTS]


@pytest.mark.parametrize("path", ["/@acme/x/-/x-1.0.0.tgz", "/@acme%2fx/-/x-1.0.0.tgz", "/@acme%2Fx/-/x-1%2e0.0.tgz"])
def test_a_scoped_tarball(path: str) -> None:
    redirect = chosen(ask(path), packument("@acme/x", "https://one.example/npm/@acme/x/-/x-1.0.0.tgz"))
    assert redirect.location == "https://one.example/npm/@acme/x/-/x-1.0.0.tgz"
    assert (redirect.facts[0].package, redirect.facts[0].artifact) == ("@acme/x", "x-1.0.0.tgz")


def test_a_version_that_is_not_there_is_not_found_and_not_counted() -> None:
    refused = chosen(ask("/skates/-/skates-2.0.0.tgz"), packument())
    assert (refused.status, refused.message) == (404, "skates has no version '2.0.0'.")
    for file in ("boots-1.0.0.tgz", "skates-1.0.0.zip", "..", f"skates-{'1' * (LONGEST_VERSION + 1)}.tgz"):
        assert ask(f"/skates/-/{file}").status == 404


def test_heads_leave_no_fact() -> None:
    assert ask("/skates", "HEAD").keep.facts == ()
    head, get = ask(TARBALL, "HEAD"), ask(TARBALL)
    assert chosen(head, packument()).facts == ()
    assert head.keep.form != get.keep.form


def test_https_never_leads_to_http() -> None:
    plain = packument(tarball="http://cdn.example/x.tgz")
    roots = ("http://one.example", "https://two.example")
    assert chosen(ask(TARBALL, roots=roots, base="http://npm.example"), plain).location == "http://cdn.example/x.tgz"
    own = packument(tarball="http://one.example/x.tgz")
    assert chosen(ask(TARBALL, roots=roots), own).location == "https://two.example/skates/-/skates-1.0.0.tgz"
    refused = chosen(ask(TARBALL, roots=roots[:1]), plain)
    assert (refused.status, refused.code) == (502, "UNSAFE_TARGET")
    assert ask(TARBALL, base="https://npm.example").keep.form != ask(TARBALL, base="http://npm.example").keep.form


def test_a_tarball_may_pass_through() -> None:
    asked = ask(TARBALL, proxy=True, roots=("http://one.example", *ROOTS[1:]))
    assert asked.keep.form == ""  # it depends on Range, which no form says
    fetch = chosen(asked, packument(tarball="http://one.example/x.tgz"))
    assert isinstance(fetch, Fetch)
    assert [one.url for one in (fetch, *fetch.others)] == ["http://one.example/x.tgz", f"{ROOTS[1]}{TARBALL}"]
    assert fetch.alike
    assert ("range", "bytes=0-9") in fetch.headers
    assert "cookie" not in dict(fetch.headers)
    (fact,) = fetch.then(UpstreamHead(206, ())).facts  # type: ignore[union-attr]
    assert (fact.version, fact.upstream) == ("1.0.0", "one.example")


def test_attestations_are_the_registrys_own() -> None:
    redirect = ask("/-/npm/v1/attestations/@acme%2fx@1.0.0")
    assert redirect.location == "https://one.example/npm/-/npm/v1/attestations/@acme%2fx@1.0.0"
    assert (redirect.facts, len(redirect.others)) == ((), 1)
    assert ask("/-/npm/v1/attestations/skates@%2e%2e").location.endswith("/skates@..")
    assert ask("/-/npm/v1/attestations/skates@1/x") is None


def test_it_can_be_pinged() -> None:
    assert ask("/-/ping").body == b"{}"
    assert ask("/-/ping", "PUT") is None


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_it_is_read_only(method: str) -> None:
    assert ask("/skates", method).status == 405
    assert ask("/skates/-rev/1", method).status == 405


@pytest.mark.parametrize(
    ("status", "expected"), [(404, 404), (410, 404), (429, 429), (401, 502), (403, 502), (500, 502), (204, 502)]
)
def test_what_an_upstream_answers(status: int, expected: int) -> None:
    assert answered(ask("/skates"), b"{}", status).status == expected
    assert answered(ask("/skates"), b"", 429, retry_after="7").headers == (("Retry-After", "7"),)


@pytest.mark.parametrize("body", [b"<html>", packument("boots"), packument()[:-5], b""])
def test_what_is_no_packument_is_no_answer(body: bytes) -> None:
    assert answered(ask("/skates"), body).status == 502


def test_an_upstream_may_redirect() -> None:
    fetch = answered(ask("/skates"), b"", 301, location="/elsewhere")
    assert (fetch.url, fetch.headers) == ("https://one.example/elsewhere", (("Accept", SHORT),))
    assert answered(ask("/skates"), b"", 301, location="http://one.example/elsewhere").status == 502
    assert answered(ask("/skates"), b"", 302).status == 502


# What nobody declares


def rest(
    path: str,
    method: str = "GET",
    fallback: str | None = "https://all.example/npm/",
    query: str | None = None,
    base: str = "https://n.example",
) -> Any:
    site = NpmRestSite([NpmRestRow()], HostPolicy(base, fallback=fallback))
    return site.decide(Request(method, "n.example", path, query))


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/boots", None, "https://all.example/npm/boots"),
        ("/@types%2fnode", None, "https://all.example/npm/@types%2fnode"),
        ("/boots/-/boots-1.0.0.tgz", None, "https://all.example/npm/boots/-/boots-1.0.0.tgz"),
        ("/-/v1/search", "text=a%20b&size=5", "https://all.example/npm/-/v1/search?text=a%20b&size=5"),
        ("/", None, "https://all.example/npm/"),
        ("//evil.example/x", None, "https://all.example/npm/evil.example/x"),
    ],
)
def test_the_rest_is_the_fallbacks_and_leaves_no_fact(path: str, query: str | None, location: str) -> None:
    redirect = rest(path, query=query)
    assert (redirect.status, redirect.location, redirect.facts) == (307, location, ())


def test_audits_are_questions() -> None:
    assert rest("/-/npm/v1/security/advisories/bulk", "POST").location.endswith("/-/npm/v1/security/advisories/bulk")
    assert rest("/-/user/org.couchdb.user:x", "PUT").status == 405
    assert rest("/-/v1/login", "POST").status == 405


def test_without_a_fallback_there_is_nothing() -> None:
    reply = rest("/boots", fallback=None)
    assert isinstance(reply, Reply)
    assert (reply.status, reply.facts) == (404, ())
    assert "no fallback" in json.loads(reply.body)["error"]
    assert rest("/boots", "PUT", fallback=None).status == 405


def test_the_fallback_is_never_left_nor_reached_without_tls() -> None:
    assert rest("/%2e%2e/x").status == 404
    assert rest("/boots", fallback="http://all.example/").code == "UNSAFE_TARGET"
    assert (
        rest("/boots", fallback="http://all.example/", base="http://n.example").location == "http://all.example/boots"
    )


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40))
def test_whatever_is_asked_stays_below_the_fallback(path: str) -> None:
    answer = rest(f"/{path}")
    assert isinstance(answer, Refuse) or answer.location.startswith("https://all.example/npm/")


# Declaring


def declare(**keys: Any) -> list[Any]:
    assert NPM.declare is not None
    return list(NPM.declare(Package(type="npm", **{"name": "skates", "upstream": "https://one.example/", **keys})))


def test_a_declaration() -> None:
    assert declare(owner="acme") == [NpmRow("skates", ("https://one.example",), "acme"), NpmRestRow()]
    assert declare(name="@acme/JSONStream.x")[0].name == "@acme/JSONStream.x"


@pytest.mark.parametrize(
    "name", ["", "acme/skates", "@acme", "@acme/", "@/x", ".x", "_x", "a b", "@acme/x/y", "é", "-", "x" * 215]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError):
        declare(name=name)


@pytest.mark.parametrize("upstream", [None, [], "one.example", "https://one.example/?x", "https://u:p@one.example"])
def test_what_is_no_registry_is_refused(upstream: Any) -> None:
    with pytest.raises(DeclarationError):
        declare(upstream=upstream)


KEYS = 'domain = "n.example"\nupstream = "https://one.example"\n'


def test_packages_share_a_domain_with_images_and_files(tmp_path: Any) -> None:
    text = package("skates", KEYS, "npm") + package("@acme/x", KEYS, "npm")
    text += package("acme/image", 'domain = "n.example"\nupstream = "ghcr.io/acme/image"\n', "container")
    text += package("x", 'domain = "n.example"\nupstream = "https://p.example/simple/"\n', "python")
    text += package("cli", 'domain = "n.example"\nroutes = [{ path = "/{+x}" }, { path = "/skates-{v}.zip" }]\n')
    rows = host(compiled(tmp_path, text), "n.example").rows
    assert [row for row in rows if isinstance(row, NpmRow)][1].name == "@acme/x"
    assert host(
        compiled(tmp_path, 'owner = "acme"\n' + package("x", 'upstream = "https://o.example"', "npm")),
        "acme.npm.waypost.example",
    )


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (package("skates", 'owner = "b"\n' + KEYS, "npm"), "the npm package skates is declared twice"),
        (package("cli", 'domain = "n.example"\nroutes = [{ path = "/skates/{v}" }]\n'), "all of /skates is of type npm"),
        (package("cli", 'domain = "n.example"\nroutes = [{ path = "/skates" }]\n'), "all of /skates is of type npm"),
        (package("cli", 'domain = "n.example"\nroutes = [{ path = "/-/x{?y}" }]\n'), "all of /- is of type npm"),
        (package("cli", 'domain = "n.example"\nroutes = [{ path = "/@a/b/c" }]\n') + package("@a/b", KEYS, "npm"), "all of /@a/b is of type npm"),
        (
            package("v2", KEYS, "npm") + package("a/b", 'domain = "n.example"\nupstream = "ghcr.io/a/b"\n', "container"),
            "/v2 would be of type container and of type npm",
        ),
        (
            package("simple", KEYS, "npm") + package("x", 'domain = "n.example"\nupstream = "https://p.example/simple/"\n', "python"),
            "/simple would be of type npm and of type python",
        ),
        (
            package("x", 'domain = "n.example"\nupstream = "https://p.example/simple/"\n', "python")
            + '[[domain]]\nhost = "n.example"\nfallback = "https://p.example/simple/"\n',
            "one index, and npm and python have one each; give them domains of their own",
        ),
    ],
)  # fmt: skip
def test_what_meets_is_refused(tmp_path: Any, other: str, why: str) -> None:
    (problem,) = problems(tmp_path, package("skates", KEYS, "npm") + other)
    assert why in problem


def test_explain_says_whose_a_path_is() -> None:
    site = NpmSite([NpmRow("skates", ROOTS)], HostPolicy("https://n.example"))
    (line,) = site.explain(Request("GET", "n.example", TARBALL))
    assert "the tarball of 1.0.0" in line
    assert "https://one.example/npm, and while that is down https://two.example" in line
    assert site.explain(Request("GET", "n.example", "/boots")) == []
    for fallback, said in ((None, "no fallback"), ("https://all.example/", "https://all.example/")):
        (line,) = NpmRestSite([], HostPolicy("https://n.example", fallback=fallback)).explain(Request("GET", "n", "/b"))
        assert said in line
