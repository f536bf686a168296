"""Mirrors that go down and come back: all workers send all clients to the same one, also after a crash."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.server import WaypostServer, until
from tests.support.upstream import RawUpstream, sized

INDEX = "/dists/stable/InRelease"
FILE = "/pool/s/skates_1.2_amd64.deb"
NAMES = ("first.example", "second.example")
HOST = "deb.example"
NEVER = 100_000


class Mirror:
    """Knows its name; nothing but 503 while it is down."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.down = False
        self._raw = RawUpstream({"/": self._answer})
        self.url = self._raw.url
        self.close = self._raw.close

    def asked(self) -> list[str]:
        """Requests since this was last called."""
        heads, self._raw.heads = self._raw.heads, []
        return [" ".join(head.decode().split(" ")[:2]) for head in heads]

    def _answer(self, connection: socket.socket, head: bytes) -> bool:
        body = b"" if head.startswith(b"HEAD") else self.name.encode()
        connection.sendall(sized(body, status=b"503 Service Unavailable" if self.down else b"200 OK"))
        return True


@pytest.fixture
def mirrors() -> Iterator[tuple[Mirror, Mirror]]:
    both = Mirror(NAMES[0]), Mirror(NAMES[1])
    yield both
    for one in both:
        one.close()


def config(mirrors: tuple[Mirror, Mirror], hold: int = NEVER, back: int = NEVER, more: str = "") -> str:
    declared = "".join(f'[[upstream]]\nhost = "{one.name}"\nconnect = "{one.url}"\n' for one in mirrors)
    return f"""
base_domain = "waypost.example"
[mirrors]
probe_seconds = 1
hold_seconds = {hold}
return_seconds = {back}
[[package]]
type = "deb"
name = "skates"
domain = "{HOST}"
upstream = ["https://{NAMES[0]}/debian", "https://{NAMES[1]}"]
{more}
{declared}
"""


@pytest.fixture
def server(tmp_path: Path, mirrors: tuple[Mirror, Mirror]) -> Iterator[WaypostServer]:
    one = WaypostServer(tmp_path, config(mirrors), workers=2).start()
    yield one
    one.stop()


def leads_to(server: WaypostServer, path: str) -> set[str]:
    """The mirrors that clients are sent to, whichever worker they meet."""
    answers = [server.get(HOST, path) for _ in range(12)]
    assert {status for status, _, _ in answers} == {307}
    return {headers["Location"].split("/")[2] for _, headers, _ in answers}


def moves(server: WaypostServer, path: str, name: str) -> None:
    until(lambda: leads_to(server, path) == {name}, what=f"{path} to come from {name}", seconds=40)


def explained(server: WaypostServer, path: str) -> list[str]:
    return [line.strip() for line in server.command("explain", f"http://{HOST}{path}").splitlines()]


def test_mirrors_go_down_and_come_back(server: WaypostServer, mirrors: tuple[Mirror, Mirror]) -> None:
    first, second = mirrors
    assert server.metric("waypost_probes_total") == 0  # nobody was sent anywhere yet
    assert leads_to(server, INDEX) == leads_to(server, FILE) == {first.name}
    until(lambda: server.metric("waypost_upstream_up") == 2, what="both to be seen")

    # A file comes from another one at once, an index stays.
    first.down = True
    moves(server, FILE, second.name)
    assert leads_to(server, INDEX) == {first.name}
    until(lambda: server.metric("waypost_upstreams_down") == 1, what="the outage to be shown")
    lines = explained(server, INDEX)
    assert lines[1] == f"307 to https://{first.name}/debian{INDEX}"
    assert "pin: upstreams may differ in this, so all clients are sent to the same one" in lines
    (line,) = [line for line in lines if line.startswith(f"health: {first.name} is down for ")]
    assert line.endswith(": answers 503.")
    assert f"health: {second.name} is up" in lines

    # After a while the index, too.
    server.configure(config(mirrors, hold=1))
    moves(server, INDEX, second.name)
    assert explained(server, INDEX)[1] == f"307 to https://{second.name}{INDEX}"

    # Nothing of that is forgotten in a crash.
    server.kill()
    server.start()
    assert leads_to(server, INDEX) == {second.name}
    assert leads_to(server, FILE) == {second.name}

    # Back, but not trusted yet: an index stays, and files stay with it.
    first.down = False
    lines = until(
        lambda: [line for line in explained(server, INDEX) if line.startswith(f"health: {first.name} is up")],
        what="the first one to be seen",
        seconds=40,
    )
    assert lines == [f"health: {first.name} is up; it was down for long, and what is pinned comes from it last"]
    assert leads_to(server, INDEX) == leads_to(server, FILE) == {second.name}
    server.configure(config(mirrors, hold=1, back=1))
    moves(server, INDEX, first.name)
    assert leads_to(server, FILE) == {first.name}

    # Nothing but the roots was ever asked for, and nobody's path.
    assert set(first.asked()) == {"HEAD /debian/"}
    assert set(second.asked()) == {"HEAD /"}


def test_what_passes_through_is_asked_of_the_same_mirror(server: WaypostServer, mirrors: tuple[Mirror, Mirror]) -> None:
    first, second = mirrors

    def answer(path: str) -> tuple[int, bytes]:
        status, _, body = server.get(HOST, path)
        return status, body if status == 200 else b""

    server.configure(config(mirrors, more="proxy = true"))
    until(lambda: {answer(INDEX) for _ in range(12)} == {(200, first.name.encode())}, what="the index")
    first.down = True
    # A file may come from anybody; half of an index and half of another help nobody.
    assert answer(FILE) == (200, second.name.encode())
    assert [answer(INDEX)[0] for _ in range(6)] == [502] * 6
    server.configure(config(mirrors, hold=1, more="proxy = true"))
    until(
        lambda: {answer(INDEX) for _ in range(12)} == {(200, second.name.encode())}, what="the other index", seconds=40
    )
