"""The HTTP/1 server over a real socket, and the corpus of hostile requests."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import uvloop

from waypost.gateway.answer import Answer, UnsafeAnswerError, refusal, render
from waypost.gateway.connection import peer_name
from waypost.gateway.head import ClientError, HeadReader, parse_authority
from waypost.gateway.http1 import Server
from waypost.gateway.limits import Limits
from waypost.routing.request import Request

CASES = tomllib.loads((Path(__file__).parents[1] / "golden/http1/hostile.toml").read_text("utf-8"))["case"]

Handler = Callable[[Request], Answer | Awaitable[Answer]]


def plain(request: Request) -> Answer:
    return Answer(200, (("Content-Type", "text/plain"),), f"{request.method} {request.target}".encode())


class Application:
    """Answers with `handler`, and keeps what it saw."""

    def __init__(self, handler: Handler = plain) -> None:
        self.handler = handler
        self.seen: list[str] = []
        self.writes = 0

    def handle(self, request: Request, peer: str) -> Answer | Awaitable[Answer]:
        assert peer == "127.0.0.1"
        body = request.body.decode("latin-1")
        self.seen.append(f"{request.method} {request.host} {request.target} {body}")
        return self.handler(request)

    def before_write(self) -> None:
        self.writes += 1


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    def reset(self) -> None:
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def rest(self) -> bytes:
        """All until the server ends the connection; what came before a reset, if that is how it ends."""
        pieces = []
        try:
            while piece := await asyncio.wait_for(self.reader.read(65536), 10):
                pieces.append(piece)
        except ConnectionResetError:
            pass
        return b"".join(pieces)

    async def answer(self, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1")
        line, *lines = head[:-4].split("\r\n")
        headers = {name.lower(): value for name, value in (item.split(": ", 1) for item in lines)}
        length = 0 if head_only else int(headers.get("content-length", 0))
        return int(line.split()[1]), headers, await self.reader.readexactly(length)


@asynccontextmanager
async def serving(app: Application, **limits: float) -> AsyncIterator[tuple[Server, Callable[[], Awaitable[Client]]]]:
    loop = asyncio.get_running_loop()
    server = Server(app, msgspec.structs.replace(Limits(sweep_seconds=0.05), **limits), loop)
    listener = await loop.create_server(server.protocol_factory, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
        return clients[-1]

    try:
        yield server, connect
    finally:
        listener.close()
        await server.drain(0)
        for client in clients:
            client.writer.close()
        assert not server.connections


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario(), 20))


GET = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_hostile(case: dict) -> None:
    async def scenario() -> None:
        app = Application(lambda request: Answer(200))
        async with serving(app) as (server, connect):
            client = await connect()
            await client.send(case["send"].replace("§", "a" * case.get("fill", 0)).encode("latin-1"))
            if case["answers"][-1] == 200:
                client.writer.write_eof()
            got = await client.rest()
            refused = [status for status in case["answers"] if status != 200]
            assert server.counters.unacceptable == dict.fromkeys(refused, 1)
        heads = list(re.finditer(rb"^HTTP/1\.1 (\d+)", got, re.MULTILINE))
        assert [int(head[1]) for head in heads] == case["answers"]
        assert app.seen == case.get("requests", [])
        if refused:
            last = got[heads[-1].start() :]
            assert b"\r\nConnection: close\r\n" in last
            assert msgspec.json.decode(last.partition(b"\r\n\r\n")[2])["errors"][0]["message"]

    run(scenario)


def test_keep_alive_and_pipelining_share_one_write() -> None:
    async def scenario() -> None:
        app = Application()
        async with serving(app) as (server, connect):
            client = await connect()
            await client.send(GET)
            assert (await client.answer())[2] == b"GET /x"
            before = app.writes
            await client.send(GET.replace(b"/x", b"/1") + GET.replace(b"/x", b"/2") + GET.replace(b"/x", b"/3"))
            assert [(await client.answer())[2] for _ in range(3)] == [b"GET /1", b"GET /2", b"GET /3"]
            assert app.writes == before + 1
            assert server.counters.requests == 4

    run(scenario)


def test_answers_keep_their_order_when_some_must_be_waited_for() -> None:
    async def scenario() -> None:
        async def later(request: Request) -> Answer:
            await asyncio.sleep(0.02)
            return plain(request)

        app = Application(lambda request: later(request) if request.path < "/2" else plain(request))
        async with serving(app) as (_, connect):
            client = await connect()
            await client.send(b"".join(GET.replace(b"/x", b"/%d" % i) for i in (1, 3, 1, 4)))
            bodies = [(await client.answer())[2] for _ in range(4)]
            assert bodies == [b"GET /1", b"GET /3", b"GET /1", b"GET /4"]

    run(scenario)


@pytest.mark.parametrize(
    ("version", "lines", "kept"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: close\r\n", False),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", False),
        ("1.1", "Upgrade: h2c\r\n", False),
        ("1.1", "Proxy-Connection: close\r\n", True),
        ("1.0", "", False),
        ("1.0", "Connection: Keep-Alive\r\n", True),
        ("1.0", "Connection: keep-alive, close\r\n", False),
    ],
)
def test_persistence(version: str, lines: str, kept: bool) -> None:
    async def scenario() -> None:
        async with serving(Application()) as (_, connect):
            client = await connect()
            raw = f"GET /x HTTP/{version}\r\nHost: a.example\r\n{lines}\r\n".encode()
            await client.send(raw)
            _, headers, _ = await client.answer()
            said = headers.get("connection")
            assert said == ("close" if not kept else "keep-alive" if version == "1.0" else None)
            if kept:
                await client.send(raw)
                assert (await client.answer())[0] == 200
            else:
                assert await client.rest() == b""

    run(scenario)


def test_head_and_bodiless_statuses() -> None:
    answers = {
        "/whole": Answer(200, (), b"12345"),
        "/given": Answer(200, (("Content-Length", "99"),)),
        "/204": Answer(204, (("content-length", "3"),), b"abc"),
        "/304": Answer(304, (("Content-Length", "7"),), b"abc"),
        "/doubled": Answer(200, (("Content-Length", "99"),), b"12345"),
    }
    expected = [
        ("HEAD", "/whole", "5", b""),
        ("HEAD", "/given", "99", b""),
        ("GET", "/204", None, b""),
        ("GET", "/304", "7", b""),
        ("GET", "/doubled", "5", b"12345"),
    ]

    async def scenario() -> None:
        async with serving(Application(lambda request: answers[request.path])) as (_, connect):
            client = await connect()
            for method, path, length, body in expected:
                await client.send(f"{method} {path} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
                status, headers, got = await client.answer(head_only=method == "HEAD" or path == "/304")
                assert (headers.get("content-length"), got) == (length, body), path
                assert status == (int(path[1:]) if path[1:].isdigit() else 200)

    run(scenario)


def test_expect_continue() -> None:
    async def scenario() -> None:
        app = Application()
        async with serving(app, body=5) as (_, connect):
            head = b"POST /x HTTP/1.1\r\nHost: a.example\r\nExpect: 100-Continue\r\nContent-Length: %d\r\n\r\n"
            client = await connect()
            await client.send(head % 5)
            assert (await client.answer())[0] == 100
            await client.send(b"hello")
            assert (await client.answer())[0] == 200
            await client.send(head % 5 + b"he")  # RFC 9110 section 10.1.1: it does not wait
            await client.send(b"llo")
            assert (await client.answer())[0] == 200
            await client.send(head % 6)
            assert (await client.answer())[0] == 413
            assert len(app.seen) == 2

    run(scenario)


class Body:
    """A streamed body that tells how it was treated."""

    def __init__(self, *pieces: bytes | Exception, gate: asyncio.Event | None = None) -> None:
        self.pieces = list(pieces)
        self.gate = gate
        self.given = 0
        self.closed = False

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if self.gate is not None:
            await self.gate.wait()
        if not self.pieces:
            raise StopAsyncIteration
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        self.given += len(piece)
        return piece

    async def aclose(self) -> None:
        self.closed = True


TEN = (("Content-Length", "10"),)


@pytest.mark.parametrize(
    ("headers", "pieces", "version", "wire", "kept"),
    [
        (TEN, (b"01234", b"", b"56789"), "1.1", b"0123456789", True),
        ((), (b"01234", b"", b"56789"), "1.1", b"5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n", True),
        ((), (b"01234", b"56789"), "1.0", b"0123456789", False),
        (TEN, (b"01234", b"56789"), "1.0", b"0123456789", False),
        ((("Content-Length", "0"),), (), "1.1", b"", True),
        # Short, long, or broken off: never an end that looks like one.
        (TEN, (b"01234",), "1.1", b"01234", None),
        (TEN, (b"0123456789", b"x"), "1.1", b"0123456789", None),
        ((), (b"01234", OSError()), "1.1", b"5\r\n01234\r\n", None),
    ],
)
def test_streams(headers, pieces, version, wire, kept) -> None:  # type: ignore[no-untyped-def]
    async def scenario() -> None:
        body = Body(*pieces)
        app = Application(lambda request: Answer(200, headers, body) if request.path == "/s" else plain(request))
        async with serving(app) as (_, connect):
            client = await connect()
            await client.send(f"GET /s HTTP/{version}\r\nHost: a.example\r\n\r\n".encode())
            if kept:
                await client.send(
                    GET.replace(b"GET", b"HEAD") + GET.replace(b"1.1\r\n", b"1.1\r\nConnection: close\r\n")
                )
            got = await client.rest()
            start, _, rest = got.partition(b"\r\n\r\n")
            if kept is None:
                assert wire.startswith(rest)
                assert b"\r\n0\r\n" not in rest
            else:
                assert start.startswith(b"HTTP/1.1 200 OK\r\n")
                assert rest.startswith(wire + b"HTTP/1.1 200" if kept else wire)
                assert (b"Connection: close" in start) != kept
            assert body.closed
            assert len(app.seen) == (3 if kept else 1)

    run(scenario)


def test_head_of_a_stream_sends_no_body() -> None:
    async def scenario() -> None:
        body = Body(b"0123456789")
        async with serving(Application(lambda request: Answer(200, TEN, body))) as (_, connect):
            client = await connect()
            await client.send(GET.replace(b"GET", b"HEAD"))
            _, headers, _ = await client.answer(head_only=True)
            assert headers["content-length"] == "10"
            assert (body.given, body.closed) == (0, True)

    run(scenario)


def test_a_stream_waits_for_a_slow_reader() -> None:
    size = 64 * 1024
    count = 400

    async def scenario() -> None:
        body = Body(*[b"x" * size] * count)
        async with serving(Application(lambda request: Answer(200, (), body))) as (_, connect):
            client = await connect()
            client.writer.transport.pause_reading()
            await client.send(GET)
            before = -1
            while before != body.given:  # until it stands still
                before = body.given
                await asyncio.sleep(0.1)
            assert body.given < size * count
            client.writer.transport.resume_reading()
            client.writer.write_eof()
            got = await client.rest()
            assert got.count(b"x") == size * count
            assert got.endswith(b"0\r\n\r\n")

    run(scenario)


def test_a_client_that_goes_away_cancels_its_request() -> None:
    async def scenario() -> None:
        cancelled = asyncio.Event()

        async def never() -> Answer:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError

        async with serving(Application(lambda request: never())) as (server, connect):
            client = await connect()
            await client.send(GET)
            while not server.counters.requests:
                await asyncio.sleep(0.01)
            client.reset()
            await asyncio.wait_for(cancelled.wait(), 5)

        cancelled.clear()
        app = Application(lambda request: never())
        async with serving(app, half_closed_seconds=0.1) as (_, connect):
            client = await connect()
            await client.send(GET)
            client.writer.write_eof()
            await asyncio.wait_for(cancelled.wait(), 5)

    run(scenario)


def test_half_closed_clients_get_their_answers() -> None:
    async def scenario() -> None:
        async def later(request: Request) -> Answer:
            await asyncio.sleep(0.05)
            return plain(request)

        async with serving(Application(later)) as (_, connect):
            client = await connect()
            client.writer.write(GET + GET)
            client.writer.write_eof()
            assert (await client.rest()).count(b"GET /x") == 2
            client = await connect()
            client.writer.write(GET[:-2])
            client.writer.write_eof()
            assert (await client.rest()).startswith(b"HTTP/1.1 400 ")

    run(scenario)


def test_failures_of_the_application_are_500_and_quote_nothing(caplog: pytest.LogCaptureFixture) -> None:
    secret = "s3cret"

    def fails(request: Request) -> Answer | Awaitable[Answer]:
        async def later() -> Answer:
            raise RuntimeError(secret)

        if request.path == "/later":
            return later()
        if request.path == "/split":
            return Answer(200, (("Location", "x\r\nSet-Cookie: a"),))
        if request.path == "/beyond":
            return Answer(200, (("X", "…"),))
        raise RuntimeError(secret)

    async def scenario() -> None:
        async with serving(Application(fails)) as (_, connect):
            client = await connect()
            for path in (b"/now", b"/later", b"/split", b"/beyond"):
                await client.send(GET.replace(b"/x", path))
                status, headers, body = await client.answer()
                assert (status, headers.get("set-cookie")) == (500, None)
                assert b"INTERNAL" in body

    run(scenario)
    assert len(caplog.records) == 4
    assert secret not in caplog.text


def test_a_failing_spool_does_not_fail_answers(caplog: pytest.LogCaptureFixture) -> None:
    class Full(Application):
        def before_write(self) -> None:
            raise OSError

    async def scenario() -> None:
        async with serving(Full()) as (_, connect):
            client = await connect()
            await client.send(GET)
            assert (await client.answer())[0] == 200

    run(scenario)
    assert "OSError" in caplog.text


def test_drain_ends_idle_connections_at_once_and_busy_ones_when_they_are_done() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def gated(request: Request) -> Answer:
            await gate.wait()
            return plain(request)

        app = Application(lambda request: gated(request) if request.path == "/slow" else plain(request))
        async with serving(app) as (server, connect):
            idle, busy, stuck = [await connect() for _ in range(3)]
            await idle.send(GET)
            await idle.answer()
            await busy.send(GET.replace(b"/x", b"/slow"))
            await stuck.send(b"GET")
            while len(app.seen) < 2 or len(server.connections) < 3:
                await asyncio.sleep(0.01)
            draining = asyncio.create_task(server.drain(0.5))
            assert await idle.rest() == b""
            gate.set()
            _, headers, _ = await busy.answer()
            assert headers["connection"] == "close"
            await draining
            assert await stuck.rest() == b""
            assert not server.connections

    run(scenario)


def test_connections_beyond_the_limits_get_503() -> None:
    async def scenario() -> None:
        for limits in ({"connections_per_peer": 1}, {"connections": 1}):
            async with serving(Application(), **limits) as (server, connect):
                first = await connect()
                await first.send(GET)
                await first.answer()
                second = await connect()
                status, headers, _ = await second.answer()
                assert (status, headers["connection"]) == (503, "close")
                assert server.counters.turned_away == 1
                first.writer.close()
                while server.connections:
                    await asyncio.sleep(0.01)
                third = await connect()
                await third.send(GET)
                assert (await third.answer())[0] == 200

    run(scenario)


def test_a_trusted_proxy_may_bring_many_connections() -> None:
    async def scenario() -> None:
        async with serving(Application(), connections_per_peer=1) as (server, connect):
            server.is_proxy = lambda peer: peer == "127.0.0.1"
            for _ in range(3):
                client = await connect()
                await client.send(GET)
                assert (await client.answer())[0] == 200
            assert len(server.connections) == 3

    run(scenario)


def test_render_refuses_to_split() -> None:
    for value in ("a\rb", "a\nb", "a\0b"):
        with pytest.raises(UnsafeAnswerError):
            render(Answer(200, (("X", value),)), "", "", is_head=False)
    assert b"\r\nX: a\tb\xe9\r\n" in render(Answer(200, (("X", "a\tbé"),)), "", "", is_head=False)


def test_refusals_are_in_the_registries_format() -> None:
    answer = refusal(404, "NAME_UNKNOWN", 'no "such" thing', (("X", "y"),))
    assert answer.headers == (("Content-Type", "application/json"), ("X", "y"))
    assert msgspec.json.decode(answer.body) == {"errors": [{"code": "NAME_UNKNOWN", "message": 'no "such" thing'}]}


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("a.example", "a.example"),
        ("A.Example.:", "a.example"),
        ("a_b-c.example:8080", "a_b-c.example"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("[::FFFF:192.0.2.1]", "[::ffff:192.0.2.1]"),
        *[(bad, None) for bad in ("", ".", ":80", "a:99999", "a:8o", "a b", "[::1", "[v1.a]", "[fe80::1%eth0]")],
        *[(bad, None) for bad in ("a@b", "a/b", "a,b", "é", "a..b", ".a", "a?b", "a#b", "a\\b", "%61", "a" * 300)],
    ],
)
def test_authorities(authority: str, host: str | None) -> None:
    if host is None:
        with pytest.raises(ClientError):
            parse_authority(authority)
    else:
        assert parse_authority(authority) == host


def test_remembered_lines_mean_the_same_again() -> None:
    reader = HeadReader(Limits())
    lines = b"\r\nHost: A.example\r\nAccept: x\r\n\r\n"
    first = reader.read(b"GET /1 HTTP/1.1" + lines)
    again = reader.read(b"HEAD http://b.example/2?q HTTP/1.1" + lines)
    assert (first.method, first.host, first.path, first.query) == ("GET", "a.example", "/1", None)
    assert (again.method, again.host, again.path, again.query) == ("HEAD", "b.example", "/2", "q")
    assert again.headers is first.headers
    assert (first.persistent, reader.read(b"GET / HTTP/1.0" + lines).persistent) == (True, False)
    assert reader.read(b"GET /1 HTTP/1.1" + lines).host == "a.example"


@pytest.mark.parametrize("line", ["Authorization: Basic eA==", "Cookie: a", "X-Forwarded-For: 192.0.2.9"])
def test_lines_that_belong_to_one_person_are_not_remembered(line: str) -> None:
    reader = HeadReader(Limits())
    block = f"GET / HTTP/1.1\r\nHost: a.example\r\n{line}\r\n\r\n".encode()
    assert reader.read(block).headers is not reader.read(block).headers


def test_what_is_remembered_is_bounded() -> None:
    reader = HeadReader(Limits())
    for number in range(5000):
        reader.read(b"GET / HTTP/1.1\r\nHost: h%d.example\r\n\r\n" % number)
    assert len(reader._remembered) <= 1024
    assert len(reader._hosts) <= 4096


def test_peer_names() -> None:
    assert peer_name(("::ffff:192.0.2.1", 1, 0, 0)) == "192.0.2.1"
    assert peer_name(("fe80::1%eth0", 1, 0, 2)) == "fe80::1"
    assert peer_name("") == ""
