"""Carrying out a Fetch, against a scripted upstream on loopback: what goes out, what failures become."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import pytest

from waypost import __version__
from waypost.gateway.fetch import MOST_FETCHES, carry_out
from waypost.routing.decision import Fetch, Final, Headers, Redirect, Refuse, Relay, Reply, UpstreamHead
from waypost.upstream.client import Client, Response, Target, Timeouts
from waypost.upstream.declared import Declared, by_host
from waypost.upstream.failure import UpstreamError, UpstreamMisbehaved
from waypost.upstream.upstreams import Upstreams

Handler = Callable[["Exchange"], Awaitable[None]]
CHALLENGE = b'www-authenticate: Bearer realm="https://auth.example/token",service="s"\r\n'


class Exchange:
    """One request as it arrived, and the wire to answer on."""

    def __init__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = lines[0].split(" ")
        self.headers = [tuple(line.split(": ", 1)) for line in lines[1:] if line]
        self.writer = writer

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    async def answer(self, status: int, body: bytes = b"", headers: bytes = b"") -> None:
        await self.send(b"HTTP/1.1 %d X\r\n%scontent-length: %d\r\n\r\n%s" % (status, headers, len(body), body))

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()


class Scripted:
    """An upstream that does what its handler says, and knows its connections."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.seen: list[Exchange] = []
        self.opened = 0
        self.open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open.add(writer)
        try:
            while head := (await reader.readuntil(b"\r\n\r\n"))[:-4]:
                exchange = Exchange(head, writer)
                self.seen.append(exchange)
                await self.handler(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def closed(self) -> None:
        async with asyncio.timeout(10):
            while self.open:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[Scripted, str]]:
    scripted = Scripted(handler)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    try:
        yield scripted, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in list(scripted.open):
            writer.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def reaching(timeouts: Timeouts | None = None, **connect: str) -> AsyncIterator[Upstreams]:
    declared = by_host(Declared(host=host.replace("_", "."), connect=url) for host, url in connect.items())
    upstreams = Upstreams(Client(declared, timeouts))
    try:
        yield upstreams
    finally:
        await upstreams.close()


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def relay(head: UpstreamHead) -> Relay:
    return Relay(head.status, head.headers)


def reply(head: UpstreamHead) -> Reply:
    return Reply(head.status, head.headers, head.body)


def fetch(then: Any = relay, url: str = "https://reg.example/v2/x", **more: Any) -> Fetch:
    return Fetch(url=url, then=then, **more)


async def all_of(body: Response | bytes) -> bytes:
    assert isinstance(body, Response)
    try:
        return b"".join([piece async for piece in body])
    finally:
        await body.aclose()


async def result(handler: Handler, asked: Fetch, timeouts: Timeouts | None = None) -> Final:
    async with serving(handler) as (_, url), reaching(timeouts, reg_example=url) as upstreams:
        decision, body = await carry_out(asked, upstreams)
        if isinstance(body, Response):
            await body.aclose()
        return decision


def test_what_goes_out_is_what_the_decision_says() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, b"ok")

    async def main() -> None:
        async with serving(handler) as (upstream, url), reaching(reg_example=url) as upstreams:
            asked = fetch(
                url="https://reg.example/v2/a%2Fb/x?n=1&last=%41+b",
                headers=(("Accept", "a/b"), ("Accept", "c/d"), ("Range", "bytes=0-1")),
            )
            _, body = await carry_out(asked, upstreams)
            assert await all_of(body) == b"ok"
            (seen,) = upstream.seen
            assert (seen.method, seen.target) == ("GET", "/v2/a%2Fb/x?n=1&last=%41+b")
            assert sorted(seen.headers) == [
                ("Accept", "a/b"),
                ("Accept", "c/d"),
                ("Host", "reg.example"),
                ("Range", "bytes=0-1"),
                ("User-Agent", f"waypost/{__version__}"),
            ]

    run(main())


def test_connections_are_kept_bodies_stay_encoded_and_cookies_are_not_kept() -> None:
    packed = gzip.compress(b"x" * 100)

    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, packed, b"content-encoding: gzip\r\nset-cookie: a=b\r\n")

    async def main() -> None:
        async with serving(handler) as (upstream, url), reaching(reg_example=url) as upstreams:
            for _ in range(3):
                _, body = await carry_out(fetch(), upstreams)
                assert await all_of(body) == packed
            assert upstream.opened == 1
            assert all(seen.all("cookie") == [] for seen in upstream.seen)

    run(main())


def test_redirects_are_not_followed() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(307, b"", b"location: https://elsewhere.example/\r\n")

    async def main() -> None:
        async with serving(handler) as (upstream, url), reaching(reg_example=url) as upstreams:
            decision, _ = await carry_out(fetch(reply), upstreams)
            assert isinstance(decision, Reply)
            assert decision.status == 307
            assert len(upstream.seen) == 1

    run(main())


def test_a_buffered_body_is_seen_whole_and_has_an_end() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")

    decision = asyncio.run(result(handler, fetch(reply, buffer=6)))
    assert isinstance(decision, Reply)
    assert decision.body == b"abcdef"
    decision = asyncio.run(result(handler, fetch(reply, buffer=5)))
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.code) == (502, "UPSTREAM_MISBEHAVED")


def token_handler(good: list[str]) -> Handler:
    """A registry and its realm in one: the registry takes only the last token that was given out."""

    async def handler(exchange: Exchange) -> None:
        if exchange.target.startswith("/token"):
            assert exchange.all("authorization") == []
            good.append(f"t{len(good)}")
            await exchange.answer(200, b'{"token": "%s"}' % good[-1].encode())
        elif good and exchange.all("authorization") == [f"Bearer {good[-1]}"]:
            await exchange.answer(200, b"ok")
        else:
            await exchange.answer(401, b"{}", CHALLENGE)

    return handler


def test_a_challenge_is_answered_once_and_the_token_is_kept_and_renewed() -> None:
    async def main() -> None:
        good: list[str] = []
        async with (
            serving(token_handler(good)) as (upstream, url),
            reaching(reg_example=url, auth_example=url) as upstreams,
        ):
            asked = fetch(reply, scope="repository:x:pull", buffer=100)
            for _ in range(3):
                decision, _ = await carry_out(asked, upstreams)
                assert isinstance(decision, Reply)
                assert decision.status == 200
            assert [seen.target.partition("?")[0] for seen in upstream.seen] == [
                "/v2/x",
                "/token",
                "/v2/x",
                "/v2/x",
                "/v2/x",
            ]
            assert upstream.seen[1].target == "/token?service=s&scope=repository%3Ax%3Apull"
            assert upstream.seen[1].all("host") == ["auth.example"]
            good.append("revoked meanwhile")
            decision, _ = await carry_out(asked, upstreams)
            assert isinstance(decision, Reply)
            assert decision.status == 200
            assert len(good) == 3
            # Other declarations: no token survives them.
            upstreams.declare(
                by_host(
                    [
                        Declared(host="reg.example", connect=url),
                        Declared(host="auth.example", connect=url + "/"),
                    ]
                )
            )
            assert upstreams.tokens.held("reg.example", "repository:x:pull") is None

    run(main())


def test_a_401_that_no_token_helps_against_is_an_answer() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(401, b"{}", b"www-authenticate: Basic realm=x\r\n")

    async def never(exchange: Exchange) -> None:
        await exchange.answer(401 if exchange.target == "/v2/x" else 403, b"{}", CHALLENGE)

    async def main() -> None:
        for one in (handler, never):
            async with (
                serving(one) as (upstream, url),
                reaching(reg_example=url, auth_example=url) as upstreams,
            ):
                decision, _ = await carry_out(fetch(reply, scope="s", buffer=9), upstreams)
                assert isinstance(decision, Reply)
                assert decision.status == 401
                assert len(upstream.seen) <= 2

    run(main())


def test_a_hop_takes_no_token_to_another_host() -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.all("host") == ["reg.example"] and exchange.all("authorization"):
            await exchange.answer(307, b"")
        else:
            await token_handler(["t0"])(exchange)

    async def main() -> None:
        async with (
            serving(handler) as (upstream, url),
            reaching(reg_example=url, auth_example=url, other_example=url) as upstreams,
        ):
            hop = fetch(reply, url="https://other.example/x", buffer=9)
            await carry_out(fetch(lambda head: hop, scope="s"), upstreams)
            assert [seen.all("authorization") for seen in upstream.seen if seen.all("host") == ["other.example"]] == [
                []
            ]

    run(main())


def test_circles_end() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(307)

    async def main() -> None:
        def again(head: UpstreamHead) -> Fetch:
            return fetch(again)

        async with serving(handler) as (upstream, url), reaching(reg_example=url) as upstreams:
            decision, _ = await carry_out(fetch(again), upstreams)
            assert isinstance(decision, Refuse)
            assert decision.status == 502
            assert len(upstream.seen) == MOST_FETCHES

    run(main())


QUICK = Timeouts(connect=2, head=0.2, read=0.2)


async def silent(exchange: Exchange) -> None:
    await asyncio.sleep(30)


async def rude(exchange: Exchange) -> None:
    exchange.writer.close()


async def no_http(exchange: Exchange) -> None:
    await exchange.send(b"SSH-2.0-x\r\n\r\n")


async def broken_off(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\nabc")
    exchange.writer.close()


async def stalled(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\nabc")
    await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("handler", "status", "code"),
    [
        (silent, 504, "UPSTREAM_TIMEOUT"),
        (rude, 502, "UPSTREAM_UNREACHABLE"),
        (no_http, 502, "UPSTREAM_MISBEHAVED"),
        (broken_off, 502, "UPSTREAM_MISBEHAVED"),
        (stalled, 504, "UPSTREAM_TIMEOUT"),
    ],
)
def test_failures_name_the_upstream_and_are_never_a_404(handler: Handler, status: int, code: str) -> None:
    decision = asyncio.run(result(handler, fetch(reply, buffer=1000), QUICK))
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.code) == (status, code)
    assert "reg.example" in decision.message
    assert "127.0.0.1" not in decision.message


def refused(url: str, **connect: str) -> Refuse:
    async def main() -> Final:
        async with reaching(QUICK, **connect) as upstreams:
            decision, _ = await carry_out(fetch(url=url), upstreams)
            return decision

    decision = asyncio.run(main())
    assert isinstance(decision, Refuse)
    return decision


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://[::1]:1/",
        "http://[::ffff:127.0.0.1]:1/",
        "http://localhost:1/",
        "http://169.254.169.254/latest",
        "https://10.0.0.1/",
    ],
)
def test_private_addresses_are_not_visited(url: str) -> None:
    decision = refused(url)
    assert (decision.status, decision.code) == (502, "UPSTREAM_FORBIDDEN")
    assert "[[upstream]]" in decision.message


def test_the_address_behind_a_declared_upstream_is_not_open_to_others() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, b"secret")

    async def main() -> None:
        async with serving(handler) as (upstream, url), reaching(reg_example=url) as upstreams:
            _, body = await carry_out(fetch(), upstreams)
            assert await all_of(body) == b"secret"  # a connection to it is now in the pool
            for other in (url, url.replace("127.0.0.1", "localhost")):
                decision, _ = await carry_out(fetch(url=other), upstreams)
                assert isinstance(decision, Refuse)
                assert decision.code == "UPSTREAM_FORBIDDEN"
            assert len(upstream.seen) == 1

    run(main())


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pw@reg.example/",
        "file:///etc/passwd",
        "https:///x",
        "https://reg.example/a b",
        "https://reg.example/\r\nX: y",
        "https://reg.example/é",
        "https://reg.example:x/",
    ],
)
def test_strange_urls_are_never_sent(url: str) -> None:
    assert refused(url, reg_example="http://127.0.0.1:1").code == "UPSTREAM_MISBEHAVED"


def test_unreachable_and_unresolvable() -> None:
    async def main() -> str:
        async with serving(silent) as (_, url):
            return url

    gone = asyncio.run(main())
    assert refused("https://reg.example/", reg_example=gone).code == "UPSTREAM_UNREACHABLE"
    assert refused("https://no-such-name.invalid/").code == "UPSTREAM_UNREACHABLE"


def test_a_body_that_breaks_off_is_an_error_not_an_end() -> None:
    async def main() -> None:
        for handler, kind in ((broken_off, UpstreamMisbehaved), (stalled, UpstreamError)):
            async with serving(handler) as (_, url), reaching(QUICK, reg_example=url) as upstreams:
                _, body = await carry_out(fetch(), upstreams)
                with pytest.raises(kind, match=r"reg\.example"):
                    await all_of(body)

    run(main())


async def endless(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await exchange.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def test_a_client_that_goes_away_frees_the_connection() -> None:
    async def main() -> None:
        for asked in (fetch(), fetch(reply, buffer=10**12)):
            async with serving(endless) as (upstream, url), reaching(reg_example=url) as upstreams:

                async def serve(asked: Fetch = asked, upstreams: Upstreams = upstreams) -> None:
                    _, body = await carry_out(asked, upstreams)
                    assert isinstance(body, Response)
                    try:
                        async for _ in body:
                            await asyncio.sleep(3600)  # the client takes no more: back-pressure
                    finally:
                        await body.aclose()

                task = asyncio.create_task(serve())
                while not upstream.seen:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                await upstream.closed()

    run(main())


def test_an_upstream_is_not_read_ahead_of_a_slow_client() -> None:
    sent = 0

    async def gigabyte(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(b"HTTP/1.1 200 X\r\ncontent-length: 1000000000\r\n\r\n")
        while True:
            await exchange.send(b"x" * 65536)
            sent += 65536

    async def main() -> None:
        async with serving(gigabyte) as (_, url), reaching(reg_example=url) as upstreams:
            _, body = await carry_out(fetch(), upstreams)
            assert isinstance(body, Response)
            await anext(body)
            before = -1
            while sent != before:  # until nothing moves any more
                before = sent
                await asyncio.sleep(0.1)
            assert sent < 64 * 1024 * 1024  # what kernel buffers and ours hold, not the gigabyte
            await body.aclose()

    run(main())


def test_other_declarations_do_not_touch_what_is_under_way() -> None:
    gate = asyncio.Event()

    async def halting(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 X\r\ncontent-length: 6\r\n\r\nabc")
        await gate.wait()
        await exchange.send(b"def")

    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, b"elsewhere")

    async def main() -> None:
        async with serving(halting) as (_, old), serving(handler) as (_, new), reaching(reg_example=old) as upstreams:
            _, first = await carry_out(fetch(), upstreams)
            upstreams.declare(by_host([Declared(host="reg.example", connect=new)]))
            _, second = await carry_out(fetch(), upstreams)
            assert await all_of(second) == b"elsewhere"
            gate.set()
            assert await all_of(first) == b"abcdef"

    run(main())


def test_what_then_raises_frees_the_connection() -> None:
    async def main() -> None:
        def broken(head: UpstreamHead) -> Reply:
            raise ZeroDivisionError

        async with serving(endless) as (upstream, url), reaching(reg_example=url) as upstreams:
            with pytest.raises(ZeroDivisionError):
                await carry_out(fetch(broken), upstreams)
            await upstream.closed()

    run(main())


def test_a_body_that_drips_is_not_waited_for_for_ever() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not exchange.writer.is_closing():
            await exchange.send(b"a")
            await asyncio.sleep(0.01)

    async def main() -> None:
        refused = await result(handler, fetch(reply, buffer=10_000_000), Timeouts(read=5, whole=0.2))
        assert isinstance(refused, Refuse)
        assert (refused.status, refused.code) == (504, "UPSTREAM_TIMEOUT")

    run(main())


def test_header_values_keep_their_bytes() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, b"", b"content-type: text/\xc3\xbc\xff\r\n")

    async def main() -> None:
        kept = await result(handler, fetch(reply, buffer=10))
        assert isinstance(kept, Reply)
        assert dict(kept.headers)["content-type"].encode("latin-1") == b"text/\xc3\xbc\xff"

    run(main())


@pytest.mark.parametrize("byte", [b"\x00", b"\x01", b"\x0b", b"\r", b"\x7f"])
def test_control_bytes_in_a_header_line_are_the_upstreams_fault(byte: bytes) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, b"", b"etag: a" + byte + b"b\r\n")

    async def main() -> None:
        refused = await result(handler, fetch())
        assert isinstance(refused, Refuse)
        assert (refused.status, refused.code) == (502, "UPSTREAM_MISBEHAVED")

    run(main())


@pytest.mark.parametrize(("declared", "sent"), [(False, False), (True, True)])
def test_only_a_declared_upstream_may_send_clients_to_private_addresses(declared: bool, sent: bool) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(307)

    class Reached(Client):
        """Reaches the upstream on loopback all the same, which the guard would not let happen."""

        def target(self, url: str) -> Target:
            return msgspec.structs.replace(super().target(url), declared=declared or url in asked)

        async def open(self, method: str, url: str, headers: Headers = ()) -> Response:
            asked.append(url)
            try:
                return await super().open(method, url, headers)
            finally:
                asked.clear()

    asked: list[str] = []

    async def main() -> None:
        async with serving(handler) as (_, url):
            upstreams = Upstreams(Reached(by_host([Declared(host="reg.example", connect=url)])))
            decision, _ = await carry_out(fetch(lambda head: Redirect("http://10.0.0.1/layer")), upstreams)
            await upstreams.close()
        if sent:
            assert decision == Redirect("http://10.0.0.1/layer")
        else:
            assert isinstance(decision, Refuse)
            assert (decision.status, decision.code) == (502, "UPSTREAM_FORBIDDEN")
            assert "reg.example" in decision.message
            assert "10.0.0.1" not in decision.message

    run(main())


# What is welcome, but not needed

INSTEAD = Reply(200, (), b"without it")


@pytest.mark.parametrize("how", ["refused", "too much", "cut", "silent"])
def test_what_is_welcome_is_done_without(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waypost.gateway.fetch.WELCOME_SECONDS", 0.2)

    async def handler(exchange: Exchange) -> None:
        if how == "too much":
            await exchange.answer(200, b"x" * 7)
        elif how == "cut":
            await exchange.send(b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nabc")
            exchange.writer.close()
        elif how == "silent":
            await asyncio.sleep(5)

    async def main() -> None:
        async with serving(handler) as (upstream, url):
            if how == "refused":
                url = "http://127.0.0.1:1"
            async with reaching(reg_example=url) as upstreams:
                assert await carry_out(fetch(reply, buffer=6, instead=INSTEAD), upstreams) == (INSTEAD, b"")
            await upstream.closed()

    run(main())


def test_what_is_needed_may_lead_to_what_is_welcome() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200 if exchange.target == "/v2/x" else 500, b"ok")

    def then(head: UpstreamHead) -> Fetch:
        return fetch(lambda further: Reply(further.status), "https://reg.example/y", buffer=6, instead=INSTEAD)

    assert asyncio.run(result(handler, fetch(then, buffer=6))) == Reply(500)
