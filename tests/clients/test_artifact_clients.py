"""The oras and crane command-line clients and helm: what scripts/clients fetches, pulling through a running Waypost.

oras and helm are built on one library, and ask for a tag by GET without ping; crane asks like podman.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients import registries
from tests.clients.pulls import HOST, Event, Waypost, essence, in_order, native_blobs, pull, run, upstreams
from tests.clients.registries import Image, Registries

CONFIG = """
base_domain = "waypost.example"
owner = "acme"
[[package]]
type = "container"
name = "acme/sheet"
domain = "127.0.0.1"
upstream = "reg1.example/acme/sheet"
[[package]]
type = "container"
name = "charts/skates"
domain = "127.0.0.1"
upstream = "reg2.example/team/skates-chart"
[[package]]
type = "container"
name = "acme/rocket-skates"
domain = "127.0.0.1"
upstream = "reg2.example/team/long-name"
"""
SHEET = b"how to lace rocket skates"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    with registries.running(tmp_path_factory.mktemp("registries")) as started:
        yield started


@pytest.fixture(scope="module")
def images(upstream: Registries) -> dict[str, Image]:
    made = {
        "image": registries.multi_arch("skates"),
        "sheet": registries.artifact("application/vnd.acme.sheet.v1+json", "text/plain", "sheet.txt", SHEET),
        "chart": registries.chart(),
    }
    upstream.open.push("acme/sheet", "1.0", made["sheet"])
    upstream.guarded.push("team/long-name", "2.0", made["image"])
    for tag in ("1.1.0", "1.2.0"):
        upstream.guarded.push("team/skates-chart", tag, made["chart"])
    return made


@pytest.fixture(scope="module")
def waypost(
    upstream: Registries, images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Waypost]:
    started = Waypost(tmp_path_factory.mktemp("waypost"), CONFIG + upstreams(upstream.connect))
    yield started
    started.stop()


def artifact_pull(
    image: Image, package: str, registry: str, tag: str, kind: str, blobs: tuple[str, ...]
) -> list[Event]:
    """What the pull of something without index leaves behind: its manifest, counted, and those blobs of it."""
    same = {"owner": "acme", "package": package, "domain": HOST, "upstream": registry}
    manifest = {"kind": "manifest-fetch", "counted": True, "digest": image.top, "artifact": kind, "status": 200}
    status = 307 if registry == "reg1.example" else 200
    fetched = [{**same, "kind": "blob-fetch", "counted": False, "digest": one, "status": status} for one in blobs]
    return [{**same, **manifest, "version": tag, "tag": tag}, *sorted(fetched, key=lambda event: str(event["digest"]))]


def parts(image: Image) -> tuple[str, str]:
    """(config, layer)."""
    manifest = json.loads(image.manifests[image.top][1])
    return manifest["config"]["digest"], manifest["layers"][0]["digest"]


def digest_said(said: str) -> str:
    found = re.search(r"^Digest: (\S+)$", said, re.MULTILINE)
    assert found, said
    return found[1]


def test_oras_pulls_an_artifact(waypost: Waypost, home: dict[str, str], images: dict[str, Image], oras: str) -> None:
    image = images["sheet"]
    target = Path(home["HOME"]) / "artifact"
    said = run(home, oras, "pull", "--plain-http", "-o", str(target), f"{waypost.address}/acme/sheet:1.0")
    assert digest_said(said) == image.top
    assert (target / "sheet.txt").read_bytes() == SHEET
    _, layer = parts(image)
    expected = artifact_pull(image, "acme/sheet", "reg1.example", "1.0", "artifact", (layer,))
    assert in_order(waypost.take(2)) == expected


def test_oras_asks_for_digest_tags_and_manifest(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], oras: str
) -> None:
    name = f"{waypost.address}/acme/rocket-skates"
    assert run(home, oras, "resolve", "--plain-http", f"{name}:2.0").strip() == images["image"].top
    (event,) = waypost.take(1)
    assert (event["kind"], event["counted"], event["digest"]) == ("manifest-head", False, images["image"].top)
    assert run(home, oras, "repo", "tags", "--plain-http", name).split() == ["2.0"]
    fetched = run(home, oras, "manifest", "fetch", "--plain-http", f"{name}@{images['image'].native}")
    assert fetched.encode() == images["image"].manifests[images["image"].native][1]
    (event,) = waypost.take(1)
    assert (event["kind"], event["counted"], event["artifact"]) == ("manifest-fetch", True, "image")
    assert event["platform"] == "linux/amd64" or event["platform"].startswith("linux/arm64")


def test_helm_pulls_a_chart(waypost: Waypost, home: dict[str, str], images: dict[str, Image], helm: str) -> None:
    """Under another name than at its registry, which wants tokens."""
    image = images["chart"]
    name = f"oci://{waypost.address}/charts/skates"
    command = (helm, "pull", name, "--version", "1.2.0", "--plain-http", "-d", home["HOME"])
    said = run(home, "sh", "-c", 'exec "$@" 2>&1', "sh", *command)  # helm 4 says it on standard error
    assert digest_said(said) == image.top
    assert (Path(home["HOME"]) / "skates-1.2.0.tgz").read_bytes() == image.blobs[parts(image)[1]]
    expected = artifact_pull(image, "charts/skates", "reg2.example", "1.2.0", "chart", parts(image))
    assert in_order(waypost.take(3)) == expected


def test_helm_finds_the_latest_chart(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], helm: str
) -> None:
    """Without a version it asks for the list of tags first, which is no event."""
    image = images["chart"]
    shown = run(home, helm, "show", "chart", f"oci://{waypost.address}/charts/skates", "--plain-http")
    assert "version: 1.2.0" in shown
    first, *_ = events = in_order(waypost.take(3))
    assert first["counted"]
    assert events == artifact_pull(image, "charts/skates", "reg2.example", "1.2.0", "chart", parts(image))


@pytest.mark.long
def test_crane_pulls(waypost: Waypost, home: dict[str, str], images: dict[str, Image], crane: str) -> None:
    image = images["image"]
    name = f"{waypost.address}/acme/rocket-skates"
    target = Path(home["HOME"]) / "pulled"
    run(home, crane, "pull", "--format", "oci", "--platform", image.platforms[image.native], f"{name}:2.0", str(target))
    for digest in native_blobs(image):
        held = target / "blobs/sha256" / digest.removeprefix("sha256:")
        assert held.read_bytes() == image.blobs[digest]
    assert in_order(waypost.take(4)) == pull(image, "acme/rocket-skates", "reg2.example", "2.0")


@pytest.mark.long
def test_crane_asks_for_digest_and_tags(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], crane: str
) -> None:
    name = f"{waypost.address}/acme/rocket-skates"
    assert run(home, crane, "digest", f"{name}:2.0").strip() == images["image"].top
    (event,) = waypost.take(1)
    assert essence(event)["kind"] == "manifest-head"
    assert not event["counted"]
    assert run(home, crane, "ls", name).split() == ["2.0"]
