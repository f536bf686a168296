"""A registry that goes down and comes back: no user pays to find out, and people can see it."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from tests.support.server import WaypostServer, until
from tests.support.upstream import RawUpstream, sized

LAYER = b"a layer"
DIGEST = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
BLOB = f"/v2/acme/skates/blobs/{DIGEST}"
CONFIG = """
base_domain = "waypost.example"
[[package]]
type = "container"
name = "acme/skates"
domain = "d.example"
upstream = ["first.example/acme/skates", "second.example/acme/skates"]
"""


class Registry:
    """Serves the layer, and /v2/ as one that wants tokens; nothing but 503 while it is down."""

    def __init__(self) -> None:
        self.down = False
        self._raw = RawUpstream({"/": self._answer})
        self.url = self._raw.url
        self.close = self._raw.close

    def asked(self) -> list[str]:
        """Targets of the requests since this was last called."""
        heads, self._raw.heads = self._raw.heads, []
        return [head.split(b" ")[1].decode() for head in heads]

    def _answer(self, connection: socket.socket, head: bytes) -> bool:
        if self.down:
            answer = sized(b"", status=b"503 Service Unavailable")
        elif head.startswith(b"GET /v2/ "):
            answer = sized(b"", b'WWW-Authenticate: Bearer realm="https://x/"', status=b"401 Unauthorized")
        else:
            answer = sized(LAYER)
        connection.sendall(answer)
        return True


@pytest.fixture
def registries() -> Iterator[tuple[Registry, Registry]]:
    both = Registry(), Registry()
    yield both
    for one in both:
        one.close()


@pytest.fixture
def server(tmp_path, registries: tuple[Registry, Registry]) -> Iterator[WaypostServer]:
    names = ("first.example", "second.example")
    lines = "".join(
        f'[[upstream]]\nhost = "{name}"\nconnect = "{one.url}"\n' for name, one in zip(names, registries, strict=True)
    )
    one = WaypostServer(tmp_path, CONFIG + lines, workers=1).start()
    yield one
    one.stop()


def pull(server: WaypostServer) -> None:
    status, _, body = server.get("d.example", BLOB)
    assert (status, body) == (200, LAYER)


def health(server: WaypostServer) -> list[str]:
    lines = server.command("explain", f"http://d.example{BLOB}").splitlines()
    return [line.strip() for line in lines if "health:" in line]


def up(server: WaypostServer) -> dict[str, float]:
    text = server.console("/metrics")[1].decode()
    lines = [line for line in text.splitlines() if line.startswith("waypost_upstream_up{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def test_a_registry_goes_down_and_comes_back(server: WaypostServer, registries: tuple[Registry, Registry]) -> None:
    first, second = registries
    assert health(server) == [
        "health: first.example has not been asked for anything yet",
        "health: second.example has not been asked for anything yet",
    ]
    pull(server)
    until(lambda: up(server) == {"first.example": 1.0}, what="the first one to be seen")

    first.down = True
    for _ in range(2):
        pull(server)
    until(lambda: up(server) == {"first.example": 0.0, "second.example": 1.0}, what="the outage to be seen")
    found, other = health(server)
    assert found.startswith("health: first.example is down for ")
    assert found.endswith(" s: The upstream first.example answers 503.")
    assert other == "health: second.example is up"

    first.asked()
    while not server.metric("waypost_probes_total"):
        pull(server)
    pull(server)
    assert set(first.asked()) == {"/v2/"}  # of the users' requests none went there

    first.down = False
    until(lambda: up(server)["first.example"], what="a probe that goes well", seconds=40)
    assert set(first.asked()) == {"/v2/"}
    second.asked()
    pull(server)
    assert (first.asked(), second.asked()) == ([BLOB], [])
    assert health(server)[0] == "health: first.example is up"
    probes = server.metric("waypost_probes_total")

    # What a dead worker found is not said any more; and without a server nothing is.
    _, worker = server.children()
    os.kill(worker, signal.SIGKILL)
    until(lambda: up(server) == {}, what="what the dead worker said to go")
    until(server.ready, what="the new worker")
    assert server.metric("waypost_probes_total") == probes  # nobody probes what is up
    pull(server)
    until(lambda: up(server) == {"first.example": 1.0}, what="the new worker to be heard")
    server.kill()
    assert health(server) == []
    server.start()
    assert up(server) == {}
