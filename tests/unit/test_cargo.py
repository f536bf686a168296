"""Cargo registries: their index, and where their crates turn out to be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from waypost.artifacts.cargo import CargoRow, CargoSite, read
from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.tree import OTHER, File
from waypost.routing.decision import Fetch, Page, Redirect, Refuse, Relay, Reply, UpstreamHead
from waypost.routing.request import Request

ROOT = "https://index.example/crates"
BASE = "https://cargo.acme.example"
SUM = "ab" * 32
DOWNLOAD = "/api/v1/crates/Rocket-skates/1.2.0/download"


@pytest.mark.parametrize("path", ["config.json", "1/a", "2/ab", "3/a/abc", "ab/cd/abcd", "ro/ck/rocket_skates"])
def test_files_of_the_index(path: str) -> None:
    assert read(path) == File("index-fetch")


@pytest.mark.parametrize("path", ["", "1/ab", "ab/cd/abc", "ab/cd/ef/abcdef", "x.crate", "a/config.json"])
def test_what_is_none(path: str) -> None:
    assert read(path) == OTHER


def ask(target: str, method: str = "GET", **more: Any) -> Any:
    path, _, query = target.partition("?")
    site = CargoSite(
        [CargoRow("crates", (ROOT, "https://two.example"), "acme")], HostPolicy(more.pop("base", BASE)), read
    )
    return site.decide(Request(method, "cargo.acme.example", path, query or None, scheme=more.pop("scheme", "https")))


def made(config: Any, target: str = "/config.json", **more: Any) -> Any:
    """What is answered when the upstream has this config.json."""
    fetch = ask(target, **more)
    assert isinstance(fetch, Fetch)
    assert isinstance(fetch.keep, Page)
    assert fetch.keep.choose is not None
    body = config if isinstance(config, bytes) else json.dumps(config).encode()
    kept = fetch.then(UpstreamHead(200, (), body))
    return fetch.keep.choose(kept) if isinstance(kept, Reply) else kept


def test_config_json_leads_here_and_keeps_all_else() -> None:
    ours = made({"dl": "https://dl.example/crates", "api": "https://api.example/", "auth-required": False, "x": [1]})
    assert json.loads(ours.body) == {
        "dl": f"{BASE}/api/v1/crates/{{crate}}/{{version}}/download",
        "api": BASE,
        "auth-required": False,
        "x": [1],
    }
    assert "api" not in json.loads(made({"dl": "https://dl.example", "api": None}).body)
    assert json.loads(made({"dl": "https://dl.example/{sha256-checksum}"}).body)["dl"].endswith(
        "/{crate}/{version}/download?sha256={sha256-checksum}"
    )
    (fact,) = ask("/config.json").keep.facts
    assert (fact.kind, fact.package) == ("index-fetch", "crates")
    assert ask("/config.json").keep.asked == ask(DOWNLOAD).keep.asked


@pytest.mark.parametrize(
    ("template", "location"),
    [
        ("https://dl.example/api", "https://dl.example/api/Rocket-skates/1.2.0/download"),
        ("https://dl.example/{crate}-{version}.crate", "https://dl.example/Rocket-skates-1.2.0.crate"),
        ("https://dl.example/{prefix}/{lowerprefix}/x", "https://dl.example/Ro/ck/ro/ck/x"),
        ("https://dl.example/{sha256-checksum}?c={crate}", f"https://dl.example/{SUM}?c=Rocket-skates"),
        ("files/{crate}", "https://index.example/crates/files/Rocket-skates"),
    ],
)
def test_where_a_crate_is(template: str, location: str) -> None:
    redirect = made({"dl": template}, f"{DOWNLOAD}?sha256={SUM}")
    assert isinstance(redirect, Redirect)
    assert redirect.location == location
    (fact,) = redirect.facts
    assert (fact.kind, fact.package, fact.owner) == ("binary-download", "crates", "acme")
    assert (fact.artifact, fact.version, fact.upstream) == ("Rocket-skates", "1.2.0", location.split("/")[2])
    assert made({"dl": template}, f"{DOWNLOAD}?sha256={SUM}", method="HEAD").facts == ()


@pytest.mark.parametrize(("crate", "prefix"), [("a", "1"), ("ab", "2"), ("abc", "3/a"), ("Abcd", "Ab/cd")])
def test_crates_lie_in_folders_by_their_name(crate: str, prefix: str) -> None:
    redirect = made({"dl": "https://dl.example/{prefix}"}, f"/api/v1/crates/{crate}/1.0.0+x-1/download")
    assert redirect.location == f"https://dl.example/{prefix}"
    assert redirect.facts[0].version == "1.0.0+x-1"


def test_a_checksum_that_is_wanted_and_not_given() -> None:
    config = {"dl": "https://dl.example/{sha256-checksum}"}
    assert made(config, DOWNLOAD).status == 400
    assert made(config, f"{DOWNLOAD}?sha256=../../x").status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/crates/..%2f..%2fx/1.0.0/download",
        "/api/v1/crates/x/..%2f/download",
        "/api/v1/crates/%2e%2e/1.0.0/download",
        "/api/v1/../../x",
        "/api/v1/x y",
    ],
)
def test_nothing_climbs(path: str) -> None:
    answer = ask(path)
    assert isinstance(answer, Refuse)
    assert answer.status == 404


def test_questions_go_to_the_registry_and_their_answers_pass_through() -> None:
    fetch = ask("/api/v1/crates?q=skates&per_page=10")
    assert [one.url for one in (fetch, *fetch.others)] == [f"{ROOT}/config.json", "https://two.example/config.json"]
    assert fetch.keep is None
    question = fetch.then(UpstreamHead(200, (), b'{"dl": "https://dl.example", "api": "https://api.example"}'))
    assert question.url == "https://api.example/api/v1/crates?q=skates&per_page=10"
    relay = question.then(UpstreamHead(200, ()))
    assert isinstance(relay, Relay)
    assert relay.facts == ()
    assert fetch.then(UpstreamHead(200, (), b'{"dl": "https://dl.example"}')).status == 404
    assert ask("/api/v1/crates/new", "PUT").status == 405


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"<html>",
        b"[]",
        b"{",
        {},
        {"dl": 1},
        {"dl": "https://{crate}.example/"},
        {"dl": "ftp://dl.example/"},
        {"dl": "http://dl.example/"},
        {"dl": "https://user@dl.example/"},
        {"dl": "https://dl.example/", "api": 1},
        {"dl": "https://dl.example/", "api": "javascript:x"},
    ],
)
def test_what_is_no_configuration_is_no_answer(config: Any) -> None:
    for target in ("/config.json", DOWNLOAD):
        refusal = made(config, target)
        assert isinstance(refusal, Refuse)
        assert (refusal.status, refusal.code) == (502, "UPSTREAM_FAILED")


def test_crates_may_pass_through() -> None:
    site = CargoSite([CargoRow("crates", (ROOT,), None, True)], HostPolicy(BASE), read)
    fetch: Any = site.decide(Request("GET", "cargo.acme.example", DOWNLOAD, None, [("range", "bytes=0-9")]))
    crate = fetch.keep.choose(fetch.then(UpstreamHead(200, (), b'{"dl": "https://dl.example/{crate}"}')))
    assert (crate.url, crate.headers) == ("https://dl.example/Rocket-skates", (("range", "bytes=0-9"),))
    (fact,) = crate.then(UpstreamHead(200, ())).facts
    assert (fact.artifact, fact.version, fact.upstream) == ("Rocket-skates", "1.2.0", "dl.example")


def test_https_never_leads_to_http() -> None:
    for base, scheme, expected in (
        ("http://h.example", "http", Redirect),
        ("https://h.example", "http", Refuse),
        ("http://h.example", "https", Refuse),
    ):
        site = CargoSite([CargoRow("crates", ("http://i.example",))], HostPolicy(base), read)
        fetch: Any = site.decide(Request("GET", "h.example", DOWNLOAD, scheme=scheme))
        kept = fetch.then(UpstreamHead(200, (), b'{"dl": "http://dl.example"}'))
        assert isinstance(fetch.keep.choose(kept), expected)


def test_explain_says_what_a_path_is() -> None:
    site = CargoSite([CargoRow("crates", (ROOT,))], HostPolicy(BASE), read)
    for path, said in (
        (DOWNLOAD, "is the crate Rocket-skates 1.2.0; where that leads stands in config.json"),
        ("/api/v1/crates", "is a question to its `api`"),
        ("/ro/ck/rocket", "is an index"),
    ):
        (line,) = site.explain(Request("GET", "cargo.acme.example", path))
        assert said in line
