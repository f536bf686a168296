"""Clients that mean harm, or are badly broken; beside them a good one, which is always answered."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop

from waypost.gateway.answer import Answer
from waypost.gateway.http1 import Http1, Server
from waypost.gateway.limits import Limits
from waypost.routing.request import Request

GET = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
BIG = 32 * 1024

LIMITS = Limits(
    head_seconds=0.3,
    body_seconds=0.3,
    idle_seconds=0.6,
    stall_seconds=0.4,
    half_closed_seconds=0.3,
    linger_seconds=0.3,
    sweep_seconds=0.05,
    connections_per_peer=1000,
)


class Application:
    """Small answers for /x, large ones for /big, endless ones for /endless."""

    def __init__(self) -> None:
        self.streams = 0

    def handle(self, request: Request, peer: str) -> Answer:
        if request.path == "/big":
            return Answer(200, (), b"b" * BIG)
        if request.path == "/endless":
            return Answer(200, (), self.endless())
        return Answer(200, (), b"fine")

    async def endless(self) -> AsyncIterator[bytes]:
        self.streams += 1
        try:
            while True:
                yield b"e" * BIG
        finally:
            self.streams -= 1

    def before_write(self) -> None:
        pass


class Running:
    """A server on its own thread and loop."""

    def __init__(self) -> None:
        self.app = Application()
        self.loop = uvloop.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.server, self.listener = self.call(self._start())
        self.address = self.listener.sockets[0].getsockname()

    async def _start(self) -> tuple[Server, asyncio.Server]:
        server = Server(self.app, LIMITS, self.loop)
        return server, await self.loop.create_server(server.protocol_factory, "127.0.0.1", 0, backlog=512)

    def call(self, coroutine):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _stop(self) -> None:
        self.listener.close()
        await self.server.drain(0)

    def stop(self) -> None:
        self.call(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def unsent(self) -> int:
        async def count() -> int:
            return sum(
                c._out_size + len(c._ahead) + c._transport.get_write_buffer_size() for c in self.server.connections
            )

        return self.call(count())


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    uvloop.new_event_loop().close()  # the first one opens what the process keeps
    before = len(os.listdir("/proc/self/fd"))
    running = Running()
    try:
        yield running
    finally:
        running.stop()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    mine = [thing for thing in gc.get_objects() if type(thing) is Http1 and thing._server is running.server]
    assert not mine


@pytest.fixture
def connect(running: Running) -> Iterator[Callable[[], socket.socket]]:
    """Makes hostile connections. The good client is answered all along, and in the end all is given back."""
    sockets: list[socket.socket] = []

    def connect() -> socket.socket:
        sockets.append(socket.create_connection(running.address, timeout=5))
        return sockets[-1]

    answered = 0
    done = threading.Event()
    failures: list[str] = []

    def good_client() -> None:
        nonlocal answered
        with socket.create_connection(running.address, timeout=5) as client:
            while not done.is_set():
                client.sendall(GET)
                got = client.recv(65536)
                if not got.startswith(b"HTTP/1.1 200 OK\r\n") or not got.endswith(b"fine"):
                    failures.append(repr(got))
                    return
                answered += 1
                time.sleep(0.005)

    good = threading.Thread(target=good_client)
    good.start()
    try:
        yield connect
        assert not failures
        before = answered
        until(lambda: failures or answered > before + 3)
    finally:
        done.set()
        good.join(10)
        for client in sockets:
            client.close()
    assert not failures
    until(lambda: not running.server.connections)
    assert running.app.streams == 0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rest(client: socket.socket) -> bytes:
    """All until the server ends the connection, in whatever way."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(65536):
            got += piece
    return got


def drip(clients: list[socket.socket], raw: bytes) -> None:
    """Every client sends another byte, as long as any may."""
    for byte in raw:
        open_ones = 0
        for client in clients:
            with contextlib.suppress(OSError):
                client.send(bytes([byte]))
                open_ones += 1
        if not open_ones:
            return
        time.sleep(0.02)


def test_heads_in_drips(connect: Callable[[], socket.socket]) -> None:
    clients = [connect() for _ in range(50)]
    drip(clients, b"GET /x HTTP/1.1\r\nHost: a.example\r\nX: " + b"a" * 20)
    for client in clients:
        assert rest(client).startswith(b"HTTP/1.1 408 ")


def test_bodies_in_drips(connect: Callable[[], socket.socket]) -> None:
    sized, chunked = [connect() for _ in range(20)], [connect() for _ in range(20)]
    head = b"POST / HTTP/1.1\r\nHost: a.example\r\n"
    for client in sized:
        client.sendall(head + b"Content-Length: 60000\r\n\r\n")
    for client in chunked:
        client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\nff\r\n")
    drip(sized + chunked, b"a" * 30)
    for client in sized + chunked:
        assert rest(client).startswith(b"HTTP/1.1 408 ")


def test_silent_and_idle_connections(running: Running, connect: Callable[[], socket.socket]) -> None:
    silent = [connect() for _ in range(150)]
    idle = [connect() for _ in range(150)]
    for client in idle:
        client.sendall(GET)
    until(lambda: len(running.server.connections) > 300)
    assert all(rest(client) == b"" for client in silent)
    for client in idle:
        got = rest(client)
        assert got.count(b"HTTP/1.1 ") == got.count(b"200 OK") == 1


@pytest.mark.parametrize("path", [b"/big", b"/endless"])
def test_clients_that_never_read(running: Running, connect: Callable[[], socket.socket], path: bytes) -> None:
    stalled = running.server.counters.stalled
    clients = [connect() for _ in range(20)]
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
    request = GET.replace(b"/x", path) * 500
    most = 0
    while running.server.counters.stalled < stalled + len(clients):
        for client in clients:
            with contextlib.suppress(OSError):
                client.send(request)
        most = max(most, running.unsent())
        time.sleep(0.02)
    # What waits for one of them: what may be ready, one answer beyond it, one read, and what the loop holds.
    assert most < len(clients) * (256 * 1024 + 64 * 1024 + 2 * BIG + 256 * 1024)


def test_a_slow_reader_is_not_a_stalled_one(running: Running, connect: Callable[[], socket.socket]) -> None:
    stalled = running.server.counters.stalled
    client = connect()
    client.sendall(GET.replace(b"/x", b"/endless"))
    until_time = time.monotonic() + 3 * LIMITS.stall_seconds
    while time.monotonic() < until_time:
        assert client.recv(BIG)
        time.sleep(0.05)
    assert running.server.counters.stalled == stalled


def test_garbage(connect: Callable[[], socket.socket]) -> None:
    dice = random.Random(7)
    clients = []
    for _ in range(100):
        client = connect()
        clients.append(client)
        with contextlib.suppress(ConnectionError):
            client.sendall(dice.randbytes(dice.randrange(1, 3000)))
    for client in clients:
        got = rest(client)
        assert got.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 ")) or got == b""


def test_a_flood_after_a_refusal(connect: Callable[[], socket.socket]) -> None:
    client = connect()
    client.sendall(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 999999999\r\n\r\n")
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 64 * 1024 * 1024:
            sent += client.send(b"a" * 65536)
    assert sent < 64 * 1024 * 1024


def test_a_refusal_reaches_a_client_that_is_still_sending(connect: Callable[[], socket.socket]) -> None:
    client = connect()
    client.sendall(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 500000\r\n\r\n")
    for _ in range(5):  # a reset would make one of these fail
        time.sleep(0.02)
        client.sendall(b"a" * 100_000)
    assert rest(client).startswith(b"HTTP/1.1 413 ")


def test_connections_dropped_in_the_middle(running: Running, connect: Callable[[], socket.socket]) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100\r\n\r\n"
    parts = [GET[:9], head, head + b"abc", GET.replace(b"/x", b"/endless"), GET.replace(b"/x", b"/big") * 20]
    accepted = running.server.counters.accepted
    for number in range(100):
        client = connect()
        client.sendall(parts[number % len(parts)])
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    until(lambda: running.server.counters.accepted >= accepted + 100)
