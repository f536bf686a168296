"""How many bytes an event says were offered: a running Waypost in front of an upstream that does as it is told."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Iterator

import pytest
from tests.clients.pulls import HOST, Event, Waypost, upstreams
from tests.support.upstream import RawUpstream, says, sized

MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
LAYER = bytes(range(256)) * 40
DIGEST = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
STORED = "sha256:" + "b" * 64
CHUNKED = "sha256:" + "c" * 64
BLOBS = "/v2/acme/skates/blobs"
CONFIG = f"""
base_domain = "waypost.example"
owner = "acme"
[[package]]
type = "container"
name = "acme/skates"
domain = "{HOST}"
upstream = "reg.example/acme/skates"
[[package]]
type = "file"
name = "cli"
domain = "get.example"
routes = [
    {{ path = "/here", to = "https://reg.example/file", proxy = true }},
    {{ path = "/there", to = "https://reg.example/file" }},
]
"""


def layer(connection: socket.socket, head: bytes) -> bool:
    """Whole, or from where it is asked on (RFC 9110 section 14.1.2)."""
    asked = re.search(rb"(?i)\r\nrange: bytes=(\d+)-\r\n", head)
    if asked is None:
        connection.sendall(sized(LAYER))
    else:
        part = LAYER[int(asked[1]) :]
        place = b"Content-Range: bytes %d-%d/%d" % (int(asked[1]), len(LAYER) - 1, len(LAYER))
        connection.sendall(sized(part, place, status=b"206 Partial Content"))
    return True


def manifest(connection: socket.socket, head: bytes) -> bool:
    answer = sized(MANIFEST.encode())
    connection.sendall(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.startswith(b"HEAD") else answer)
    return True


@pytest.fixture(scope="module")
def waypost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waypost]:
    moved = sized(b"", b"Location: https://store.example/blob", status=b"307 Temporary Redirect")
    upstream = RawUpstream(
        {
            "/v2/acme/skates/manifests/": manifest,
            f"{BLOBS}/{DIGEST}": layer,
            f"{BLOBS}/{STORED}": says(moved, keep=True),
            f"{BLOBS}/{CHUNKED}": says(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", keep=True
            ),
            "/file": says(sized(b"x" * 77), keep=True),
        }
    )
    one = Waypost(tmp_path_factory.mktemp("waypost"), CONFIG + upstreams({"reg.example": upstream.url}))
    yield one
    one.server.stop()
    upstream.close()


def told(event: Event) -> tuple[object, ...]:
    return event["kind"], event["status"], event["partial"], event.get("size"), event["counted"]


@pytest.mark.parametrize(
    ("host", "path", "headers", "expected"),
    [
        (HOST, "/v2/acme/skates/manifests/1", {}, ("manifest-fetch", 200, False, len(MANIFEST), True)),
        (HOST, f"{BLOBS}/{DIGEST}", {}, ("blob-fetch", 200, False, len(LAYER), False)),
        (HOST, f"{BLOBS}/{DIGEST}", {"Range": "bytes=10000-"}, ("blob-fetch", 206, True, 240, False)),
        (HOST, f"{BLOBS}/{STORED}", {}, ("blob-fetch", 307, False, None, False)),
        (HOST, f"{BLOBS}/{CHUNKED}", {}, ("blob-fetch", 200, False, None, False)),
        ("get.example", "/here", {}, ("binary-download", 200, False, 77, True)),
        ("get.example", "/there", {}, ("binary-download", 307, False, None, True)),
    ],
)
def test_an_event_says_how_much_was_offered(
    waypost: Waypost, host: str, path: str, headers: dict[str, str], expected: tuple[object, ...]
) -> None:
    waypost.server.get(host, path, headers=headers)
    assert [told(event) for event in waypost.take(1)] == [expected]


def test_a_head_offers_nothing(waypost: Waypost) -> None:
    waypost.server.get(HOST, "/v2/acme/skates/manifests/2", "HEAD")
    assert [told(event) for event in waypost.take(1)] == [("manifest-head", 200, False, None, False)]


def test_people_see_it(waypost: Waypost) -> None:
    waypost.server.get(HOST, f"{BLOBS}/{DIGEST}", headers={"Range": "bytes=10000-"})
    waypost.take(1)
    event = json.loads(waypost.server.command("events").splitlines()[-1])
    assert (event["kind"], event["partial"], event["status"], event["size"]) == ("blob-fetch", True, 206, 240)
    head, *_, line = waypost.server.command("events", "--format", "csv").splitlines()
    assert (head.split(",")[-2:], line.split(",")[-2:]) == (["partial", "size"], ["true", "240"])
