"""Helm repositories: what their paths name, and what becomes of their index."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from waypost.artifacts.helm import HelmRow, HelmSite, read
from waypost.artifacts.helm_index import read_charts, relinked
from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.tree import OTHER, File
from waypost.routing.decision import Fetch, Page, Redirect, Refuse, Reply, UpstreamHead
from waypost.routing.request import Request

ROOT = "https://charts.example/stable"
BASE = "https://helm.acme.example"
INDEX = """\
apiVersion: v1
entries:
  # rocket skates, für alle
  skates:
  - apiVersion: v2
    dependencies:
    - {name: wheels, repository: "https://charts.example/wheels", version: 1.x.x}
    name: skates
    urls:
    - charts/skates-1.2.0.tgz
    version: 1.2.0
  - version: 1.1.0+build.7
    name: skates
    urls: ["https://charts.example/stable/skates-1.1.0%2Bbuild.7.tgz", 'https://mirror.example/s.tgz']
  boots:
  - urls:
    - https://dl.example/acme/boots-v2/chart.tgz?sig=a&b=c
    version: v2.0.0-rc.1
  - urls:
    - oci://ghcr.example/acme/boots
    - http://plain.example/boots.tgz
    version: 1.0.0
generated: "2026-11-01T10:11:12Z"
"""


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("skates-1.2.0.tgz", File("binary-download", "skates", "1.2.0", None, True)),
        ("charts/rocket-skates-2-1.2.0-rc.1+x.tgz",
         File("binary-download", "rocket-skates-2", "1.2.0-rc.1+x", None, True)),
        ("skates-v1.2.0.tgz", File("binary-download", "skates", "v1.2.0", None, True)),
        ("skates.tgz", File("binary-download", "skates", None, None, True)),
        ("skates-1.2.0.tgz.prov", File("", same=True)),
        ("index.yaml", File("index-fetch")),
        ("charts/index.yaml", OTHER),
        ("", OTHER),
    ],
)  # fmt: skip
def test_a_path_names_a_file(path: str, file: File) -> None:
    assert read(path) == file


def ask(path: str, method: str = "GET", **more: Any) -> Any:
    site = HelmSite(
        [HelmRow("skates", (ROOT, "https://two.example"), "acme")], HostPolicy(more.pop("base", BASE)), read
    )
    return site.decide(Request(method, "helm.acme.example", path, scheme=more.pop("scheme", "https")))


def made(text: str | bytes, path: str = "/index.yaml", upstream: int = 0, **more: Any) -> Any:
    """What is answered when an upstream has this index."""
    fetch = ask(path, **more)
    assert isinstance(fetch, Fetch)
    assert isinstance(fetch.keep, Page)
    assert fetch.keep.choose is not None
    body = text.encode() if isinstance(text, str) else text
    kept = (fetch, *fetch.others)[upstream].then(UpstreamHead(200, (), body))
    if not isinstance(kept, Reply):
        return kept
    return fetch.keep.choose(kept)


def test_the_index_is_asked_of_each_upstream_and_kept_once() -> None:
    fetch = ask("/index.yaml")
    assert [one.url for one in (fetch, *fetch.others)] == [f"{ROOT}/index.yaml", "https://two.example/index.yaml"]
    (fact,) = fetch.keep.facts
    assert (fact.kind, fact.package) == ("index-fetch", "skates")
    assert ask("/index.yaml", "HEAD").keep.facts == ()
    assert ask("/-/boots-1.0.0.tgz").keep.asked == fetch.keep.asked
    assert ask("/index.yaml", base="https://other.example").keep.asked != fetch.keep.asked


def test_links_lead_here_and_all_else_stays_as_it_was() -> None:
    answer = made(INDEX)
    assert isinstance(answer, Reply)
    expected = (
        INDEX.replace("charts/skates-1.2.0.tgz", f'"{BASE}/charts/skates-1.2.0.tgz"')
        .replace('"https://charts.example/stable/skates-1', f'"{BASE}/skates-1')
        .replace("'https://mirror.example/s.tgz'", f'"{BASE}/-/skates-1.1.0%2Bbuild.7.tgz"')
        .replace("https://dl.example/acme/boots-v2/chart.tgz?sig=a&b=c", f'"{BASE}/-/boots-v2.0.0-rc.1.tgz"')
    )
    assert answer.body.decode() == expected


def test_links_of_another_upstream_are_its_own() -> None:
    answer = made(INDEX, upstream=1)
    assert f'"{BASE}/charts/skates-1.2.0.tgz"' in answer.body.decode()
    assert f'"{BASE}/-/skates-1.1.0%2Bbuild.7.tgz"' in answer.body.decode()


def test_what_the_index_has_elsewhere_is_looked_up() -> None:
    redirect = made(INDEX, "/-/boots-v2.0.0-rc.1.tgz")
    assert isinstance(redirect, Redirect)
    assert redirect.location == "https://dl.example/acme/boots-v2/chart.tgz?sig=a&b=c"
    (fact,) = redirect.facts
    assert (fact.kind, fact.package, fact.artifact, fact.version, fact.upstream) == (
        "binary-download", "skates", "boots", "v2.0.0-rc.1", "dl.example",
    )  # fmt: skip
    assert made(INDEX, "/-/boots-v2.0.0-rc.1.tgz", method="HEAD").facts == ()
    signature = made(INDEX, "/-/boots-v2.0.0-rc.1.tgz.prov")
    assert signature == Redirect("https://dl.example/acme/boots-v2/chart.tgz.prov?sig=a&b=c")
    assert made(INDEX, "/-/skates-1.1.0%2Bbuild.7.tgz").location == "https://mirror.example/s.tgz"


@pytest.mark.parametrize(
    "path", ["/-/skates-1.2.0.tgz", "/-/https://evil.example/x.tgz", "/-/", "/-/../index.yaml", "/-/boots-1.0.0.tgz"]
)
def test_nothing_else_is_found(path: str) -> None:
    assert made(INDEX, path).status == 404


def test_charts_may_pass_through_from_wherever_they_are() -> None:
    site = HelmSite([HelmRow("charts", (ROOT,), None, True)], HostPolicy(BASE), read)
    fetch: Any = site.decide(Request("GET", "helm.acme.example", "/-/boots-v2.0.0-rc.1.tgz"))
    chart = fetch.keep.choose(fetch.then(UpstreamHead(200, (), INDEX.encode())))
    assert chart.url == "https://dl.example/acme/boots-v2/chart.tgz?sig=a&b=c"
    (fact,) = chart.then(UpstreamHead(200, ())).facts
    assert (fact.artifact, fact.version, fact.upstream) == ("boots", "v2.0.0-rc.1", "dl.example")


def test_https_never_leads_to_http() -> None:
    plain = "entries: {x: [{version: 1.0.0, urls: ['http://plain.example/x.tgz']}]}"
    root = ("http://charts.example",)
    for base, scheme, expected in (
        ("http://h.example", "http", Redirect),
        ("https://h.example", "http", Refuse),
        ("http://h.example", "https", Refuse),
    ):
        site = HelmSite([HelmRow("skates", root)], HostPolicy(base), read)
        fetch: Any = site.decide(Request("GET", "h.example", "/-/x-1.0.0.tgz", scheme=scheme))
        assert isinstance(fetch.keep.choose(fetch.then(UpstreamHead(200, (), plain.encode()))), expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!DOCTYPE html><html><body>Sign in</body></html>",
        "just text",
        "- a\n- list",
        "apiVersion: v1",
        "entries: [a, b]",
        "entries: {skates: {version: 1}}",
        "entries: {skates: [1.2.0]}",
        "entries: {skates: [{urls: [{a: b}]}]}",
        "entries: {skates: [{version: [1]}]}",
        "entries: {skates: [{urls: &u [x], version: *u}]}",
        'entries: {skates: [{urls: ["x',
        "entries:\n\tskates: []",
        b"entries: {\xff: []}",
        b"\x1f\x8b\x08\x00",
    ],
)
def test_what_is_no_index_is_no_answer(text: str | bytes) -> None:
    refusal = made(text)
    assert isinstance(refusal, Refuse)
    assert (refusal.status, refusal.code) == (502, "UPSTREAM_FAILED")
    assert "index" in refusal.message


@pytest.mark.parametrize("text", ["entries: {}", "entries:\n", '{"entries": {"skates": []}}', "entries: {skates: }"])
def test_a_repository_may_be_empty(text: str) -> None:
    assert made(text).body.decode() == text


@pytest.mark.parametrize(("status", "answer"), [(404, 404), (410, 404), (500, 502), (401, 502), (204, 502)])
def test_an_upstream_that_has_no_index(status: int, answer: int) -> None:
    assert ask("/index.yaml").then(UpstreamHead(status, ())).status == answer


def test_an_index_that_moved_is_followed_and_its_links_stay_relative_to_the_repository() -> None:
    fetch = ask("/index.yaml")
    moved = fetch.then(UpstreamHead(302, (("location", "https://cdn.example/9f/index.yaml"),)))
    assert moved.url == "https://cdn.example/9f/index.yaml"
    kept = moved.then(UpstreamHead(200, (), INDEX.encode()))
    assert f'"{BASE}/charts/skates-1.2.0.tgz"' in fetch.keep.choose(kept).body.decode()
    assert fetch.then(UpstreamHead(302, (("location", "http://cdn.example/"),))).status == 502


def test_explain_says_what_a_path_is() -> None:
    site = HelmSite([HelmRow("charts", (ROOT,))], HostPolicy(BASE), read)
    lines = site.explain(Request("GET", "helm.acme.example", "/-/skates-1.2.0.tgz"))
    assert "a file (skates, 1.2.0)" in lines[0]
    assert "stands in the index" in lines[1]
    (line,) = site.explain(Request("GET", "helm.acme.example", "/skates-1.2.0.tgz"))
    assert f"at {ROOT}" in line


NAMES = st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)


@given(st.lists(st.tuples(NAMES, NAMES, st.text(max_size=12)), max_size=5))
def test_charts_of_any_name_are_found_where_they_stand(charts: list[tuple[str, str, str]]) -> None:
    document = {"entries": {"x": [{"name": n, "version": v, "urls": [u], "é": [[n]]} for n, v, u in charts]}}
    text = yaml.dump(document, allow_unicode=True, width=20)
    # What a YAML library reads of it: what it wrote is not always that (line breaks other than "\n").
    document = yaml.load(text, Loader=yaml.CSafeLoader)
    entries = document["entries"]["x"]
    found = list(read_charts(text))
    assert [(chart.name, chart.version, chart.links[0].url) for chart in found] == [
        (entry["name"], entry["version"], entry["urls"][0]) for entry in entries
    ]
    links = [(link, "https://a.example/") for chart in found for link in chart.links]
    for entry in entries:
        entry["urls"] = ["https://a.example/"]
    assert yaml.load(relinked(text, iter(links)), Loader=yaml.CSafeLoader) == document
