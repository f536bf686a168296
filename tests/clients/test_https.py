"""Clients over https, as users have it: with a certificate that they trust, through a running Waypost.

Each trusts the test's authority in its own way, and no system store is touched.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients import registries
from tests.clients.indexes import StaticIndex, wheel
from tests.clients.pulls import HOST, Waypost, in_order, native_blobs, pull, run, upstreams
from tests.clients.registries import Image, Registries
from tests.support.certificate import Authority

CONFIG = """
base_domain = "waypost.example"
owner = "acme"
[tls]
mode = "files"
certificates = [{{ domain = "{host}", certificate = "{chain}", key = "{key}" }}]
[[package]]
type = "container"
name = "acme/rocket-skates"
domain = "{host}"
upstream = "reg1.example/acme/rocket-skates"
[[package]]
type = "container"
name = "guarded"
domain = "{host}"
upstream = "reg2.example/team/guarded"
[[package]]
type = "python"
name = "boots"
domain = "{host}"
upstream = "https://index.example/simple/"
proxy = true
[[package]]
type = "file"
name = "skates-cli"
domain = "{host}"
routes = [{{ path = "/get/{{version}}/skates.tgz", to = "https://dl.example/{{version}}" }}]
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    with registries.running(tmp_path_factory.mktemp("registries")) as started:
        yield started


@pytest.fixture(scope="module")
def images(upstream: Registries) -> dict[str, Image]:
    made = {name: registries.multi_arch(name) for name in ("skates", "guarded")}
    upstream.open.push("acme/rocket-skates", "1.0", made["skates"])
    upstream.guarded.push("team/guarded", "2.0", made["guarded"])
    return made


@pytest.fixture(scope="module")
def index() -> Iterator[StaticIndex]:
    started = StaticIndex()
    started.add("boots", *wheel("boots", "1.0"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def waypost(
    authority: Authority,
    upstream: Registries,
    images: dict[str, Image],
    index: StaticIndex,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Waypost]:
    chain, key = authority.issue(HOST)
    config = CONFIG.format(host=HOST, chain=chain, key=key)
    # The store is where a registry leads us: on loopback, only what is declared is asked.
    there = {"index.example": f"http://{index.address}", upstream.store.url.split("/")[2]: upstream.store.url}
    config += upstreams({**upstream.connect, **there})
    started = Waypost(tmp_path_factory.mktemp("waypost"), config, tls=True)
    yield started
    started.stop()


@pytest.fixture
def trusting(authority: Authority, tmp_path: Path) -> Path:
    """A folder of certificates that skopeo and podman are pointed at."""
    (tmp_path / "authority.crt").write_bytes(authority.file.read_bytes())
    return tmp_path


def test_skopeo_copies_and_is_never_led_to_http(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], upstream: Registries, trusting: Path
) -> None:
    """The registry redirects blobs to a store that is reached by http: they pass through us instead."""
    upstream.store.served.clear()
    image = images["skates"]
    folder = Path(home["HOME"]) / "copied"
    source = f"docker://{waypost.address}/acme/rocket-skates:1.0"
    run(home, "skopeo", "copy", f"--src-cert-dir={trusting}", source, f"dir:{folder}")
    assert (folder / "manifest.json").read_bytes() == image.manifests[image.native][1]
    for digest in native_blobs(image):
        assert (folder / digest.removeprefix("sha256:")).read_bytes() == image.blobs[digest]
    # 200, where by http it is 307; and the store was asked, by us.
    assert in_order(waypost.take(4)) == pull(image, "acme/rocket-skates", "reg1.example", "1.0")
    assert len(upstream.store.served) >= 2


def test_podman_pulls_an_image_whose_registry_wants_tokens(
    waypost: Waypost, home: dict[str, str], images: dict[str, Image], trusting: Path
) -> None:
    roots = ("--root", f"{home['HOME']}/root", "--runroot", f"{home['HOME']}/run", "--storage-driver", "vfs")
    name = f"{waypost.address}/guarded:2.0"
    run(home, "podman", *roots, "pull", "--quiet", f"--cert-dir={trusting}", name)
    assert in_order(waypost.take(4)) == pull(images["guarded"], "guarded", "reg2.example", "2.0")


def test_who_does_not_trust_the_authority_gets_nothing(waypost: Waypost, home: dict[str, str]) -> None:
    source = f"docker://{waypost.address}/acme/rocket-skates:1.0"
    said = run(home, "skopeo", "inspect", source, status=1)
    assert "certificate signed by unknown authority" in said


def test_pip_installs(
    waypost: Waypost, home: dict[str, str], authority: Authority, index: StaticIndex, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-cache-dir", "--no-deps", "--dest", str(tmp_path)]
    url = f"https://{waypost.address}/simple/"
    environment = {**home, "PIP_CONFIG_FILE": "/dev/null", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    run(environment, *command, f"--cert={authority.file}", f"--index-url={url}", "boots==1.0")
    name, data = wheel("boots", "1.0")
    assert (tmp_path / name).read_bytes() == data
    events = waypost.take(2)
    assert [(event["kind"], event["counted"], event["status"]) for event in events] == EXPECTED
    assert (events[1]["package"], events[1]["version"], events[1]["client"]) == ("boots", "1.0", "pip")


EXPECTED = [("index-fetch", False, 200), ("binary-download", True, 200)]


def test_curl_is_redirected(waypost: Waypost, home: dict[str, str], authority: Authority) -> None:
    url = f"https://{waypost.address}/get/1.2/skates.tgz"
    said = run(home, "curl", "-sS", "--cacert", str(authority.file), "-o", "/dev/null", "-w", "%{redirect_url}", url)
    assert said == "https://dl.example/1.2"
    (event,) = waypost.take(1)
    assert (event["kind"], event["counted"], event["version"]) == ("binary-download", True, "1.2")
