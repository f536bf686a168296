"""Trees: repositories under one root URL, whatever their type. Maven stands for all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_compile import compiled, host, package, problems

from waypost.artifacts.kind import DeclarationError, HostPolicy, Package
from waypost.artifacts.maven import KIND, MavenRow, read
from waypost.artifacts.tree import File, TreeSite
from waypost.routing.decision import Fetch, Redirect, Refuse, UpstreamHead
from waypost.routing.request import Request

ROOTS = ("https://one.example/maven", "https://two.example")
JAR = "/com/acme/skates/1.2/skates-1.2.jar"


def ask(path: str, method: str = "GET", query: str | None = None, base: str = "http://m.example", **row: Any) -> Any:
    site = TreeSite([MavenRow("skates", row.pop("roots", ROOTS), "acme", **row)], HostPolicy(base), read)
    return site.decide(Request(method, "m.example", path, query, [("range", "bytes=0-9"), ("cookie", "c")]))


def test_a_path_leads_to_the_same_path_upstream() -> None:
    redirect = ask(JAR)
    assert isinstance(redirect, Redirect)
    assert redirect.location == f"https://one.example/maven{JAR}"
    (fact,) = redirect.facts
    assert (fact.kind, fact.package, fact.owner) == ("binary-download", "skates", "acme")
    assert (fact.artifact, fact.version, fact.upstream) == ("com.acme:skates", "1.2", "one.example")


def test_the_fact_names_the_upstream_that_the_client_is_sent_to() -> None:
    (other,) = ask(JAR).others
    assert other.location == f"https://two.example{JAR}"
    assert other.facts[0].upstream == "two.example"


def test_files_are_the_same_everywhere_and_indexes_are_not() -> None:
    assert ask(JAR).pin is None
    assert ask("/com/acme/skates/maven-metadata.xml").pin == "skates"
    assert ask("/anything/else").pin == "skates"
    assert ask("/anything/else", roots=ROOTS[:1]).pin is None


@pytest.mark.parametrize("path", [f"/.{JAR}", f"/./././.{JAR}", JAR.replace("/1.2/", "/./1.2/././")])
def test_a_segment_that_stands_for_nothing_is_left_out(path: str) -> None:
    redirect = ask(path, query="a=1")
    assert redirect.location == f"https://one.example/maven{JAR}?a=1"
    assert redirect.facts[0].version == "1.2"


def test_heads_and_what_is_neither_leave_no_fact() -> None:
    assert ask(JAR, "HEAD").facts == ()
    assert ask(f"{JAR}.sha1").facts == ()
    assert ask("/com/acme/skates/maven-metadata.xml").facts[0].kind == "index-fetch"


def test_a_query_goes_along() -> None:
    assert ask(JAR, query="a=1&a=2").location.endswith(".jar?a=1&a=2")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_is_read_only(method: str) -> None:
    assert ask(JAR, method).status == 405


@pytest.mark.parametrize("path", ["/../x", "/a/../../x", "/%2e%2e/x", "/a/..%2fx", "/..;/x", "/a/%5c../x"])
def test_nothing_climbs_out_of_the_root(path: str) -> None:
    answer = ask(path)
    assert isinstance(answer, Refuse)
    assert answer.status == 404


@given(st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60))
def test_whatever_is_asked_stays_below_the_root(path: str) -> None:
    answer = ask(f"/{path}")
    assert isinstance(answer, Refuse) or answer.location.startswith("https://one.example/maven/")


def test_https_never_leads_to_http() -> None:
    plain = ("http://one.example",)
    assert ask(JAR, roots=plain).location == f"http://one.example{JAR}"
    answer = ask(JAR, roots=plain, base="https://m.example")
    assert (answer.status, answer.code) == (502, "UNSAFE_TARGET")
    assert isinstance(ask(JAR, roots=plain, base="https://m.example", proxy=True), Fetch)


def test_proxied_files_pass_through_from_whoever_has_them() -> None:
    fetch = ask(JAR, proxy=True)
    assert isinstance(fetch, Fetch)
    assert [one.url for one in (fetch, *fetch.others)] == [f"{root}{JAR}" for root in ROOTS]
    assert fetch.headers == (("range", "bytes=0-9"),)
    assert fetch.alike
    assert not ask("/com/acme/skates/maven-metadata.xml", proxy=True).alike
    relay = fetch.then(UpstreamHead(206, (("content-type", "x"),)))
    assert [fact.upstream for fact in relay.facts] == ["one.example"]  # type: ignore[union-attr]


def test_a_file_may_have_to_pass_through() -> None:
    """Even to a client on https, from an upstream on http."""
    site = TreeSite([MavenRow("skates", ("http://one.example",))], HostPolicy("https://m.example"), through)
    fetch: Any = site.decide(Request("HEAD", "m.example", "/versions"))
    assert isinstance(fetch, Fetch)
    assert (fetch.method, fetch.url) == ("HEAD", "http://one.example/versions")
    assert isinstance(site.decide(Request("GET", "m.example", "/other")), Refuse)


def through(path: str) -> File:
    return File("index-fetch", through=path == "versions")


def test_explain_says_what_a_path_is() -> None:
    site = TreeSite([MavenRow("skates", ROOTS)], HostPolicy("http://m.example"), read)
    (line,) = site.explain(Request("GET", "m.example", JAR))
    assert "a file (com.acme:skates, 1.2)" in line
    assert "https://one.example/maven, and while that is down https://two.example" in line


# Declarations

MAVEN = 'domain = "m.example"\nupstream = {}'


def declare(**more: Any) -> Any:
    assert KIND.declare is not None
    return KIND.declare(Package(type="maven", name="skates", **more))


def test_upstreams_are_root_urls(tmp_path: Any) -> None:
    text = package("skates", MAVEN.format('["https://one.example/maven/", "https://two.example"]'), "maven")
    rows = host(compiled(tmp_path, text), "m.example").rows
    assert rows == [MavenRow("skates", ROOTS)]
    # Without a domain it has one of its own: OWNER.TYPE.BASE.
    text = 'owner = "acme"\n' + package("skates", 'upstream = "https://one.example"', "maven")
    assert host(compiled(tmp_path, text), "acme.maven.waypost.example").rows


@pytest.mark.parametrize(
    "upstream",
    [
        None,
        "",
        [],
        "one.example",
        "ftp://one.example",
        "https://",
        "https://one.example/?x",
        "https://one.example/#x",
        "https://u:p@one.example",
        "https://one.example/{x}",
        "https://one.example:x",
        ["https://one.example", "https://one.example/"],
    ],
)
def test_what_is_no_root_url_is_refused(upstream: Any) -> None:
    with pytest.raises(DeclarationError):
        declare(upstream=upstream)


def test_a_tree_has_its_domain_to_itself(tmp_path: Any) -> None:
    maven = package("skates", MAVEN.format('"https://one.example"'), "maven")
    other = package("boots", MAVEN.format('"https://two.example"'), "maven")
    (problem,) = problems(tmp_path, maven + other)
    assert "skates and boots would both be the domain's root; each needs its own" in problem
    image = '[[package]]\ntype = "container"\nname = "acme/x"\ndomain = "m.example"\nupstream = "ghcr.io/acme/x"\n'
    (problem,) = problems(tmp_path, maven + image)
    assert "a maven package has its whole domain to itself" in problem
