"""Plain files, with curl and aria2: presets, mirrors, parts, variables of the query, and the page about reach.

GitHub and GitLab are stood in for: they answer the addresses that they document, by a redirect to their storage, and
for the latest release by one to that release. curl is told where those hosts are.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.clients.pulls import HOST, Event, Waypost, run, upstreams
from tests.support.certificate import Authority
from tests.support.origin import Origin
from tests.support.server import until

OLD, NEW, SOURCE = b"skates 1.2\n", b"skates 1.3\n", b"the source of skates 1.2\n"
LARGE = os.urandom(8 * 1024 * 1024)
FORGES = ("github.com", "gitlab.com", "storage.example")

GITHUB = "https://github.com/acme/skates"
GITLAB = "https://gitlab.com/acme/tools/skates"
FORGE_FILES: dict[str, bytes | str] = {
    "/acme/skates/releases/download/v1.2/skates.tgz": "https://storage.example/1.2?signature=a",
    "/acme/skates/releases/download/v1.3/skates.tgz": "https://storage.example/1.3?signature=b",
    "/acme/skates/releases/latest/download/skates.tgz": f"{GITHUB}/releases/download/v1.3/skates.tgz",
    "/acme/skates/archive/refs/tags/v1.2.tar.gz": "https://storage.example/source",
    "/acme/tools/skates/-/releases/1.2/downloads/skates.tgz": "https://storage.example/1.2?signature=a",
    "/acme/tools/skates/-/releases/permalink/latest/downloads/skates.tgz": "/acme/tools/skates/-/releases/1.2/downloads/skates.tgz",
    "/acme/tools/skates/-/archive/1.2/skates-1.2.zip": SOURCE,
    "/1.2?signature=a": OLD,
    "/1.3?signature=b": NEW,
    "/source": SOURCE,
}  # fmt: skip

CONFIG = """
base_domain = "waypost.example"
owner = "acme"
[mirrors]
probe_seconds = 1
[[package]]
type = "file"
name = "skates"
domain = "{host}"
routes = [
  {{ path = "/hub/{{version}}/{{file}}", to = "github:acme/skates@v{{version}}" }},
  {{ path = "/hub/source/{{version}}.tar.gz", to = "github:acme/skates/archive@v{{version}}" }},
  {{ path = "/lab/{{version}}/{{file}}", to = "gitlab:acme/tools/skates" }},
  {{ path = "/lab/source/{{version}}.zip", to = "gitlab:acme/tools/skates/-/archive" }},
  {{ path = "/{{version}}/{{platform}}/skates.bin", to = "{one}/large" }},
  {{ path = "/through/{{version}}/skates.bin", to = "{one}/large", proxy = true }},
  {{ path = "/query?version={{version}}&os={{platform}}", to = "{one}/{{version}}-{{platform}}" }},
  {{ path = "/mirrored/{{file}}", to = ["{one}/{{file}}", "{two}/{{file}}"] }},
  {{ path = "/fetched/{{file}}", to = ["{one}/{{file}}", "{two}/{{file}}"], proxy = true }},
]
"""


class OneWorker(Waypost):
    """So that what it found out about an upstream is known to whoever asks next."""

    workers = 1


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """What makes curl take the stand-in for all of FORGES."""
    authority = Authority(tmp_path_factory.mktemp("forge"))
    presented = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    presented.load_cert_chain(*authority.issue("forges", *FORGES))
    origin = Origin(FORGE_FILES, presented)
    leads = [argument for host in FORGES for argument in ("--connect-to", f"{host}:443:127.0.0.1:{origin.port}")]
    yield ("--cacert", str(authority.file), *leads)
    origin.close()


@pytest.fixture
def one() -> Iterator[Origin]:
    origin = Origin({"/large": LARGE, "/both": OLD, "/1.2-linux": OLD})
    yield origin
    origin.close()


@pytest.fixture
def two() -> Iterator[Origin]:
    origin = Origin({"/both": OLD, "/late": NEW})
    yield origin
    origin.close()


@pytest.fixture
def waypost(tmp_path: Path, one: Origin, two: Origin) -> Iterator[Waypost]:
    config = CONFIG.format(host=HOST, one=one.url, two=two.url)
    # Nothing on a private address is fetched unless it is declared.
    config += upstreams({place(origin): origin.url for origin in (one, two)})
    started = OneWorker(tmp_path, config)
    yield started
    started.stop()


def place(origin: Origin) -> str:
    return origin.url.removeprefix("http://")


def curl(home: dict[str, str], waypost: Waypost, path: str, *options: str) -> bytes:
    file = Path(home["HOME"]) / "fetched"
    run(home, "curl", "-q", "-fsSL", "-o", str(file), *options, f"http://{waypost.address}{path}")
    return file.read_bytes()


def said(event: Event) -> tuple[Any, ...]:
    return tuple(event.get(name) for name in ("counted", "package", "version", "platform", "upstream", "status"))


def test_curl_fetches_what_forges_publish(waypost: Waypost, home: dict[str, str], forge: tuple[str, ...]) -> None:
    for path, body, version, upstream in (
        ("/hub/1.2/skates.tgz", OLD, "1.2", "github.com"),
        ("/hub/latest/skates.tgz", NEW, "latest", "github.com"),
        ("/hub/source/1.2.tar.gz", SOURCE, "1.2", "github.com"),
        ("/lab/1.2/skates.tgz", OLD, "1.2", "gitlab.com"),
        ("/lab/latest/skates.tgz", OLD, "latest", "gitlab.com"),
        ("/lab/source/1.2.zip", SOURCE, "1.2", "gitlab.com"),
    ):
        assert curl(home, waypost, path, *forge) == body
        (event,) = waypost.take(1)
        assert said(event) == (True, "skates", version, None, upstream, 307)
        assert event["client"] == "curl"


@pytest.mark.parametrize("path", ["/1.2/linux/skates.bin", "/through/1.2/skates.bin"])
def test_parts_that_aria2_fetches_side_by_side_are_one_download(
    waypost: Waypost, home: dict[str, str], one: Origin, path: str
) -> None:
    url = f"http://{waypost.address}{path}"
    options = ("--no-conf", "--quiet", "--max-connection-per-server=4", "--split=4", "--min-split-size=1M")
    run(home, "aria2c", *options, "--dir", home["HOME"], "--out", "fetched", url)
    fetched = (Path(home["HOME"]) / "fetched").read_bytes()
    assert hashlib.sha256(fetched).digest() == hashlib.sha256(LARGE).digest()
    assert len({part for _, _, part in one.asked}) > 2  # else there would be nothing to see here
    # How often it asked us is its own business. One more request comes after all of them.
    assert waypost.ask("/mirrored/last")[0] == 307
    last = {"file": "last"}
    until(lambda: any(event.get("variables") == last for event in waypost.events()), what="the last event")
    *events, _ = waypost.take(len(waypost.events()))
    (counted,) = [event for event in events if event["counted"]]
    assert (counted["version"], counted["client"]) == ("1.2", "aria2")
    assert counted["upstream"] == place(one)
    assert len(events) > 1
    assert {event["package"] for event in events} == {"skates"}


def test_only_the_origin_says_whether_it_has_parts(waypost: Waypost) -> None:
    status, headers, _ = waypost.ask("/1.2/linux/skates.bin", Range="bytes=5-9")
    assert (status, headers.get("accept-ranges")) == (307, None)
    status, headers, body = waypost.ask("/through/1.2/skates.bin", Range="bytes=5-9")
    assert (status, headers["accept-ranges"], headers["content-range"]) == (206, "bytes", f"bytes 5-9/{len(LARGE)}")
    assert body == LARGE[5:10]
    assert [event["counted"] for event in waypost.take(2)] == [False, False]


def test_variables_of_the_query_are_recorded_and_carried(waypost: Waypost, home: dict[str, str], one: Origin) -> None:
    one.files["/1.2-linux?os=linux&campaign=spring&version=1.2"] = NEW
    assert curl(home, waypost, "/query?os=linux&campaign=spring&version=1.2") == NEW
    (event,) = waypost.take(1)
    assert said(event)[:4] == (True, "skates", "1.2", "linux")
    assert event["variables"] == {"os": "linux", "campaign": "spring", "version": "1.2", "platform": "linux"}


def test_a_mirror_serves_what_the_first_lacks_or_while_it_is_down(
    waypost: Waypost, home: dict[str, str], one: Origin, two: Origin
) -> None:
    first, second = place(one), place(two)
    assert curl(home, waypost, "/fetched/both") == OLD
    assert curl(home, waypost, "/fetched/late") == NEW
    assert [event["upstream"] for event in waypost.take(2)] == [first, second]
    assert curl(home, waypost, "/mirrored/both") == OLD
    assert waypost.take(1)[0]["upstream"] == first
    one.close()
    for _ in range(2):
        assert curl(home, waypost, "/fetched/both") == OLD
    waypost.skip(2)
    # By now it is known to be down, and clients are no longer sent there either.
    assert curl(home, waypost, "/mirrored/both") == OLD
    assert waypost.take(1)[0]["upstream"] == second
    shown = waypost.server.command("explain", f"http://{waypost.address}/mirrored/both")
    assert f"order: {one.url}/both, then {two.url}/both" in shown
    assert f"health: {first} is down" in shown
    assert f"health: {second} is up" in shown


def test_clients_are_sent_to_the_second_mirror_while_the_first_is_down(
    waypost: Waypost, home: dict[str, str], one: Origin, two: Origin
) -> None:
    """Nothing passes through us here: we have to ask by ourselves how mirrors are."""

    def leads() -> str:
        return waypost.ask("/mirrored/both", "HEAD")[1]["location"]

    assert leads() == f"{one.url}/both"
    one.close()
    until(lambda: leads() == f"{two.url}/both", what="the first mirror to be found down")
    assert curl(home, waypost, "/mirrored/both") == OLD
    assert waypost.take(1)[0]["upstream"] == place(two)


def test_where_clients_may_be_sent_is_told_to_everybody_and_not_recorded(
    waypost: Waypost, one: Origin, two: Origin
) -> None:
    path = "/.well-known/waypost/reach"
    status, headers, body = waypost.ask(path)
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "application/json", "no-store")
    hosts = ["github.com:443", "gitlab.com:443", place(one), place(two)]
    page = json.loads(body)
    assert page["types"] == {"file": {"hosts": sorted(hosts), "further": False}}
    assert waypost.ask(f"{path}?domain={HOST}")[2] == body
    assert "pixel" in json.loads(waypost.ask(f"{path}?domain=static.waypost.example")[2])["types"]
    assert waypost.ask(f"{path}?domain=elsewhere.example")[0] == 404
    status, headers, nothing = waypost.ask(path, "HEAD")
    assert (status, headers["content-length"], nothing) == (200, str(len(body)), b"")
