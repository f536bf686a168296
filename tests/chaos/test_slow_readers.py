"""Two hundred clients that take a large blob slowly, and one that takes it fast: what a worker holds for them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import selectors
import socket
import time
from pathlib import Path

import pytest
from tests.support.certificate import certify
from tests.support.server import Background, WaypostServer, until
from tests.support.upstream import RawUpstream, Script

from waypost.gateway.heap import KEPT

KIB = 1024
MIB = 1024 * KIB
READERS = 200
# A worker holds for each reader the piece that waits for room in the socket, and the one that was read ahead of it: at
# most one read of the event loop each, 256 KiB. A third is for pieces that change hands, and what is lost between them.
# TLS to the upstream has a buffer of one read itself, and ciphertext of up to two that is not opened yet.
READS = {"http": 3, "https": 6}
# To that comes what is kept of freed memory, and as much again for connections, tasks and whatever else is there.
REST = 2 * KEPT

# The blob is this again and again; twice in a row, so that any stretch of it is one slice.
BLOCK = os.urandom(MIB)
TWICE = BLOCK * 2
SIZES = {"small": MIB + 1, "large": 256 * MIB + 12_345, "huge": 2048 * MIB + 12_345}


def blob(size: int) -> Script:
    """Sends `size` bytes, a block at a time, and keeps none."""

    def script(connection: socket.socket, head: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for start in range(0, size, MIB):
            connection.sendall(memoryview(BLOCK)[: size - start])
        return True

    return script


def digest(size: int) -> str:
    whole = hashlib.sha256()
    for start in range(0, size, MIB):
        whole.update(memoryview(BLOCK)[: size - start])
    return f"sha256:{whole.hexdigest()}"


def ask(server: WaypostServer, name: str, received: int) -> socket.socket:
    """A client in the middle of its answer: its head has been read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
    client.settimeout(60)
    client.connect(("127.0.0.1", server.port))
    client.sendall(f"GET /v2/acme/{name}/blobs/sha256:{'0' * 64} HTTP/1.1\r\nHost: d.example\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        assert byte, head
        head += byte
    assert head.startswith(b"HTTP/1.1 200 "), head
    return client


class SlowReaders:
    """Clients that take 16 KiB every now and then, and look whether these are the next of the blob."""

    def __init__(self, server: WaypostServer, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._clients = {ask(server, name, 64 * KIB): 0 for _ in range(READERS)}
        for client in self._clients:
            self._selector.register(client, selectors.EVENT_READ)
        self._background = Background(self._turn, 1)

    def _turn(self, _: int) -> None:
        for key, _ in self._selector.select(1):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            piece = client.recv(16 * KIB)
            position = self._clients[client] % MIB
            assert piece, "the blob ended early"
            assert piece == TWICE[position : position + len(piece)]
            self._clients[client] += len(piece)
        time.sleep(0.1)

    @property
    def slowest(self) -> int:
        """How far the one is that got least."""
        return min(self._clients.values())

    def leave(self) -> None:
        self._background.join()
        self._selector.close()
        for client in self._clients:
            client.close()


def fetched(server: WaypostServer, name: str) -> str:
    """The digest of a blob that somebody fast takes."""
    got = hashlib.sha256()
    left = SIZES[name]
    with ask(server, name, 4 * MIB) as client:
        while left:
            piece = client.recv(MIB)
            assert piece, f"{left} bytes are missing"
            left -= len(piece)
            got.update(piece)
    return f"sha256:{got.hexdigest()}"


def size_of(pid: int, which: str) -> int:
    """VmRSS: what is resident now; VmHWM: the most there was."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith(which))


@pytest.mark.parametrize(
    ("scheme", "name"),
    [("http", "large"), ("https", "large"), pytest.param("http", "huge", marks=pytest.mark.long)],
)
def test_slow_readers_cost_a_few_buffers_each_and_nobody_else_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, name: str
) -> None:
    tls = certify(tmp_path / "tls.pem") if scheme == "https" else None
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.pem"))
    upstream = RawUpstream({f"/v2/acme/{one}/": blob(size) for one, size in SIZES.items()}, tls)
    package = '[[package]]\ntype = "container"\nname = "{0}"\ndomain = "d.example"\nupstream = "raw.example/{0}"\n'
    config = (
        f'base_domain = "waypost.example"\n[[upstream]]\nhost = "raw.example"\nconnect = "{upstream.url}"\n'
        + "".join(package.format(f"acme/{one}") for one in SIZES)
    )
    with contextlib.ExitStack() as ends:
        ends.callback(upstream.close)
        server = WaypostServer(tmp_path, config, workers=1).start()
        ends.callback(server.stop)
        _, worker = server.children()
        assert fetched(server, "small") == digest(SIZES["small"])
        before = size_of(worker, "VmRSS")

        for _ in range(2):  # the second ones find no less than the first
            readers = SlowReaders(server, name)
            assert fetched(server, name) == digest(SIZES[name])
            until(lambda readers=readers: readers.slowest > MIB // 2, 120, "the slow readers to get on, too")
            assert len(upstream.open) >= READERS
            peak = size_of(worker, "VmHWM") - before
            assert peak < READERS * READS[scheme] * 256 * KIB + REST, f"{peak / MIB:.0f} MiB for {READERS} slow readers"
            readers.leave()
            until(lambda: len(upstream.open) <= 1, what="the connections of those who left to be cut")
            until(lambda: server.metric("waypost_connections") == 0, what="their connections to be forgotten")
            until(lambda: size_of(worker, "VmRSS") - before < REST, what="their memory to be given back")
        assert server.children()[1] == worker
