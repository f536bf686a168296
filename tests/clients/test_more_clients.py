"""buildah, containerd, dockerd and oras pull and build through a running Waypost: they ask in other ways than skopeo.

containerd and dockerd ask HEAD first, and need root. Each is started with folders and a socket of its own, and ended
by the process that was started.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients import registries
from tests.clients.daemons import DOCKER, ctr, ctr_pull, docker, go_without_tls
from tests.clients.pulls import HOST, Event, Waypost, in_order, native_blobs, pull, run, upstreams
from tests.clients.registries import Image, Registries

CONFIG = """
base_domain = "waypost.example"
owner = "acme"
[[package]]
type = "container"
name = "acme/rocket-skates"
domain = "127.0.0.1"
upstream = "reg1.example/acme/rocket-skates"
[[package]]
type = "container"
name = "short"
domain = "127.0.0.1"
upstream = "reg2.example/team/long-name"
[[collection]]
pattern = "team/*"
domain = "127.0.0.1"
upstream = "reg2.example"
"""
TWO_STAGES = """
FROM {address}/acme/rocket-skates:1.0 AS first
FROM {address}/short:2.0
COPY --from=first /skates /borrowed
"""
ORAS = """
import sys, oras.client
client = oras.client.OrasClient(insecure=True)
for file in client.pull(target=sys.argv[1], outdir=sys.argv[2]):
    print(file)
"""
SHEET = b"how to lace rocket skates"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    with registries.running(tmp_path_factory.mktemp("registries")) as started:
        yield started


@pytest.fixture(scope="module")
def images(upstream: Registries) -> dict[str, Image]:
    made = {name: registries.multi_arch(name) for name in ("skates", "long")}
    upstream.open.push("acme/rocket-skates", "1.0", made["skates"])
    upstream.guarded.push("team/long-name", "2.0", made["long"])
    for name, registry, repository in (
        ("first kit", upstream.open, "acme/rocket-skates"),
        ("second kit", upstream.guarded, "team/long-name"),
    ):
        made[name] = registries.multi_arch(name)
        registry.push(repository, "kit", made[name])
    made["single"] = registries.single_arch(registries.multi_arch("single"))
    upstream.guarded.push("team/long-name", "single", made["single"])
    made["sheet"] = registries.artifact("application/vnd.acme.sheet.v1+json", "text/plain", "sheet.txt", SHEET)
    upstream.guarded.push("team/sheet", "1.0", made["sheet"])
    return made


@pytest.fixture(scope="module")
def waypost(
    upstream: Registries, images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Waypost]:
    started = Waypost(tmp_path_factory.mktemp("waypost"), CONFIG + upstreams(upstream.connect))
    yield started
    started.stop()


def buildah(home: dict[str, str], *command: str) -> str:
    folder = home["HOME"]
    roots = ("--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs")
    return run(home, "buildah", *roots, *command).strip()


def head(image: Image, package: str, registry: str) -> Event:
    """What a check of a tag by HEAD leaves behind."""
    return {
        "kind": "manifest-head", "counted": False, "owner": "acme", "package": package, "domain": HOST,
        "digest": image.top, "upstream": registry, "status": 200,
    }  # fmt: skip


def headed(image: Image, package: str, registry: str, tag: str) -> list[Event]:
    """All that a cold pull leaves behind whose client resolves the tag by HEAD, and then fetches by digest."""
    return [head(image, package, registry), *pull(image, package, registry, tag)]


def redirected(events: list[Event]) -> list[Event]:
    """The same, where the registry redirects blobs to its store."""
    return [{**event, "status": 307} if event["kind"] == "blob-fetch" else event for event in events]


def test_buildah_pulls(waypost: Waypost, home: dict[str, str], images: dict[str, Image]) -> None:
    image = images["long"]
    name = f"{waypost.address}/short:2.0"
    buildah(home, "pull", "-q", "--tls-verify=false", name)
    (listed,) = json.loads(buildah(home, "images", "--json", "--digests"))
    assert listed["names"] == [name]
    assert listed["digest"] in (image.top, image.native)
    assert in_order(waypost.take(4)) == pull(image, "short", "reg2.example", "2.0")


def test_buildah_builds_from_two_registries(waypost: Waypost, home: dict[str, str], images: dict[str, Image]) -> None:
    context = Path(home["HOME"]) / "context"
    context.mkdir()
    (context / "Containerfile").write_text(TWO_STAGES.format(address=waypost.address))
    options = ("--isolation", "chroot", "--tls-verify=false", "--layers=false", "-q", "-t", "built")
    buildah(home, "bud", *options, str(context))
    target = Path(home["HOME"]) / "pushed"
    buildah(home, "push", "-q", "--disable-compression", "built", f"dir:{target}")
    assert b"skates" in content_of(target, "borrowed")
    assert b"long" in content_of(target, "skates")

    events = waypost.take(8)
    for package, registry, image, tag in (
        ("acme/rocket-skates", "reg1.example", images["skates"], "1.0"),
        ("short", "reg2.example", images["long"], "2.0"),
    ):
        expected = pull(image, package, registry, tag)
        own = in_order([event for event in events if event["package"] == package])
        assert own == (redirected(expected) if registry == "reg1.example" else expected)


def content_of(target: Path, name: str) -> bytes:
    """A file in the layers of an image in a folder; the last layer that has it wins."""
    manifest = json.loads((target / "manifest.json").read_bytes())
    layers = [(target / layer["digest"].removeprefix("sha256:")).read_bytes() for layer in manifest["layers"]]
    return layered(layers)[name]


def layered(layers: list[bytes]) -> dict[str, bytes]:
    """The files in layers, by path; the last layer that has one wins."""
    held: dict[str, bytes] = {}
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            held.update({one.name.strip("/"): file.read() for one in archive if (file := archive.extractfile(one))})
    return held


def test_containerd_pulls_and_checks(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], containerd: str
) -> None:
    image = images["skates"]
    name = f"{waypost.address}/acme/rocket-skates:1.0"
    ctr_pull(home, containerd, name)
    # REF TYPE DIGEST SIZE …
    (line,) = (line.split() for line in ctr(home, containerd, "images", "ls").splitlines() if line.startswith(name))
    assert line[2] == image.top
    held = ctr(home, containerd, "content", "ls", "-q").split()
    assert native_blobs(image) <= set(held)
    found = in_order(waypost.take(5))
    assert found == redirected(headed(image, "acme/rocket-skates", "reg1.example", "1.0"))

    ctr_pull(home, containerd, name)
    assert in_order(waypost.take(1)) == [head(image, "acme/rocket-skates", "reg1.example")]


def test_docker_pulls_and_checks(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], docker_host: str
) -> None:
    image = images["long"]
    name = f"{waypost.address}/short:2.0"
    docker(home, docker_host, "pull", "--quiet", name)
    (inspected,) = json.loads(docker(home, docker_host, "image", "inspect", name))
    assert inspected["RepoDigests"] == [f"{waypost.address}/short@{image.top}"]
    assert in_order(waypost.take(5)) == headed(image, "short", "reg2.example", "2.0")

    docker(home, docker_host, "pull", "--quiet", name)
    assert in_order(waypost.take(1)) == [head(image, "short", "reg2.example")]


def test_buildkit_builds_from_two_registries(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], docker_host: str, folder: Path
) -> None:
    """BuildKit, the one inside dockerd, resolves both tags by HEAD, and then fetches what they named."""
    context = Path(home["HOME"]) / "context"
    context.mkdir()
    # Images that no test before this one brought to this dockerd.
    text = TWO_STAGES.format(address=waypost.address).replace(":1.0", ":kit").replace(":2.0", ":kit")
    (context / "Dockerfile").write_text(text)
    go_without_tls(folder, docker_host, waypost.address)
    build = (DOCKER, "--host", docker_host, "build", "--quiet", "--no-cache", "-t", "built", str(context))
    run({**home, "DOCKER_BUILDKIT": "1"}, *build)
    saved = Path(home["HOME"]) / "built.tar"
    docker(home, docker_host, "save", "-o", str(saved), "built")
    with tarfile.open(saved) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))
        held = layered([archive.extractfile(name).read() for name in manifest["Layers"]])
    assert b"first kit" in held["borrowed"]
    assert b"second kit" in held["skates"]

    events = waypost.take(10)
    for package, registry, image in (
        ("acme/rocket-skates", "reg1.example", images["first kit"]),
        ("short", "reg2.example", images["second kit"]),
    ):
        expected = headed(image, package, registry, "kit")
        own = in_order([event for event in events if event["package"] == package])
        assert own == (redirected(expected) if registry == "reg1.example" else expected)


def test_docker_pulls_by_digest(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], docker_host: str
) -> None:
    """A digest that no tag was resolved to by this machine is its own version."""
    image = images["skates"]
    name = f"{waypost.address}/acme/rocket-skates@{image.top}"
    docker(home, docker_host, "pull", "--quiet", name)
    (inspected,) = json.loads(docker(home, docker_host, "image", "inspect", name))
    assert inspected["RepoDigests"] == [name]
    found = in_order(waypost.take(4))
    assert found == redirected(pull(image, "acme/rocket-skates", "reg1.example", None))


def test_docker_pulls_one_platform_from_a_collection(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], docker_host: str
) -> None:
    """The tag is an image without index: HEAD, then the image by digest."""
    image = images["single"]
    name = f"{waypost.address}/team/long-name:single"
    docker(home, docker_host, "pull", "--quiet", name)
    (inspected,) = json.loads(docker(home, docker_host, "image", "inspect", name))
    assert f"{waypost.address}/team/long-name@{image.top}" in inspected["RepoDigests"]
    checked, fetched, *blobs = in_order(waypost.take(4))
    assert [blob["kind"] for blob in blobs] == ["blob-fetch"] * 2
    assert checked == head(image, "team/long-name", "reg2.example")
    assert (fetched["digest"], fetched["artifact"], fetched["counted"]) == (image.top, "image", True)
    assert (fetched["version"], fetched["tag"]) == ("single", "single")
    # From the image's config, which knows no variant.
    assert fetched["platform"] == "/".join(image.platforms[image.top].split("/")[:2])


def test_oras_pulls_an_artifact(waypost: Waypost, home: dict[str, str], images: dict[str, Image]) -> None:
    """The Python client, in a process of its own."""
    target = Path(home["HOME"]) / "artifact"
    said = run(home, sys.executable, "-c", ORAS, f"{waypost.address}/team/sheet:1.0", str(target))
    assert said.split() == [str(target / "sheet.txt")]
    assert (target / "sheet.txt").read_bytes() == SHEET
    fetched, *blobs = waypost.take(2)
    assert (fetched["artifact"], fetched["counted"], fetched["version"]) == ("artifact", True, "1.0")
    assert [(blob["kind"], blob["counted"]) for blob in blobs] == [("blob-fetch", False)]
