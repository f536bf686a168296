"""What brew asks for, through Waypost, from a registry and from folders of files.

brew itself cannot be installed here. These are its requests, made by curl as brew makes them (Library/Homebrew/utils/
curl.rb: curl_args, curl_headers, curl_download; download_strategy.rb: CurlDownloadStrategy#fetch and
CurlGitHubPackagesDownloadStrategy), for bottles as it writes them (github_packages.rb: upload_bottle).
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from tests.clients import registries
from tests.clients.pulls import HOST, Waypost, run, upstreams
from tests.clients.registries import CONFIG, INDEX, LAYER, MANIFEST, Image, Registries
from tests.clients.trees import Tree, counted, download, package

USER_AGENT = "Homebrew/4.2.17 (Macintosh; arm64 Mac OS X 14.4) curl/8.4.0"
AUTHORIZATION = "Authorization: Bearer QQ=="
TAGS = ("arm64_sonoma", "x86_64_linux")
MERGED = "[count]\nmerge_seconds = 0\n"


class Brew:
    """curl, as brew runs it."""

    def __init__(self, folder: Path, *headers: str) -> None:
        self._folder = folder
        self._headers = [option for header in headers for option in ("--header", header)]

    def _curl(self, *options: str) -> str:
        return run(
            {"PATH": "/usr/bin:/bin", "HOME": str(self._folder)},
            "curl", "--disable", "--cookie", "/dev/null", "--globoff", "--show-error", "--user-agent", USER_AGENT,
            "--header", "Accept-Language: en", "--fail", "--silent", *options,
        )  # fmt: skip

    def download(self, url: str, *headers: str) -> bytes:
        """curl_download of a URL that needs no resolving: manifests and blobs of a registry."""
        to = self._folder / hashlib.sha256(url.encode()).hexdigest()
        more = [option for header in headers for option in ("--header", header)]
        self._curl("--location", *self._headers, *more, url, "--remote-time", "--output", str(to))
        return to.read_bytes()

    def fetch(self, url: str) -> bytes:
        """A plain file: where HEAD leads, and by which name; from there it is downloaded."""
        for method in ([], ["--request", "GET"]):
            said = self._curl("--location", "--head", *method, url, "--write-out", "\nled to %{url_effective}")
            if re.search(r"(?im)^content-disposition: ", said):
                break
        return self.download(said.rpartition("led to ")[2])


def bottle(formula: str, version: str, tag: str, rebuild: int = 0) -> tuple[str, bytes]:
    """Its file name and its bytes."""
    end = f".{rebuild}" if rebuild else ""
    return f"{formula}-{version}.{tag}.bottle{end}.tar.gz", f"{formula} {version} for {tag}".encode()


def uploaded(formula: str, title: str, version: str, rebuild: int = 0) -> Image:
    """The index, manifests and blobs that `brew pr-upload` makes of a formula's bottles."""
    image = Image()
    children = []
    end = f".{rebuild}" if rebuild else ""
    about = {
        "com.github.package.type": "homebrew_bottle",
        "org.opencontainers.image.title": title,
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.ref.name": version + (f"-{rebuild}" if rebuild else ""),
    }
    for tag in TAGS:
        name, content = bottle(formula, version, tag, rebuild)
        layer = {**image.blob(LAYER, content), "annotations": {"org.opencontainers.image.title": name}}
        config = image.blob(CONFIG, json.dumps({"architecture": "arm64", "os": "darwin", "of": name}).encode())
        own = {
            "org.opencontainers.image.ref.name": f"{version}.{tag}{end}",
            "sh.brew.bottle.digest": layer["digest"].removeprefix("sha256:"),
            "sh.brew.bottle.size": str(len(content)),
            "sh.brew.tab": "{}",
        }
        annotations = {
            **about,
            **own,
            "org.opencontainers.image.title": f"{title} {own['org.opencontainers.image.ref.name']}",
        }
        child = image.manifest(
            MANIFEST, {"schemaVersion": 2, "config": config, "layers": [layer], "annotations": annotations}
        )
        children.append({**child, "platform": {"architecture": "arm64", "os": "darwin"}, "annotations": own})
    image.manifest(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": children, "annotations": about})
    return image


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# On registries


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    """One wants a token, as GitHub's does; the other redirects blobs to a store, as that does, too."""
    with registries.running(tmp_path_factory.mktemp("registries")) as started:
        started.guarded.push("acme/tap/skates", "1.2_1-2", uploaded("skates", "acme/tap/skates", "1.2_1", 2))
        started.open.push("copies/skates", "1.2_1-2", uploaded("skates", "acme/tap/skates", "1.2_1", 2))
        started.open.push("homebrew/core/openssl/3", "3.3.1", uploaded("openssl@3", "openssl@3", "3.3.1"))
        yield started


TAPS = """
base_domain = "waypost.example"
owner = "acme"
[[package]]
type = "homebrew"
name = "skates"
domain = "{host}"
upstream = ["https://{first}/v2/acme/tap", "https://reg1.example/v2/copies"]
[[package]]
type = "homebrew"
name = "core"
domain = "{host}"
upstream = "https://reg1.example/v2/homebrew/core"
"""


@pytest.fixture
def taps(upstream: Registries, tmp_path: Path) -> Iterator[Waypost]:
    one = Waypost(tmp_path, TAPS.format(host=HOST, first="reg2.example") + upstreams(upstream.connect) + MERGED)
    yield one
    one.server.stop()


def url(waypost: Waypost, path: str) -> str:
    """What brew makes of https://ghcr.io/PATH under HOMEBREW_ARTIFACT_DOMAIN."""
    return f"http://{waypost.address}/v2/{path}"


@pytest.mark.parametrize("headers", [(), (AUTHORIZATION,)], ids=["without-token", "with-the-usual-one"])
def test_a_bottle_of_a_registry_counts_once(
    tmp_path: Path, taps: Waypost, upstream: Registries, headers: tuple[str, ...]
) -> None:
    _, content = bottle("skates", "1.2_1", "arm64_sonoma", 2)
    brew = Brew(tmp_path, *headers)
    manifest = brew.download(url(taps, "acme/tap/skates/manifests/1.2_1-2"), f"Accept: {INDEX}")
    assert json.loads(manifest)["annotations"]["org.opencontainers.image.version"] == "1.2_1"
    assert brew.download(url(taps, f"acme/tap/skates/blobs/sha256:{sha256(content)}")) == content
    index, blob = taps.take(2)
    assert (index["kind"], index["counted"], index["artifact"]) == ("index-fetch", False, "skates")
    assert (blob["kind"], blob["counted"], blob["package"], blob["artifact"]) == (
        "binary-download",
        True,
        "skates",
        "skates",
    )
    assert (blob["version"], blob["platform"], blob["variables"]) == ("1.2_1", "arm64_sonoma", {"rebuild": "2"})
    assert (blob["client"], blob["client_version"], blob["upstream"]) == ("homebrew", "4.2.17", "reg2.example")
    assert "Bearer QQ==" not in upstream.tokens.credentials
    taps.stop()


def test_every_worker_knows_what_a_blob_is(tmp_path: Path, taps: Waypost, upstream: Registries) -> None:
    brew = Brew(tmp_path, AUTHORIZATION)
    brew.download(url(taps, "homebrew/core/openssl/3/manifests/3.3.1"), f"Accept: {INDEX}")
    served = len(upstream.store.served)
    for tag in TAGS * 5:  # each a connection of its own, taken by either of two workers
        _, content = bottle("openssl@3", "3.3.1", tag)
        assert brew.download(url(taps, f"homebrew/core/openssl/3/blobs/sha256:{sha256(content)}")) == content
    events = taps.take(11)
    assert {(event["package"], event["artifact"], event["version"]) for event in events if event["counted"]} == {
        ("core", "openssl@3", "3.3.1")
    }
    assert sorted(event["platform"] for event in events if event["counted"]) == sorted(TAGS * 5)
    assert len(upstream.store.served) == served + 10  # from the store itself, and not through us
    taps.stop()


def test_a_blob_whose_manifest_went_by_elsewhere_counts_without_version(tmp_path: Path, taps: Waypost) -> None:
    _, content = bottle("openssl@3", "3.3.1", TAGS[0])
    Brew(tmp_path).download(url(taps, f"homebrew/core/openssl/3/blobs/sha256:{sha256(content)}"))
    (event,) = taps.take(1)
    assert (event["counted"], event["artifact"]) == (True, "openssl@3")
    assert (event.get("version"), event.get("platform")) == (None, None)
    taps.stop()


def test_while_the_first_registry_is_down_the_second_serves(tmp_path: Path, upstream: Registries) -> None:
    gone = upstreams({**upstream.connect, "reg9.example": f"http://{HOST}:{registries.free_port()}"})
    waypost = Waypost(tmp_path, TAPS.format(host=HOST, first="reg9.example") + gone)
    try:
        _, content = bottle("skates", "1.2_1", "x86_64_linux", 2)
        brew = Brew(tmp_path)
        brew.download(url(waypost, "acme/tap/skates/manifests/1.2_1-2"), f"Accept: {INDEX}")
        assert brew.download(url(waypost, f"acme/tap/skates/blobs/sha256:{sha256(content)}")) == content
        (event,) = [event for event in waypost.take(2) if event["counted"]]
        assert (event["artifact"], event["version"], event["upstream"]) == ("skates", "1.2_1", "reg1.example")
        waypost.stop()
    finally:
        waypost.server.stop()


def test_what_is_no_bottle_is_not_counted(taps: Waypost) -> None:
    for path, status in (
        ("acme/tap/skates/manifests/9", 404),
        (f"acme/tap/skates/blobs/sha256:{'0' * 64}", 404),
        ("acme/tap/%2e%2e/skates/manifests/1", 400),
        ("acme/other/skates/manifests/1.2_1-2", 404),
    ):
        assert taps.ask(f"/v2/{path}")[0] == status, path
    _, content = bottle("skates", "1.2_1", TAGS[0], 2)
    blob = f"/v2/acme/tap/skates/blobs/sha256:{sha256(content)}"
    assert taps.ask(blob, "HEAD")[0] == 200
    # As an image, with its config (C9): the layer alone is somebody's download.
    address = f"docker://{taps.address}/acme/tap/skates:1.2_1-2"
    inspect = ["skopeo", "inspect", "--tls-verify=false", "--raw", address]
    children = json.loads(subprocess.run(inspect, capture_output=True, check=True, timeout=60).stdout)["manifests"]
    child = json.loads(taps.ask(f"/v2/acme/tap/skates/manifests/{children[0]['digest']}", Accept=MANIFEST)[2])
    taps.ask(f"/v2/acme/tap/skates/blobs/{child['config']['digest']}")
    kinds = [(event["kind"], event["counted"]) for event in taps.take(3)]
    assert kinds == [("index-fetch", False), ("index-fetch", False), ("blob-fetch", False)]
    taps.stop()


# Plain files


class Disposed(SimpleHTTPRequestHandler):
    """As GitHub's releases are: somewhere else, and with a name."""

    def send_head(self):  # type: ignore[no-untyped-def]
        if not self.path.startswith("/storage/"):
            self.send_response(302)
            self.send_header("Location", f"/storage{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.path = self.path.removeprefix("/storage")
        return super().send_head()

    def end_headers(self) -> None:
        self.send_header("Content-Disposition", f"attachment; filename={self.path.rpartition('/')[2]}")
        super().end_headers()


SERVERS = pytest.mark.parametrize(
    "trees", [SimpleHTTPRequestHandler, Disposed], ids=["plain", "with-disposition"], indirect=True
)


@pytest.fixture
def trees(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Tree, Tree]]:
    handler = getattr(request, "param", SimpleHTTPRequestHandler)
    folder = tmp_path / "bottles"
    folder.mkdir()
    for tag in TAGS:
        name, content = bottle("skates", "1.2_1", tag, 2)
        (folder / name).write_bytes(content)
    (folder / "skates-1.2.tar.gz").write_bytes(b"source")
    both = Tree(folder, handler), Tree(folder, handler)
    yield both
    for tree in both:
        tree.close()


def declared(trees: tuple[Tree, Tree]) -> str:
    return upstreams({tree.authority: tree.url for tree in trees}) + MERGED


@pytest.fixture
def files(tmp_path: Path, trees: tuple[Tree, Tree]) -> Iterator[Waypost]:
    one = Waypost(tmp_path, package("homebrew", [tree.url for tree in trees], declared(trees)))
    yield one
    one.server.stop()


@SERVERS
def test_a_bottle_that_is_a_file_counts_once(tmp_path: Path, files: Waypost, trees: tuple[Tree, Tree]) -> None:
    """brew looks by HEAD and goes on from where that led, so that HEAD must lead nowhere."""
    name, content = bottle("skates", "1.2_1", "arm64_sonoma", 2)
    assert Brew(tmp_path).fetch(f"http://{files.address}/{name}") == content
    (event,) = files.take(1)
    assert counted([event]) == [download("skates", "1.2_1", "homebrew", trees[0], "arm64_sonoma")]
    assert not trees[1].asked
    files.stop()


class OneWorker(Waypost):
    workers = 1


def test_while_the_first_server_is_down_the_second_has_it(tmp_path: Path, trees: tuple[Tree, Tree]) -> None:
    waypost = OneWorker(tmp_path, package("homebrew", [tree.url for tree in trees], declared(trees)))
    try:
        trees[0].close()
        name, content = bottle("skates", "1.2_1", "x86_64_linux", 2)
        for _ in range(2):  # HEAD is where a worker learns that it is down: after two failures
            assert waypost.ask(f"/{name}", "HEAD")[0] == 200
        assert Brew(tmp_path).fetch(f"http://{waypost.address}/{name}") == content
        assert counted(waypost.take(1)) == [download("skates", "1.2_1", "homebrew", trees[1], "x86_64_linux")]
        waypost.stop()
    finally:
        waypost.server.stop()


SOURCE = """
base_domain = "waypost.example"
owner = "acme"
[[package]]
type = "file"
name = "skates"
domain = "{host}"
routes = [{{ path = "/{{version}}/skates.tar.gz", to = "{to}/skates-{{version}}.tar.gz" }}]
"""


@SERVERS
def test_a_formulas_source_counts_once(tmp_path: Path, trees: tuple[Tree, Tree]) -> None:
    waypost = Waypost(tmp_path, SOURCE.format(host=HOST, to=trees[0].url) + declared(trees))
    try:
        assert Brew(tmp_path).fetch(f"http://{waypost.address}/1.2/skates.tar.gz") == b"source"
        (event,) = waypost.take(1)
        assert (event["counted"], event["version"], event["client"]) == (True, "1.2", "homebrew")
        waypost.stop()
    finally:
        waypost.server.stop()


def test_where_we_may_not_look_brew_is_sent(tmp_path: Path, trees: tuple[Tree, Tree]) -> None:
    waypost = Waypost(tmp_path, SOURCE.format(host=HOST, to=trees[0].url) + MERGED)
    try:
        status, headers, _ = waypost.ask("/1.2/skates.tar.gz", "HEAD", **{"User-Agent": USER_AGENT})
        assert (status, headers["location"]) == (307, f"{trees[0].url}/skates-1.2.tar.gz")
        waypost.stop()
    finally:
        waypost.server.stop()
