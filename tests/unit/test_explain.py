"""`waypost explain`: what is said about a request, without asking anybody."""

from __future__ import annotations

import pytest

from waypost.catalog.compile import compile_file
from waypost.catalog.explain import explain_request
from waypost.cli import _left_out

CONFIG = """
base_domain = "waypost.example"
manifests = ["manifest.json"]

[[package]]
type = "file"
name = "skates"
domain = "get.example"
routes = [
  { path = "/{version}/{platform}/{file}", to = "https://dl.example/{version}/{platform}/{file}" },
  { path = "/{version}/linux/{file}", to = "https://linux.example/{version}/{file}" },
  { path = "/ping" },
  { path = "/m/{version}/{file}", to = ["github:acme/skates", "https://dl.example/{version}/{file}"] },
]

[[package]]
type = "container"
name = "acme/skates"
domain = "docker.example"
upstream = ["ghcr.io/acme/skates", "quay.io/acme/skates"]
"""
MANIFEST = """{"rules": [
  {"type": "telemetry-v1", "package-id": "t", "domain": "get.example", "incoming-path": "/events"},
  {"type": "catch-all-v1", "package-id": "all", "domain": "all.example", "redirect-target-domain": "www.example"}
]}"""


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    (folder / "waypost.toml").write_text(CONFIG)
    (folder / "manifest.json").write_text(MANIFEST)
    snapshot = compile_file(folder / "waypost.toml", 8080).snapshot

    def explain(url, method="GET", headers=(), health=None):
        return explain_request(snapshot, method, url, headers, _left_out, health)

    return explain


def test_which_rule_answers_and_why_the_others_do_not(explained):
    assert explained("http://get.example/1.2/linux/x.tgz?a=b") == [
        "GET http://get.example/1.2/linux/x.tgz?a=b",
        "  307 to https://linux.example/1.2/x.tgz?a=b",
        "  why: file: /{version}/linux/{file} → https://linux.example/{version}/{file} (version=1.2, file=x.tgz), package skates",
        "  why: file: /{version}/{platform}/{file} → https://dl.example/{version}/{platform}/{file} matches as well, "
        "but has less literal text",
        "  counted: binary-download of skates, version 1.2, variables a=b version=1.2 file=x.tgz",
    ]


@pytest.mark.parametrize(
    ("url", "options", "answer", "counted"),
    [
        ("get.example/ping", {}, "200, answered here", "counted: binary-download of skates"),
        ("https://get.example/1/linux/x", {"method": "head"}, "307 to", "counted: nothing; HEAD never counts (C2)"),
        ("http://get.example/1/linux/x.sha256", {}, "307 to", "recorded, not counted (C3): binary-download"),
        ("http://get.example/1/linux/x", {"headers": ["Range: bytes=5-"]}, "307 to", "recorded, not counted (C4): binary-download"),
        ("http://get.example/1/linux/x", {"headers": ["DNT:1"]}, "307 to", "counted: nothing, and nothing is recorded: the client asks not to be tracked (C5)"),
        ("http://get.example/nothing", {}, "404 NOT_FOUND: No route matches this path.", "counted: nothing; only answers that went well count (C1)"),
        ("http://unknown.example/", {}, "404 NOT_FOUND: Nothing is served under this host name.", "counted: nothing"),
        ("http://all.example/a?b", {}, "307 to https://www.example/a?b", "counted: binary-download of all"),
        ("http://docker.example/v2/acme/skates/manifests/1.0", {}, "fetched from https://ghcr.io/v2/acme/skates/manifests/1.0 and passed on", "counted: depends on what the upstream answers"),
        ("http://docker.example/v2/", {}, "200, answered here", "counted: nothing; this is no download"),
        ("http://static.waypost.example/a.png?x-pxid=p", {}, "200, answered here", "counted: pixel-fetch of p"),
        ("http://GET.example:8080/ping", {}, "200, answered here", "counted:"),
        ("http://get.example./ping", {}, "200, answered here", "counted:"),
    ],
)  # fmt: skip
def test_what_would_happen(explained, url, options, answer, counted):
    lines = explained(url, **options)
    assert lines[1].startswith(f"  {answer}")
    assert lines[-1].startswith(f"  {counted}")


def test_telemetry_says_what_it_wants(explained):
    assert "  why: telemetry at /events takes POST only, not GET" in explained("http://get.example/events")
    assert "  why: telemetry rule /events: each JSON object of the body is an event" in explained(
        "http://get.example/events", "POST"
    )


@pytest.mark.parametrize(
    ("url", "headers", "says"),
    [
        ("", (), "expected a URL such as"),
        ("ftp://get.example/x", (), "expected a URL such as"),
        ("http:///x", (), "expected a URL such as"),
        ("http://[::1/x", (), "expected a URL such as"),
        ("http://get.example:x/", (), "expected a URL such as"),
        ("http://get.example/x", ["no colon"], "expected 'Name: value'"),
        ("http://get.example/x", [": value"], "expected 'Name: value'"),
    ],
)
def test_what_is_no_request(explained, url, headers, says):
    with pytest.raises(ValueError, match=says):
        explained(url, headers=headers)


def test_ipv6_hosts_keep_their_brackets(explained):
    assert explained("http://[::1]:8080/x")[0] == "GET http://[::1]/x"


def test_how_upstreams_stand_where_somebody_knows(explained):
    url = "http://docker.example/v2/acme/skates/manifests/1.0"
    assert [line for line in explained(url, health="{} is up".format) if "health" in line] == [
        "  health: ghcr.io is up",
        "  health: quay.io is up",
    ]
    assert not [line for line in explained(url) if "health" in line]
    # Of one that is alone, nobody asks how it is.
    assert not [line for line in explained("http://get.example/1/linux/x", health=str) if "health" in line]


def test_mirrors_are_all_named_in_order_and_how_they_stand(explained):
    assert explained("http://get.example/m/1.2/x.tgz", health="{} is up".format) == [
        "GET http://get.example/m/1.2/x.tgz",
        "  307 to https://github.com/acme/skates/releases/download/1.2/x.tgz",
        "  why: file: /m/{version}/{file} → https://github.com/acme/skates/releases/download/{version}/{file}, and while "
        "that is down https://dl.example/{version}/{file} (version=1.2, file=x.tgz), package skates",
        "  why: file: /{version}/{platform}/{file} → https://dl.example/{version}/{platform}/{file} matches as well, "
        "but has less literal text",
        "  order: https://github.com/acme/skates/releases/download/1.2/x.tgz, then https://dl.example/1.2/x.tgz",
        "  health: github.com is up",
        "  health: dl.example is up",
        "  counted: binary-download of skates, version 1.2, variables version=1.2 file=x.tgz",
    ]
    manifest = "/v2/acme/skates/manifests/1"
    order = f"  order: https://ghcr.io{manifest}, then https://quay.io{manifest}"
    assert order in explained(f"http://docker.example{manifest}")


def test_the_page_about_reach_is_explained_as_it_is_answered(explained):
    lines = explained("http://all.example/.well-known/waypost/reach?domain=get.example")
    assert lines[1:] == [
        "  200, answered here",
        "  why: answered the same on every host of this configuration, before its own rules",
        "  counted: nothing; this is no download",
    ]
