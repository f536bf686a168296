"""Presets: what `github:acme/skates` and the like stand for."""

from __future__ import annotations

from typing import Any

import pytest

from waypost.artifacts.file import FileSite, declare
from waypost.artifacts.kind import DeclarationError, HostPolicy, Package, Route
from waypost.artifacts.preset import LATEST, NAMES, PresetError, expand, shown
from waypost.routing.decision import Redirect
from waypost.routing.request import Request

GITHUB = "https://github.com/acme/skates"
GITLAB = "https://gitlab.com/acme/tools/skates"


@pytest.mark.parametrize(
    ("to", "path", "url"),
    [
        ("github:acme/skates", "/{version}/{file}", f"{GITHUB}/releases/download/{{version}}/{{file}}"),
        ("github:acme/skates@v{version}", "/{version}/{file}", f"{GITHUB}/releases/download/v{{version}}/{{file}}"),
        ("github:acme/skates", "/{+version}/{file}", f"{GITHUB}/releases/download/{{+version}}/{{file}}"),
        ("github:acme/skates@v1.2", "/{file}", f"{GITHUB}/releases/download/v1.2/{{file}}"),
        ("github:acme/skates", "/{file}", f"{GITHUB}/releases/latest/download/{{file}}"),
        ("github:acme/skates", "/skates.tgz", f"{GITHUB}/releases/latest/download/skates.tgz"),
        (
            "github:acme/skates@cli/v{version}",
            "/{version}/{platform}/skates-{platform}.tgz",
            f"{GITHUB}/releases/download/cli/v{{version}}/skates-{{platform}}.tgz",
        ),
        ("github:acme/skates/archive", "/{version}.tar.gz", f"{GITHUB}/archive/refs/tags/{{version}}.tar.gz"),
        ("github:acme/skates/archive@v{version}", "/{version}.zip", f"{GITHUB}/archive/refs/tags/v{{version}}.zip"),
        ("github:acme/archive", "/{file}", "https://github.com/acme/archive/releases/latest/download/{file}"),
        ("gitlab:acme/tools/skates", "/{version}/{file}", f"{GITLAB}/-/releases/{{version}}/downloads/{{file}}"),
        ("gitlab:acme/tools/skates", "/{version}/{+file}", f"{GITLAB}/-/releases/{{version}}/downloads/{{+file}}"),
        ("gitlab:acme/tools/skates", "/{file}", f"{GITLAB}/-/releases/permalink/latest/downloads/{{file}}"),
        (
            "gitlab:acme/tools/skates/-/archive@v{version}",
            "/{version}.tar.bz2",
            f"{GITLAB}/-/archive/v{{version}}/skates-v{{version}}.tar.bz2",
        ),
        (
            "gitlab:git.acme.example:8443/acme/skates",
            "/{file}",
            "https://git.acme.example:8443/acme/skates/-/releases/permalink/latest/downloads/{file}",
        ),
        # Two parts are a group and a project, dots or not.
        (
            "gitlab:acme.io/skates",
            "/{file}",
            "https://gitlab.com/acme.io/skates/-/releases/permalink/latest/downloads/{file}",
        ),
        ("s3:acme-dl", "/{version}/{file}", "https://acme-dl.s3.amazonaws.com/{version}/{file}"),
        ("s3:acme-dl@eu-west-1/a/b/", "/{+x}", "https://acme-dl.s3.eu-west-1.amazonaws.com/a/b/{+x}"),
        ("s3:acme-dl@cn-north-1", "/{x}", "https://acme-dl.s3.cn-north-1.amazonaws.com.cn/{x}"),
        ("gcs:dl.acme.example/a", "/{version}{/x}", "https://storage.googleapis.com/dl.acme.example/a/{version}{/x}"),
    ],
)
def test_what_a_preset_becomes(to: str, path: str, url: str) -> None:
    expanded = expand(to, path)
    assert expanded is not None
    assert expanded.url == url
    declare(Package(type="file", name="skates", routes=[Route(path, to)]))


def lead(to: str, path: str, asked: str) -> Redirect:
    rows = declare(Package(type="file", name="skates", routes=[Route(path, to)]))
    decision = FileSite(rows, HostPolicy("https://get.example")).decide(Request("GET", "get.example", asked, "a=b"))
    assert isinstance(decision, Redirect)
    return decision


def test_the_latest_release_is_the_forges_to_know() -> None:
    there = lead("github:acme/skates@v{version}", "/{version}/{file}", f"/{LATEST}/skates.tgz")
    assert there.location == f"{GITHUB}/releases/latest/download/skates.tgz?a=b"
    (fact,) = there.facts
    assert (fact.version, fact.upstream) == ("latest", "github.com")
    assert lead("github:acme/skates@v{version}", "/{version}/{file}", "/1.2/skates.tgz").location == (
        f"{GITHUB}/releases/download/v1.2/skates.tgz?a=b"
    )
    there = lead("gitlab:acme/tools/skates", "/{version}/{file}", "/latest/skates.tgz")
    assert there.location == f"{GITLAB}/-/releases/permalink/latest/downloads/skates.tgz?a=b"


def test_elsewhere_latest_is_a_version_like_others() -> None:
    for to, there in (
        ("s3:acme-dl", "https://acme-dl.s3.amazonaws.com/latest/skates.tgz?a=b"),
        ("https://dl.example/{version}/{file}", "https://dl.example/latest/skates.tgz?a=b"),
    ):
        assert lead(to, "/{version}/{file}", "/latest/skates.tgz").location == there
    there = lead("github:acme/skates/archive", "/{version}.tar.gz", "/latest.tar.gz").location
    assert there == f"{GITHUB}/archive/refs/tags/latest.tar.gz?a=b"


def test_mirrors_may_be_presets_and_urls() -> None:
    mirrors: Any = ["github:acme/skates", "https://dl.example/{version}/{file}", "gitlab:acme/tools/skates"]
    latest = lead(mirrors, "/{version}/{file}", "/latest/x")
    assert [one.location for one in (latest, *latest.others)] == [
        f"{GITHUB}/releases/latest/download/x?a=b",
        "https://dl.example/latest/x?a=b",
        f"{GITLAB}/-/releases/permalink/latest/downloads/x?a=b",
    ]


@pytest.mark.parametrize(
    ("to", "path", "says"),
    [
        ("github:", "/{file}", "github:OWNER/REPOSITORY"),
        ("github:acme", "/{file}", "github:OWNER/REPOSITORY"),
        ("github:acme/skates/boots", "/{file}", "github:OWNER/REPOSITORY"),
        ("github://acme/skates", "/{file}", "github:OWNER/REPOSITORY"),
        ("github:acme/{file}", "/{file}", "github:OWNER/REPOSITORY"),
        ("github:acme/skates@", "/{file}", "@TAG"),
        ("github:acme/skates@v{version}?", "/{version}/{file}", "@TAG"),
        ("github:acme/skates@v{version}", "/{file}", "binds no variable 'version'"),
        ("github:acme/..", "/{file}", "without '.' and '..'"),
        ("github:acme/skates", "/{version}/", "whose last part names the file"),
        ("github:acme/skates", "/{version}{/file}", "whose last part names the file"),
        ("github:acme/skates", "/{version}?file={file}", "a path without query"),
        ("github:acme/skates/archive", "/{version}", "ends in .tar.gz or .zip"),
        ("github:acme/skates/archive", "/{version}.tar.bz2", "ends in .tar.gz or .zip"),
        ("github:acme/skates/archive", "/latest.zip", "a path with {version}"),
        ("gitlab:skates", "/{file}", "gitlab:GROUP/PROJECT"),
        ("gitlab:acme/-/archive", "/{version}.zip", "gitlab:GROUP/PROJECT"),
        ("gitlab:git.acme.example:99999/acme/skates", "/{file}", "no such port"),
        ("s3:", "/{file}", "s3:BUCKET"),
        ("s3://acme-dl/x", "/{file}", "s3:BUCKET"),
        ("s3:dl.acme.example", "/{file}", "without dots"),
        ("s3:acme-dl@/x", "/{file}", "s3:BUCKET@REGION"),
        ("s3:acme-dl/../x", "/{file}", "without '.' and '..'"),
        ("s3:acme-dl/{x}", "/{file}", "s3:BUCKET"),
        ("gcs:Acme", "/{file}", "gcs:BUCKET"),
        ("gitbub:acme/skates", "/{file}", "Presets begin with github:, gitlab:, s3:, gcs:."),
        ("gs://acme", "/{file}", "starts with https:// or http://."),
    ],
)
def test_what_is_no_preset_is_refused_with_the_form_that_would_be(to: str, path: str, says: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare(Package(type="file", name="skates", routes=[Route(path, ["https://dl.example/", to])]))
    assert caught.value.key == "routes[0].to"
    assert caught.value.found == to
    assert says in caught.value.expected


def test_urls_are_no_presets() -> None:
    assert NAMES == ("github", "gitlab", "s3", "gcs")
    assert expand("https://github.com/acme/skates", "/{file}") is None
    assert expand("github", "/{file}") is None
    with pytest.raises(PresetError, match="OWNER/REPOSITORY"):
        expand("github:", "/{file}")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"{GITHUB}/releases/download/v1.2/x.tgz", ("github:acme/skates", "acme/skates", "v1.2", "x.tgz")),
        (f"{GITHUB}/releases/download/cli%2F1/x", ("github:acme/skates", "acme/skates", "cli/1", "x")),
        (f"{GITHUB}/releases/latest/download/x", ("github:acme/skates", "acme/skates", None, "x")),
        (f"{GITLAB}/-/releases/1/downloads/x", ("gitlab:acme/tools/skates", "acme/tools/skates", "1", "x")),
        (
            f"{GITLAB}/-/releases/permalink/latest/downloads/x",
            ("gitlab:acme/tools/skates", "acme/tools/skates", None, "x"),
        ),
        (f"{GITHUB}/releases/tag/v1.2", None),
        (f"{GITHUB}/archive/refs/tags/v1.2.zip", None),
        ("https://github.com.example/acme/skates/releases/download/v1.2/x", None),
    ],
)
def test_addresses_of_release_files_are_known(url: str, said: tuple[str, ...] | None) -> None:
    assert shown(url) == said
