"""Homebrew's bottles: what their names say, what manifests say of them, and where they are."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_compile import compiled, host, package, problems

from waypost.artifacts.homebrew import (
    KIND,
    Bottle,
    BottleFiles,
    BottleFilesRow,
    BottleImages,
    BottleImagesRow,
    bottle_of,
    labels,
    read,
)
from waypost.artifacts.kind import DeclarationError, HostPolicy, Package
from waypost.artifacts.tree import OTHER, File
from waypost.routing.decision import Fetch, Keep, Listed, Refuse, Relay, Reply, UpstreamHead
from waypost.routing.request import Request

POLICY = HostPolicy("https://brew.example")
DIGEST = "sha256:" + "a" * 64
CONFIG = "sha256:" + "c" * 64
SKATES = "skates-1.2_1.arm64_sonoma.bottle.2.tar.gz"


# Names


@pytest.mark.parametrize(
    ("name", "bottle"),
    [
        (SKATES, Bottle("skates", "1.2_1", "arm64_sonoma", "2")),
        ("wget-1.21.4.x86_64_linux.bottle.tar.gz", Bottle("wget", "1.21.4", "x86_64_linux")),
        ("wget--1.21.4.all.bottle.tar.gz", Bottle("wget", "1.21.4", "all")),
        ("openssl@3-3.3.1.sonoma.bottle.1.tar.gz", Bottle("openssl@3", "3.3.1", "sonoma", "1")),
        ("imagemagick-7.1.1-29.big_sur.bottle.tar.gz", Bottle("imagemagick", "7.1.1-29", "big_sur")),
        ("x264-r3108.ventura.bottle.tar.gz", Bottle("x264", "r3108", "ventura")),
        ("gtk+3-3.24.0.sonoma.bottle.tar.gz", Bottle("gtk+3", "3.24.0", "sonoma")),
        ("a-b--2.0-rc1.sonoma.bottle.tar.gz", Bottle("a-b", "2.0-rc1", "sonoma")),
        ("skates-1.2.sonoma.bottle.json", None),
        ("skates-1.2.tar.gz", None),
        ("skates.sonoma.bottle.tar.gz", None),
        ("-1.2.sonoma.bottle.tar.gz", None),
        ("skates-1.2.bottle.tar.gz", None),
        ("", None),
    ],
)
def test_a_bottle_is_named_by_its_file(name: str, bottle: Bottle | None) -> None:
    assert bottle_of(name) == bottle


def test_a_path_names_a_file() -> None:
    assert read(f"some/folder/{SKATES}") == File("binary-download", "skates", "1.2_1", "arm64_sonoma", True)
    assert read("api/formula.jws.json") == File("index-fetch")
    assert read("skates-1.2.tar.gz") == OTHER


# Files

ROOTS = ("https://one.example/bottles", "https://two.example")


def file(path: str, method: str = "GET", **row: Any) -> Any:
    site = BottleFiles([BottleFilesRow("tap", ROOTS, "acme", **row)], POLICY)
    return site.decide(Request(method, "brew.example", path, None, [("user-agent", "Homebrew/4.2")]))


def test_a_bottle_is_where_its_upstream_has_it() -> None:
    redirect = file(f"/{SKATES.replace('_', '%5F')}")
    assert redirect.location == f"https://one.example/bottles/{SKATES.replace('_', '%5F')}"
    (fact,) = redirect.facts
    assert (fact.package, fact.artifact, fact.version, fact.platform) == ("tap", "skates", "1.2_1", "arm64_sonoma")
    assert file("/../x").status == 404


def test_who_looks_first_is_told_by_us_and_comes_back() -> None:
    fetch = file(f"/{SKATES}", "HEAD")
    assert isinstance(fetch, Fetch)
    assert [(one.method, one.url) for one in (fetch, *fetch.others)] == [("HEAD", f"{root}/{SKATES}") for root in ROOTS]
    relay = fetch.then(UpstreamHead(200, (("content-length", "5"), ("x-other", "x"))))
    named = ("content-disposition", f'attachment; filename="{SKATES}"')
    assert relay == Relay(200, (("content-length", "5"), named))
    # It may be elsewhere upstream, and have another name there.
    there = fetch.then(UpstreamHead(302, (("location", "https://s.example/x"),)))
    assert isinstance(there, Fetch)
    assert (there.method, there.url) == ("HEAD", "https://s.example/x")
    own = (("content-disposition", "attachment; filename=x"),)
    assert there.then(UpstreamHead(200, own)) == Relay(200, own)


@pytest.mark.parametrize("head", [UpstreamHead(403, ()), UpstreamHead(302, ()), UpstreamHead(501, ())])
def test_who_cannot_be_told_is_sent_there(head: UpstreamHead) -> None:
    redirect = file(f"/{SKATES}", "HEAD").then(head)
    assert redirect.location == f"https://one.example/bottles/{SKATES}"
    assert redirect.facts == ()


# Blobs of a registry


def images(*more: BottleImagesRow) -> BottleImages:
    upstreams = (("ghcr.io", "acme/tap"), ("reg2.example", "mirror"))
    return BottleImages([BottleImagesRow("acme/tap", upstreams, "tap", "acme"), *more], POLICY)


def ask(path: str, method: str = "GET", **headers: str) -> Any:
    return images().decide(Request(method, "brew.example", path, None, list(headers.items())))


def index(reference: str = "1.2_1.arm64_sonoma.2", title: str = "acme/tap/skates") -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                {
                    "digest": "sha256:" + "b" * 64,
                    "annotations": {
                        "org.opencontainers.image.ref.name": reference,
                        "sh.brew.bottle.digest": "a" * 64,
                    },
                }
            ],
            "annotations": {
                "org.opencontainers.image.title": title,
                "org.opencontainers.image.ref.name": "1.2_1-2",
                "org.opencontainers.image.version": "1.2_1",
            },
        }
    ).encode()


def said(body: bytes) -> dict[str, Bottle]:
    return {digest: msgspec.json.decode(label, type=Bottle) for digest, label in labels(body).items()}


def test_an_index_says_what_its_bottles_are() -> None:
    assert said(index()) == {DIGEST: Bottle("skates", "1.2_1", "arm64_sonoma", "2")}
    assert said(index("3.3.1.sonoma", "openssl@3")) == {DIGEST: Bottle("openssl@3", "3.3.1", "sonoma")}
    assert said(index("sonoma")) == {}


def test_a_manifest_says_what_its_blobs_are() -> None:
    body = {
        "config": {"digest": CONFIG},
        "annotations": {
            "org.opencontainers.image.title": "openssl@3 3.3.1.sonoma",
            "org.opencontainers.image.ref.name": "3.3.1.sonoma",
            "sh.brew.bottle.digest": "a" * 64,
        },
    }
    assert said(json.dumps(body).encode()) == {DIGEST: Bottle("openssl@3", "3.3.1", "sonoma"), CONFIG: Bottle()}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"annotations": null, "manifests": null, "config": null}',
        b'{"annotations": {"x": 1}}',
        b'{"manifests": [{}]}',
        b'{"config": {"digest": "sha256:../../x"}}',
        b"[" * 5000,
        b"\xff",
        index().replace(b"a" * 64, b"A" * 64),
    ],
)
def test_what_is_no_manifest_of_bottles_says_nothing(body: bytes) -> None:
    assert labels(body) == {}


def test_an_index_of_very_many_says_what_the_first_are() -> None:
    one = json.loads(index())
    one["manifests"] = [
        {"annotations": {**one["manifests"][0]["annotations"], "sh.brew.bottle.digest": f"{number:064x}"}}
        for number in range(5000)
    ]
    assert len(labels(json.dumps(one).encode())) == 200


@given(st.binary(max_size=60))
def test_labels_never_fail(noise: bytes) -> None:
    body = index()
    labels(noise)
    labels(body[:60] + noise + body[60:])


def test_a_manifest_is_an_index_and_its_labels_are_kept() -> None:
    fetch = ask("/v2/acme/tap/skates/manifests/1.2_1-2", accept="application/vnd.oci.image.index.v1+json")
    assert [one.url for one in (fetch, *fetch.others)] == [
        "https://ghcr.io/v2/acme/tap/skates/manifests/1.2_1-2",
        "https://reg2.example/v2/mirror/skates/manifests/1.2_1-2",
    ]
    assert isinstance(fetch.keep, Keep)
    assert fetch.keep.labels is labels
    reply = fetch.then(UpstreamHead(200, (("content-type", "application/vnd.oci.image.index.v1+json"),), index()))
    assert isinstance(reply, Reply)
    (fact,) = reply.facts
    assert (fact.kind, fact.package, fact.artifact, fact.tag) == ("index-fetch", "tap", "skates", "1.2_1-2")
    assert fact.lists is None
    head = ask("/v2/acme/tap/skates/manifests/1.2_1-2", "HEAD").then(UpstreamHead(200, ()))
    assert head.facts == ()


def test_no_credentials_of_the_client_go_upstream() -> None:
    fetch = ask(f"/v2/acme/tap/skates/blobs/{DIGEST}", authorization="Bearer QQ==")
    assert fetch.authorization is None
    assert fetch.headers == ()


STORAGE = UpstreamHead(307, (("location", "https://storage.example/x"),))


def blob(label: Bottle | None, name: str = "skates", head: UpstreamHead = STORAGE) -> Any:
    fetch = ask(f"/v2/acme/tap/{name}/blobs/{DIGEST}")
    assert fetch.keep == Listed(f"ghcr.io/acme/tap/{name}", DIGEST)
    written = None if label is None else msgspec.json.encode(label).decode()
    return fetch.then(msgspec.structs.replace(head, label=written))


def test_a_blob_is_the_bottle_that_its_label_says() -> None:
    redirect = blob(Bottle("skates", "1.2_1", "arm64_sonoma", "2"))
    assert redirect.location == "https://storage.example/x"
    (fact,) = redirect.facts
    assert (fact.kind, fact.package, fact.artifact, fact.upstream) == ("binary-download", "tap", "skates", "ghcr.io")
    assert (fact.version, fact.platform, fact.variables) == ("1.2_1", "arm64_sonoma", {"rebuild": "2"})
    assert fact.digest == DIGEST


def test_the_label_is_remembered_where_the_registry_redirects_to_itself() -> None:
    home = UpstreamHead(307, (("location", "https://ghcr.io/elsewhere"),))
    fetch = blob(Bottle("skates", "1.2_1", "arm64_sonoma"), head=home)
    assert isinstance(fetch, Fetch)
    (fact,) = fetch.then(STORAGE).facts  # type: ignore[union-attr]
    assert fact.version == "1.2_1"


@pytest.mark.parametrize(("name", "formula"), [("skates", "skates"), ("openssl/3", "openssl@3")])
def test_a_blob_without_label_is_a_bottle_of_no_known_version(name: str, formula: str) -> None:
    (fact,) = blob(None, name).facts
    assert (fact.kind, fact.artifact, fact.version, fact.platform) == ("binary-download", formula, None, None)


def test_a_config_is_nobodys_download() -> None:
    (fact,) = blob(Bottle()).facts
    assert fact.kind == "blob-fetch"


def test_only_what_is_below_a_prefix_is_there() -> None:
    for path in ("/v2/acme/other/manifests/1", "/v2/acme/tap/manifests/1", "/v2/acme/taps/x/manifests/1"):
        answer = ask(path)
        assert isinstance(answer, Refuse)
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    assert ask(f"/v2/acme/tap/../x/blobs/{DIGEST}").status == 400
    assert ask("/v2/acme/tap/x/manifests/1", "PUT").status == 405
    assert ask("/api/formula.jws.json") is None


def test_the_longest_prefix_decides() -> None:
    site = images(BottleImagesRow("acme", (("reg3.example", "acme"),), "others"))
    for name, registry in (("acme/tap/x", "ghcr.io"), ("acme/x", "reg3.example")):
        fetch = site.decide(Request("GET", "brew.example", f"/v2/{name}/manifests/1"))
        assert isinstance(fetch, Fetch)
        assert fetch.url == f"https://{registry}/v2/{name}/manifests/1"
    assert "acme/tap/x on ghcr.io" in " ".join(site.explain(Request("GET", "h", "/v2/acme/tap/x/manifests/1")))
    assert "/v2/acme/tap, /v2/acme only" in " ".join(site.explain(Request("GET", "h", "/x")))


# Declarations


def declare(*upstream: str) -> Any:
    assert KIND.declare is not None
    return KIND.declare(Package(type="homebrew", name="tap", upstream=list(upstream)))


def test_a_root_url_says_which_it_is(tmp_path: Any) -> None:
    line = 'domain = "b.example"\nupstream = "{}"'
    text = package("tap", line.format("https://ghcr.io/v2/acme/tap"), "homebrew")
    assert host(compiled(tmp_path, text), "b.example").rows == [
        BottleImagesRow("acme/tap", (("ghcr.io", "acme/tap"),), "tap")
    ]
    text = package("tap", line.format("https://example.net/bottles/"), "homebrew")
    assert host(compiled(tmp_path, text), "b.example").rows == [BottleFilesRow("tap", ("https://example.net/bottles",))]


@pytest.mark.parametrize(
    "upstreams",
    [
        [],
        ["ghcr.io/acme/tap"],
        ["http://ghcr.io/v2/acme/tap"],
        ["https://ghcr.io/v2/Acme"],
        ["https://ghcr.io/v2/acme/../x"],
        ["https://ghcr.io/v2/acme/tap", "https://example.net/bottles"],
    ],
)
def test_what_is_no_root_url_is_refused(upstreams: list[str]) -> None:
    with pytest.raises(DeclarationError):
        declare(*upstreams)


def test_taps_on_registries_share_a_domain_and_files_do_not(tmp_path: Any) -> None:
    line = 'domain = "b.example"\nupstream = "{}"'
    tap, core, file, other = (
        package(name, line.format(upstream), "homebrew")
        for name, upstream in (
            ("tap", "https://ghcr.io/v2/acme/tap"),
            ("core", "https://ghcr.io/v2/homebrew/core"),
            ("file", "https://example.net/bottles"),
            ("other", "https://example.com/v2/acme/tap"),
        )
    )
    assert len(host(compiled(tmp_path, tap + core), "b.example").rows) == 2
    (problem,) = problems(tmp_path, tap + other)
    assert "tap and other are both /v2/acme/tap" in problem
    (problem,) = problems(tmp_path, tap + file)
    assert "tap and file need a domain each" in problem
    (problem,) = problems(tmp_path, file + tap)
    assert "file and tap need a domain each" in problem
