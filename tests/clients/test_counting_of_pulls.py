"""What pulls count as, exactly: scripted clients at a running Waypost with two workers, so that facts of one pull
come from both and in any order. The rules are those of docs/what-we-count.md.
"""

from __future__ import annotations

import asyncio
import collections
import csv
import itertools
import json
import socket
import time
from collections.abc import Iterator

import pytest
from tests.clients import registries
from tests.clients.pulls import HOST, Event, Waypost, upstreams
from tests.clients.registries import CONFIG as IMAGE_CONFIG
from tests.clients.registries import INDEX, MANIFEST, Image, Registries
from tests.support.upstream import RawUpstream, Script, says, sized

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
name = "acme/cold"
domain = "127.0.0.1"
upstream = "reg3.example/acme/cold"
[[package]]
type = "container"
name = "acme/signed"
domain = "127.0.0.1"
upstream = "reg3.example/acme/signed"
[[collection]]
pattern = "team/*"
domain = "127.0.0.1"
upstream = "reg2.example"
"""
ACCEPT = f"{INDEX}, {MANIFEST}"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"


def signature(image: Image) -> tuple[str, Image]:
    """As cosign signs: the tag, and a manifest of an OCI image whose layer is the signature."""
    made = Image()
    layer = made.blob(SIMPLE_SIGNING, json.dumps({"critical": {"image": image.top}}).encode())
    config = made.blob(IMAGE_CONFIG, b'{"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": []}}')
    made.manifest(MANIFEST, {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]})
    return f"{image.top.replace(':', '-')}.sig", made


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    with registries.running(tmp_path_factory.mktemp("registries")) as started:
        yield started


@pytest.fixture(scope="module")
def images(upstream: Registries) -> dict[str, Image]:
    skates, long = registries.multi_arch("skates"), registries.multi_arch("long")
    made = {"skates": skates, "long": long, "single": registries.single_arch(skates)}
    upstream.open.push("acme/rocket-skates", "1.0", skates)
    upstream.open.push("acme/rocket-skates", "single", made["single"])
    upstream.open.push("acme/rocket-skates", *signature(skates))
    upstream.guarded.push("team/long-name", "2.0", long)
    upstream.guarded.push("team/private", "2.0", long)
    return made


class SlowRegistry:
    """Answers for acme/cold only after a while, so that questions meet, and remembers what it was asked.

    docker-registry 2.8 knows no referrers; this one does, for acme/signed.
    """

    SECONDS = 0.3

    def __init__(self, image: Image) -> None:
        manifests = {"1.0": image.top, **{digest: digest for digest in image.manifests}}
        scripts: dict[str, Script] = {
            f"/v2/acme/cold/manifests/{reference}": self._manifest(digest, *image.manifests[digest])
            for reference, digest in manifests.items()
        }
        for digest, content in image.blobs.items():
            scripts[f"/v2/acme/cold/blobs/{digest}"] = says(sized(content), keep=True)
        listed = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
        scripts["/v2/acme/signed/referrers/"] = says(sized(listed, b"Content-Type: " + INDEX.encode()), keep=True)
        scripts["/"] = says(sized(b"{}", status=b"404 Not Found"), keep=True)
        self._raw = RawUpstream(scripts)
        self.url = self._raw.url
        self.close = self._raw.close

    def _manifest(self, digest: str, media_type: str, body: bytes) -> Script:
        lines = (f"Content-Type: {media_type}".encode(), f"Docker-Content-Digest: {digest}".encode())

        def script(connection: socket.socket, head: bytes) -> bool:
            time.sleep(self.SECONDS)
            connection.sendall(sized(body, *lines))
            return True

        return script

    def asked(self, below: str) -> collections.Counter[str]:
        """`METHOD REST` of what was asked below a path → how often."""
        lines = (head.partition(b" HTTP/")[0].decode().split(" ", 1) for head in self._raw.heads)
        return collections.Counter(
            f"{method} {target.removeprefix(below)}" for method, target in lines if target.startswith(below)
        )


@pytest.fixture(scope="module")
def slow(images: dict[str, Image]) -> Iterator[SlowRegistry]:
    started = SlowRegistry(images["skates"])
    yield started
    started.close()


@pytest.fixture(scope="module")
def waypost(
    upstream: Registries, images: dict[str, Image], slow: SlowRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Waypost]:
    # The store of layers, too: it holds the configs, which name the platform of what has no index.
    store = upstream.store.url
    connect = {**upstream.connect, "reg3.example": slow.url, store.removeprefix("http://"): store}
    started = Waypost(tmp_path_factory.mktemp("waypost"), CONFIG + upstreams(connect))
    yield started
    started.stop()


class Machine:
    """Keeps one connection to Waypost and asks for manifests, as `agent`."""

    def __init__(self, waypost: Waypost, agent: str) -> None:
        self._port = waypost.server.port
        self._head = f"Host: {waypost.address}\r\nUser-Agent: {agent}\r\nAccept: {ACCEPT}\r\n\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, name: str, reference: str) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port)
        reader, writer = self._streams
        writer.write(f"GET /v2/{name}/manifests/{reference} HTTP/1.1\r\n{self._head}".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200 "), head
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return await reader.readexactly(int(length))

    async def hang_up(self) -> None:
        """The next question comes on a new connection, and so perhaps to another worker."""
        if self._streams is not None:
            self._streams[1].close()
            await self._streams[1].wait_closed()
            self._streams = None

    async def pull(self, name: str, tag: str, platform: str, hang_up: bool = False) -> None:
        """As skopeo and podman do: the tag, then this platform's image."""
        index = json.loads(await self.get(name, tag))
        if hang_up:
            await self.hang_up()
        await self.get(name, child(index, platform))


def child(index: Event, platform: str) -> str:
    for one in index["manifests"]:
        parts = (one["platform"].get(part) for part in ("os", "architecture", "variant"))
        if "/".join(filter(None, parts)) == platform:
            return str(one["digest"])
    raise AssertionError(f"no {platform}")


def counted(events: list[Event]) -> list[Event]:
    return [event for event in events if event["counted"]]


def packages(waypost: Waypost) -> dict[str, int]:
    """What `waypost stats` shows: package → downloads."""
    rows = list(csv.reader(waypost.server.command("stats", "--all", "--format", "csv").splitlines()))
    return {row[0]: int(row[1]) for row in rows[1:]}


def ask(waypost: Waypost, path: str, agent: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    status, _, body = waypost.ask(path, method, **{"User-Agent": agent, "Accept": ACCEPT, **headers})
    return status, body


SKATES = "/v2/acme/rocket-skates"
FIFTY = 50


def test_fifty_machines_behind_one_address_are_fifty_pulls(waypost: Waypost, images: dict[str, Image]) -> None:
    platforms = sorted(images["skates"].platforms.values())

    async def all_at_once() -> None:
        machines = [Machine(waypost, "fifty/1") for _ in range(FIFTY)]
        which = itertools.cycle(platforms)
        await asyncio.gather(
            *(machine.pull("acme/rocket-skates", "1.0", next(which), hang_up=True) for machine in machines)
        )
        await asyncio.gather(*(machine.hang_up() for machine in machines))

    asyncio.run(all_at_once())
    events = waypost.take(2 * FIFTY)
    pulls = counted(events)
    assert len(pulls) == FIFTY
    assert {pull["version"] for pull in pulls} == {"1.0"}
    assert {event["digest"] for event in pulls} == {images["skates"].top}
    assert collections.Counter(pull["platform"] for pull in pulls) == dict.fromkeys(platforms, FIFTY // 2)


def test_all_platforms_of_an_image_are_one_pull(waypost: Waypost, images: dict[str, Image]) -> None:
    """What `skopeo copy --all` asks."""
    image = images["skates"]
    for reference in ("1.0", *image.platforms):
        assert ask(waypost, f"{SKATES}/manifests/{reference}", "all/1")[0] == 200
    opener, *others = waypost.take(1 + len(image.platforms))
    assert (opener["counted"], opener["version"]) == (True, "1.0")
    assert opener["platform"] == next(iter(image.platforms.values()))
    assert [(event["counted"], event["rule"]) for event in others] == [(False, "C7")] * len(others)


def test_a_tag_without_index_is_one_pull(waypost: Waypost, images: dict[str, Image]) -> None:
    assert ask(waypost, f"{SKATES}/manifests/single", "single/1")[0] == 200
    (event,) = waypost.take(1)
    image = images["single"]
    assert (event["counted"], event["version"], event["artifact"]) == (True, "single", "image")
    assert event["digest"] == image.top
    # From the image's config, which knows no variant.
    assert event["platform"] == "/".join(image.platforms[image.top].split("/")[:2])


def test_a_pull_that_is_resolved_by_head_has_the_tag_as_its_version(waypost: Waypost, images: dict[str, Image]) -> None:
    """What docker and containerd ask of an image without index."""
    top = images["single"].top
    ask(waypost, f"{SKATES}/manifests/single", "headed/1", "HEAD")
    ask(waypost, f"{SKATES}/manifests/{top}", "headed/1")
    head, fetch = waypost.take(2)
    assert (head["kind"], head["counted"]) == ("manifest-head", False)
    assert (fetch["counted"], fetch["version"], fetch["tag"]) == (True, "single", "single")


def test_a_check_by_head_is_no_pull(waypost: Waypost) -> None:
    for _ in range(3):
        assert ask(waypost, f"{SKATES}/manifests/1.0", "checks/1", "HEAD") == (200, b"")
    assert [(event["kind"], event["counted"]) for event in waypost.take(3)] == [("manifest-head", False)] * 3


def test_signatures_and_questions_for_referrers_are_no_pulls(waypost: Waypost, images: dict[str, Image]) -> None:
    image = images["skates"]
    tag, _ = signature(image)
    assert ask(waypost, f"{SKATES}/manifests/{tag}", "cosign/1")[0] == 200
    # What has no signature: cosign asks all the same.
    assert ask(waypost, f"{SKATES}/manifests/{tag.replace('.sig', '.att')}", "cosign/1")[0] == 404
    for name, status in (("acme/signed", 200), ("acme/rocket-skates", 404)):
        assert ask(waypost, f"/v2/{name}/referrers/{image.top}?artifactType=x/y", "cosign/1")[0] == status
    (event,) = waypost.take(1)
    assert (event["artifact"], event["counted"], event["rule"]) == ("signature", False, "C9")
    assert "acme/signed" not in packages(waypost)


def test_a_collection_makes_a_package_of_what_was_pulled(waypost: Waypost, images: dict[str, Image]) -> None:
    before = packages(waypost)
    # Neither a name that its registry does not know, nor a tag, nor a check, nor a pull that is not to be recorded.
    for path, code in (
        ("/v2/team/nobody/manifests/2.0", "MANIFEST_UNKNOWN"),
        ("/v2/team/long-name/manifests/none", "MANIFEST_UNKNOWN"),
        ("/v2/other/long-name/manifests/2.0", "NAME_UNKNOWN"),
    ):
        status, body = ask(waypost, path, "collects/1")
        assert (status, json.loads(body)["errors"][0]["code"]) == (404, code)
    assert packages(waypost) == before

    async def pull() -> None:
        machine = Machine(waypost, "collects/1")
        await machine.pull("team/long-name", "2.0", "linux/amd64")
        await machine.hang_up()

    asyncio.run(pull())
    pulled, image = waypost.take(2)
    assert (pulled["package"], pulled["owner"], pulled["counted"]) == ("team/long-name", "acme", True)
    assert (image["counted"], image["rule"]) == (False, "C7")
    assert packages(waypost) == {**before, "team/long-name": 1}


@pytest.mark.parametrize("wish", ["DNT", "Sec-GPC"])
def test_who_asks_not_to_be_counted_is_not(waypost: Waypost, images: dict[str, Image], wish: str) -> None:
    """Neither in a package that is declared nor in one that a collection would make. `stop` finds what is too much."""
    before = packages(waypost)
    for name in ("acme/rocket-skates", "team/private"):
        image = images["skates" if name.startswith("acme") else "long"]
        for method, reference in itertools.product(("HEAD", "GET"), ("1.0" if name[0] == "a" else "2.0", image.native)):
            assert ask(waypost, f"/v2/{name}/manifests/{reference}", "quiet/1", method, **{wish: "1"})[0] == 200
    # A pull that is recorded, so that what came before it would be here by now.
    assert ask(waypost, f"{SKATES}/manifests/single", f"loud/{wish}")[0] == 200
    (event,) = waypost.take(1)
    assert event["user_agent"] == f"loud/{wish}"
    assert packages(waypost) == {**before, "acme/rocket-skates": before.get("acme/rocket-skates", 0) + 1}


PULLS = 5000
CONNECTIONS = 200


def test_five_thousand_cold_pulls_ask_upstream_once_per_worker(
    waypost: Waypost, images: dict[str, Image], slow: SlowRegistry
) -> None:
    image = images["skates"]

    async def machine() -> None:
        one = Machine(waypost, "cold/1")
        for _ in range(PULLS // CONNECTIONS):
            await one.pull("acme/cold", "1.0", image.platforms[image.native])
        await one.hang_up()

    async def all_at_once() -> None:
        await asyncio.gather(*(machine() for _ in range(CONNECTIONS)))

    asyncio.run(all_at_once())
    asked = slow.asked("/v2/acme/cold/")
    assert {"GET manifests/1.0", f"GET manifests/{image.native}"} <= set(asked)
    # We may ask once more, on our own account, for what the platform is.
    config = json.loads(image.manifests[image.native][1])["config"]["digest"]
    assert set(asked) <= {"GET manifests/1.0", f"GET manifests/{image.native}", f"GET blobs/{config}"}
    assert max(asked.values()) <= waypost.workers
    waypost.skip(2 * PULLS)
    assert packages(waypost)["acme/cold"] == PULLS
