"""skopeo and podman pull through a running Waypost, from two real registries behind one domain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients import registries
from tests.clients.pulls import HOST, Waypost, in_order, native_blobs, pull, run, upstreams
from tests.clients.registries import Image, Registries
from tests.support.server import until

SKATES = """
[[package]]
type = "container"
name = "acme/rocket-skates"
domain = "127.0.0.1"
upstream = "{}/acme/rocket-skates"
"""
SHORT = """
[[package]]
type = "container"
name = "short"
domain = "127.0.0.1"
upstream = "docker pull reg2.example/team/long-name:2.0"
"""
# A collection, as Scarf manifests have it.
COLLECTION = {
    "type": "docker-v2",
    "domain": HOST,
    "owner": "acme",
    "pattern": "team/*",
    "rule-id": "1",
    "registry": "reg2.example",
}


def config(connect: dict[str, str], skates: str) -> str:
    head = 'base_domain = "waypost.example"\nowner = "acme"\nmanifests = ["manifest.json"]\n'
    return head + SKATES.format(skates) + SHORT + upstreams(connect)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    with registries.running(tmp_path_factory.mktemp("registries")) as started:
        yield started


@pytest.fixture(scope="module")
def images(upstream: Registries) -> dict[str, Image]:
    """What is where: an image on each registry, and on the second one also the first one's successor."""
    made = {name: registries.multi_arch(name) for name in ("skates", "long", "moved")}
    upstream.open.push("acme/rocket-skates", "1.0", made["skates"])
    for tag in ("1.0", "1.1"):
        upstream.guarded.push("acme/rocket-skates", tag, made["moved"])
    for tag in TAGS:
        upstream.guarded.push("team/long-name", tag, made["long"])
    return made


TAGS = ["2.0", "3.0", "3.1"]


@pytest.fixture(scope="module")
def waypost(
    upstream: Registries, images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Waypost]:
    folder = tmp_path_factory.mktemp("waypost")
    (folder / "manifest.json").write_text(json.dumps({"rules": [COLLECTION]}))
    started = Waypost(folder, config(upstream.connect, "reg1.example"))
    yield started
    started.stop()


def skopeo_copy(waypost: Waypost, home: dict[str, str], image: str, *options: str) -> Path:
    """Copies an image from Waypost to a folder, where each blob is a file named by its digest."""
    folder = Path(home["HOME"]) / "copied"
    source = f"docker://{waypost.address}/{image}"
    run(home, "skopeo", "copy", *options, "--src-tls-verify=false", source, f"dir:{folder}")
    return folder


def podman(home: dict[str, str], *command: str) -> str:
    folder = home["HOME"]
    roots = ("--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs")
    return run(home, "podman", *roots, *command).strip()


def assert_copied(folder: Path, image: Image) -> None:
    assert (folder / "manifest.json").read_bytes() == image.manifests[image.native][1]
    for digest in native_blobs(image):
        assert (folder / digest.removeprefix("sha256:")).read_bytes() == image.blobs[digest]


def test_skopeo_copies_from_the_anonymous_registry(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], upstream: Registries
) -> None:
    upstream.store.served.clear()
    image = images["skates"]
    assert_copied(skopeo_copy(waypost, home, "acme/rocket-skates:1.0"), image)
    expected = pull(image, "acme/rocket-skates", "reg1.example", "1.0")
    # The registry redirects blobs to its store, and so do we: layers pass us by.
    for event in expected[2:]:
        event["status"] = 307
    assert in_order(waypost.take(4)) == expected
    assert len(upstream.store.served) == 2


def test_skopeo_copies_a_renamed_image_from_the_registry_that_wants_tokens(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], upstream: Registries
) -> None:
    image = images["long"]
    assert_copied(skopeo_copy(waypost, home, "short:2.0"), image)
    assert in_order(waypost.take(4)) == pull(image, "short", "reg2.example", "2.0")
    asked = {tuple(sorted(one.items())) for one in upstream.tokens.asked}
    assert asked == {(("scope", "repository:team/long-name:pull"), ("service", "reg2.example"))}
    assert upstream.tokens.credentials == []


def test_skopeo_copies_all_platforms_in_one_pull(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image]
) -> None:
    image = images["long"]
    folder = skopeo_copy(waypost, home, "short:2.0", "--all")
    assert (folder / "manifest.json").read_bytes() == image.manifests[image.top][1]
    events = waypost.take(3 + len(image.blobs))
    fetched = [event["digest"] for event in events if event["kind"] == "manifest-fetch"]
    assert fetched[0] == image.top
    assert set(fetched[1:]) == set(image.platforms)
    assert {event["digest"] for event in events if event["kind"] == "blob-fetch"} == set(image.blobs)
    assert [event["counted"] for event in events].count(True) == 1


def test_skopeo_inspects_and_lists_tags(waypost: Waypost, home: dict[str, str], images: dict[str, Image]) -> None:
    told = json.loads(run(home, "skopeo", "inspect", "--tls-verify=false", f"docker://{waypost.address}/short:2.0"))
    assert told["Digest"] == images["long"].top
    assert sorted(told["RepoTags"]) == TAGS
    assert [event["counted"] for event in waypost.take(3)].count(True) == 1


@pytest.mark.parametrize(
    ("name", "made", "registry"),
    [("acme/rocket-skates:1.0", "skates", "reg1.example"), ("short:2.0", "long", "reg2.example")],
)
def test_podman_pulls(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], name: str, made: str, registry: str
) -> None:
    podman(home, "pull", "-q", "--tls-verify=false", f"{waypost.address}/{name}")
    image = images[made]
    (inspected,) = json.loads(podman(home, "image", "inspect", f"{waypost.address}/{name}"))
    assert {digest.partition("@")[2] for digest in inspected["RepoDigests"]} == {image.top, image.native}
    package, _, tag = name.partition(":")
    expected = pull(image, package, registry, tag)
    if registry == "reg1.example":
        for event in expected[2:]:
            event["status"] = 307
    assert in_order(waypost.take(4)) == expected


def test_podman_pulls_by_digest(waypost: Waypost, home: dict[str, str], images: dict[str, Image]) -> None:
    image = images["long"]
    podman(home, "pull", "-q", "--tls-verify=false", f"{waypost.address}/short@{image.top}")
    assert in_order(waypost.take(4)) == pull(image, "short", "reg2.example", None)


def test_a_collection_serves_what_nobody_declared(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image]
) -> None:
    assert_copied(skopeo_copy(waypost, home, "team/long-name:2.0"), images["long"])
    assert in_order(waypost.take(4)) == pull(images["long"], "team/long-name", "reg2.example", "2.0")


def test_one_line_moves_an_image_to_another_registry(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], upstream: Registries
) -> None:
    def moved() -> bool:
        return b"1.1" in waypost.ask("/v2/acme/rocket-skates/tags/list")[2]

    assert not moved()
    waypost.server.configure(config(upstream.connect, "reg2.example"))
    until(lambda: all(moved() for _ in range(20)), what="the edit in both workers")
    image = images["moved"]
    assert_copied(skopeo_copy(waypost, home, "acme/rocket-skates:1.0"), image)
    assert in_order(waypost.take(4)) == pull(image, "acme/rocket-skates", "reg2.example", "1.0")


def test_head_keeps_length_and_digest_and_never_counts(waypost: Waypost, images: dict[str, Image]) -> None:
    image = images["long"]
    status, headers, _ = waypost.ask("/v2/short/manifests/2.0", "HEAD", Accept=registries.INDEX)
    assert (status, headers["docker-content-digest"]) == (200, image.top)
    assert headers["content-length"] == str(len(image.manifests[image.top][1]))
    (event,) = waypost.take(1)
    assert (event["kind"], event["digest"], event["counted"]) == ("manifest-head", image.top, False)


def test_a_blob_is_resumed(waypost: Waypost, images: dict[str, Image]) -> None:
    digest, content = max(images["long"].blobs.items(), key=lambda pair: len(pair[1]))
    status, headers, body = waypost.ask(f"/v2/short/blobs/{digest}", Range="bytes=1000-")
    assert (status, body) == (206, content[1000:])
    assert headers["content-range"] == f"bytes 1000-{len(content) - 1}/{len(content)}"
    status, headers, _ = waypost.ask(f"/v2/short/blobs/{digest}", "HEAD")
    assert (status, headers["content-length"]) == (200, str(len(content)))
    (event,) = waypost.take(1)
    assert (event["kind"], event["digest"], event["counted"]) == ("blob-fetch", digest, False)


def test_tags_are_listed_under_our_name(waypost: Waypost) -> None:
    status, _, body = waypost.ask("/v2/short/tags/list?n=100")
    listed = json.loads(body)
    assert (status, listed["name"], sorted(listed["tags"])) == (200, "short", TAGS)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/short/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("/v2/nobody/manifests/1.0", 404, "NAME_UNKNOWN"),
        (f"/v2/short/blobs/sha256:{'0' * 64}", 404, "BLOB_UNKNOWN"),
        ("/v2/_catalog", 404, "UNSUPPORTED"),
    ],
)
def test_what_is_not_there(waypost: Waypost, path: str, status: int, code: str) -> None:
    found, headers, body = waypost.ask(path, Accept=registries.INDEX)
    assert (found, json.loads(body)["errors"][0]["code"]) == (status, code)
    assert "www-authenticate" not in headers
    assert b"long-name" not in body


def test_pushing_is_refused_with_a_reason(waypost: Waypost, home: dict[str, str], images: dict[str, Image]) -> None:
    folder = skopeo_copy(waypost, home, "short:2.0")
    target = f"docker://{waypost.address}/short:new"
    said = run(home, "skopeo", "copy", "--dest-tls-verify=false", f"dir:{folder}", target, status=1)
    assert "not pushed to it" in said or "405" in said
    waypost.take(4)


def test_a_registry_that_is_down_is_a_502_that_names_it(waypost: Waypost, upstream: Registries) -> None:
    """The last test here: nothing brings the registry back."""
    upstream.guarded.stop()
    status, _, body = waypost.ask("/v2/short/manifests/never-asked-before")
    assert status == 502
    assert b"reg2.example" in body
