"""The page that says where clients of a domain may be sent. tests/unit/test_sites.py holds it to what sites decide."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_compile import compiled

from waypost.artifacts import reach
from waypost.artifacts.catch_all import CatchAllRow
from waypost.artifacts.container import ContainerRow, PatternRow
from waypost.artifacts.file import FileRoute
from waypost.artifacts.file_regex import FileRegexRow
from waypost.artifacts.git import GitRow
from waypost.artifacts.helm import HelmRow
from waypost.artifacts.homebrew import BottleFilesRow, BottleImagesRow
from waypost.artifacts.kind import HostPolicy, origins
from waypost.artifacts.maven import MavenRow
from waypost.artifacts.nix import NixRow
from waypost.artifacts.npm import NpmRestRow, NpmRow
from waypost.artifacts.pixel import PixelRow
from waypost.artifacts.python import PythonFileRow
from waypost.artifacts.simple import ProjectRow
from waypost.artifacts.snapshot import Host, Policy, Snapshot, encode, encode_host
from waypost.gateway.reload import MAX_TOLD, CompiledHosts
from waypost.routing.decision import Refuse, Reply
from waypost.routing.request import Request


def told(rows: list[Any], **policy: Any) -> Any:
    return json.loads(reach.page(Host("get.example", HostPolicy("https://get.example", **policy), rows)))


def hosts_of(*rows: Any) -> tuple[list[str], bool]:
    (one,) = told(list(rows))["types"].values()
    return one["hosts"], one["further"]


def test_what_a_page_says() -> None:
    rows = [
        FileRoute("/{x}", "https://dl.example/{x}", "skates", others=("https://mirror.example:8443/{x}",)),
        ContainerRow("acme/skates", "ghcr.io", "acme/skates", "skates"),
    ]
    assert told(rows) == {
        "domain": "get.example",
        "base_url": "https://get.example",
        "types": {
            "container": {"hosts": [], "further": True},
            "file": {"hosts": ["dl.example:443", "mirror.example:8443"], "further": False},
        },
    }


@pytest.mark.parametrize(
    ("row", "hosts", "further"),
    [
        (FileRoute("/x", "http://dl.example{/x}", "p"), ["dl.example:80"], False),
        (FileRoute("/x", "https://[::1]?x={x}", "p"), ["[::1]:443"], False),
        (FileRoute("/x", "https://dl.example/x", "p", proxy=True), [], False),
        (FileRoute("/x", None, "p"), [], False),
        (FileRegexRow("x", "https://DL.example/x", "p"), ["dl.example:443"], False),
        (FileRegexRow("x", None, "p"), [], False),
        (CatchAllRow("www.example:444", "p"), ["www.example:444"], False),
        (CatchAllRow(None, "p"), [], False),
        (PythonFileRow("p", "p-1.tar.gz", "1", "https://f.example/p", "p"), ["f.example:443"], False),
        (MavenRow("p", ("https://one.example/m2", "http://two.example:81")), ["one.example:443", "two.example:81"], False),
        (MavenRow("p", ("https://one.example",), None, True), [], False),
        (ContainerRow("x", "ghcr.io", "x", "x"), [], True),
        (ContainerRow("x", "ghcr.io", "x", "x", proxy=True), [], False),
        (PatternRow("x/*", "ghcr.io"), [], True),
        (ProjectRow("p", ("https://i.example/simple/", "https://j.example:81/"), "p"), ["i.example:443", "j.example:81"], True),
        (ProjectRow("p", ("https://i.example/simple/",), "p", proxy=True), [], False),
        (HelmRow("p", ("https://one.example",)), ["one.example:443"], True),
        (NixRow("p", ("https://one.example",)), ["one.example:443"], True),
        (GitRow("p", ("https://one.example",)), ["one.example:443"], False),
        (NpmRow("p", ("https://one.example",)), ["one.example:443"], True),
        (NpmRestRow(), [], False),
        (BottleFilesRow("p", ("https://one.example",)), ["one.example:443"], False),
        (BottleImagesRow("p", (("ghcr.io", "p"),), "p"), [], True),
        (BottleImagesRow("p", (("ghcr.io", "p"),), "p", proxy=True), [], False),
        (PixelRow(), [], False),
    ],
)  # fmt: skip
def test_where_rows_lead(row: Any, hosts: list[str], further: bool) -> None:
    assert hosts_of(row) == (hosts, further)


def test_the_first_catch_all_answers_and_so_it_alone_is_told() -> None:
    assert hosts_of(CatchAllRow("one.example", "p"), CatchAllRow("two.example", "p"))[0] == ["one.example:443"]


def test_a_fallback_chooses_the_hosts_of_its_files() -> None:
    page = told([FileRoute("/x", None, "p")], fallback="https://pypi.example/simple/")
    assert page["fallback"] == {"hosts": ["pypi.example:443"], "further": True}


def test_where_we_really_connect_to_is_not_told(tmp_path: Any) -> None:
    text = """
[[package]]
type = "file"
name = "skates"
domain = "get.example"
routes = [{ path = "/{x}", to = "https://dl.example/{x}" }]
[[upstream]]
host = "dl.example"
connect = "http://10.1.2.3:9999"
username = "somebody"
password_env = "SECRET"
"""
    page = CompiledHosts(Snapshot(compiled(tmp_path, text).snapshot)).reach("get.example")
    assert page is not None
    assert json.loads(page)["types"]["file"]["hosts"] == ["dl.example:443"]
    for secret in (b"10.1.2.3", b"somebody", b"SECRET"):
        assert secret not in page


# The answer

PAGES = {"get.example": b"get", "docker.example": b"docker"}


def ask(query: str | None = None, method: str = "GET") -> Any:
    return reach.answer(Request(method, "get.example", reach.PATH, query), PAGES.get)


@pytest.mark.parametrize(
    ("query", "page"),
    [
        (None, b"get"),
        ("", b"get"),
        ("other=docker.example", b"get"),
        ("domain=get.example", b"get"),
        ("domain=docker.example", b"docker"),
        ("domain=DOCKER%2Eexample.", b"docker"),
        ("domain=docker.example&domain=get.example", b"docker"),
    ],
)
def test_whose_page_it_is(query: str | None, page: bytes) -> None:
    headers = (("content-type", "application/json"), ("cache-control", "no-store"))
    assert ask(query) == ask(query, "HEAD") == Reply(200, headers, page)


@pytest.mark.parametrize("query", ["domain=", "domain=other.example", "domain=docker.example:443", "domain=%C3%A9", "domain=%00"])  # fmt: skip
def test_other_domains_are_unknown(query: str) -> None:
    answer = ask(query)
    assert (answer.status, answer.headers) == (404, (("cache-control", "no-store"),))


def test_it_is_read_only() -> None:
    assert ask(method="POST").status == 405


@given(st.text(max_size=30))
def test_whatever_is_asked_is_answered(query: str) -> None:
    assert isinstance(ask(query), Reply | Refuse)
    assert isinstance(ask(f"domain={query}"), Reply | Refuse)


@given(st.text(max_size=30))
def test_an_origin_ends_where_a_path_may_begin(text: str) -> None:
    for origin in origins([f"https://{text}", text]):
        assert not set(origin.removeprefix("https://").removeprefix("http://")) & set("/?#{")


# As a gateway serves it


def snapshot(**targets: str) -> Snapshot:
    rows = {name: [FileRoute("/x", f"https://{to}/x", "p")] for name, to in targets.items()}
    hosts = (Host(f"{name}.example", HostPolicy("http://x"), row) for name, row in rows.items())
    return Snapshot(encode(Policy(), [(host.name, encode_host(host)) for host in hosts]))


def test_a_page_is_that_of_the_snapshot_in_use() -> None:
    hosts = CompiledHosts(snapshot(a="one.example"))
    assert b"one.example:443" in (hosts.reach("a.example") or b"")
    assert hosts.reach("a.example") is hosts.reach("a.example")
    assert hosts.reach("b.example") is None
    hosts.swap(snapshot(a="two.example", b="three.example"))
    assert b"two.example:443" in (hosts.reach("a.example") or b"")
    assert b"three.example:443" in (hosts.reach("b.example") or b"")


def test_few_pages_are_remembered() -> None:
    names = [f"h{number}" for number in range(MAX_TOLD + 5)]
    hosts = CompiledHosts(snapshot(**dict.fromkeys(names, "one.example")))
    first = hosts.reach("h0.example")
    for name in names:
        assert hosts.reach(f"{name}.example")
    again = hosts.reach("h0.example")
    assert again == first
    assert again is not first
