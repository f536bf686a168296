"""Conditional requests for manifests at a running Waypost: answered here, and no download."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients.pulls import HOST, Waypost, upstreams
from tests.support.server import until
from tests.support.upstream import RawUpstream, sized

TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG = f"""
base_domain = "waypost.example"
[[package]]
type = "container"
name = "acme/skates"
domain = "{HOST}"
upstream = "reg.example/acme/skates"
"""
PATH = "/v2/acme/skates/manifests/1.0"


class Registry:
    """Has one tag, whose manifest changes, and an ETag of its own kind."""

    def __init__(self) -> None:
        self.turn(1)
        self.raw = RawUpstream({"/": self._answer})

    def turn(self, number: int) -> None:
        self.body = json.dumps({"schemaVersion": 2, "mediaType": TYPE, "manifests": [], "n": number}).encode()
        self.digest = f"sha256:{hashlib.sha256(self.body).hexdigest()}"
        self.etag = f'"{self.digest}"'

    def _answer(self, connection: socket.socket, head: bytes) -> bool:
        lines = (f"Content-Type: {TYPE}", f"Docker-Content-Digest: {self.digest}", 'ETag: "of-the-registry"')
        answer = sized(self.body, *map(str.encode, lines))
        connection.sendall(answer.removesuffix(self.body) if head.startswith(b"HEAD") else answer)
        return True


class OneWorker(Waypost):
    """So that a tag moves at one moment."""

    workers = 1


@pytest.fixture
def registry() -> Iterator[Registry]:
    one = Registry()
    yield one
    one.raw.close()


@pytest.fixture
def waypost(tmp_path: Path, registry: Registry) -> Iterator[Waypost]:
    config = "[containers]\ntag_ttl = 1\n" + upstreams({"reg.example": registry.raw.url})
    one = OneWorker(tmp_path, CONFIG + config)
    yield one
    one.server.stop()


def ask(waypost: Waypost, known: str, method: str = "GET") -> tuple[int, str | None, str | None, bytes]:
    status, headers, body = waypost.ask(PATH, method, **{"If-None-Match": known})
    return status, headers.get("etag"), headers.get("docker-content-digest"), body


def test_who_has_a_manifest_already_is_told_so(waypost: Waypost, registry: Registry) -> None:
    old = registry.etag
    names = (registry.etag, registry.digest)
    assert ask(waypost, '"of-the-registry"') == (200, *names, registry.body)
    for known in (old, f'W/{old}, "other"', "*"):
        for method in ("GET", "HEAD"):
            assert ask(waypost, known, method) == (304, *names, b"")
    registry.turn(2)

    def moved() -> bool:
        status, etag, *_ = ask(waypost, old)
        assert (status, etag) in ((304, old), (200, registry.etag))
        return status == 200

    until(moved, what="the tag to move")
    assert ask(waypost, registry.etag)[0] == 304
    # Counted is what was sent: each of the two manifests once. Of what was not sent nothing is recorded.
    pulls = waypost.take(2)
    assert [(event["status"], event["counted"], event["digest"] == registry.digest) for event in pulls] == [
        (200, True, False),
        (200, True, True),
    ]
    waypost.server.stop()
    assert len(waypost.events()) == 2
    assert not [head for head in registry.raw.heads if b"none-match" in head.lower()]
