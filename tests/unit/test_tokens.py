"""Tokens: what is asked of realms and with whose credentials, what is kept and for how long."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from waypost.routing.decision import Basic, Fetch, Login, RefreshToken, Reply
from waypost.upstream.client import Client
from waypost.upstream.declared import Declared, by_host
from waypost.upstream.failure import UpstreamBusy, UpstreamError, UpstreamForbidden, UpstreamMisbehaved
from waypost.upstream.realm import LONGEST_LIFE
from waypost.upstream.tokens import BASIC_LIFE, Tokens

CHALLENGE = ['Bearer realm="https://auth.example/token",service="registry.example"']
SCOPE = "repository:acme/x:pull"


class Answer:
    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status, self.body, self.headers, self.closed = status, body, headers, False

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    async def read(self, limit: int) -> bytes:
        if len(self.body) > limit:
            raise UpstreamMisbehaved("auth.example", "too long")
        return self.body

    async def aclose(self) -> None:
        self.closed = True


class Realm:
    """A client whose every answer is the same, and that remembers what it was asked."""

    def __init__(
        self,
        grant: dict[str, Any] | bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        **declared: str,
    ) -> None:
        self.body = grant if isinstance(grant, bytes) else msgspec.json.encode(grant)
        self.status = status
        self.headers = headers or {}
        self.declared = by_host(
            Declared(host=host.replace("_", "."), connect=connect) for host, connect in declared.items()
        )
        self.asked: list[str] = []
        self.shown: list[list[str]] = []  # header lines besides Accept
        self.answers: list[Answer] = []
        self.gate = asyncio.Event()
        self.gate.set()

    target = Client.target

    async def open(self, method: str, url: str, headers: Any = ()) -> Answer:
        assert method == "GET"
        assert headers[0][0] == "Accept"
        self.shown.append([f"{name}: {value}" for name, value in headers[1:]])
        self.asked.append(url)
        await self.gate.wait()
        self.answers.append(Answer(self.status, self.body, self.headers))
        return self.answers[-1]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(realm: Realm, most: int = 10) -> tuple[Tokens, Clock]:
    clock = Clock()
    return Tokens(realm, clock, most), clock  # type: ignore[arg-type]


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def ask(realm: Realm, lines: list[str] = CHALLENGE, host: str = "registry.example") -> str | None:
    tokens, _ = made(realm)
    return run(tokens.ask(host, SCOPE, lines))


def test_asks_the_realm_for_service_and_scope_and_keeps_its_own_query() -> None:
    realm = Realm({"token": "abc"})
    assert ask(realm, ['Bearer realm="https://auth.example/token?tenant=1#x",service="a b&c"']) == "Bearer abc"
    parts = urlsplit(realm.asked[0])
    assert (parts.scheme, parts.netloc, parts.path, parts.fragment) == ("https", "auth.example", "/token", "")
    assert parse_qsl(parts.query) == [("tenant", "1"), ("service", "a b&c"), ("scope", SCOPE)]
    assert realm.answers[0].closed
    assert realm.shown == [[]]  # nothing of ours: no Authorization


def test_either_name_of_the_token_is_read() -> None:
    assert ask(Realm({"access_token": "xyz"})) == "Bearer xyz"
    assert ask(Realm({"token": "abc", "access_token": "xyz"})) == "Bearer abc"


@pytest.mark.parametrize(
    ("expires_in", "good_for"),
    [(None, 54), (60, 54), (300, 290), ("300", 290), (10, 9), (10**9, LONGEST_LIFE - 10), (-5, 0)],
)
def test_a_token_is_renewed_a_little_before_it_expires(expires_in: object, good_for: float) -> None:
    async def main() -> None:
        tokens, clock = made(Realm({"token": "abc", "expires_in": expires_in}))
        await tokens.ask("registry.example", SCOPE, CHALLENGE)
        if good_for:
            clock.now += good_for - 0.5
            assert tokens.held("registry.example", SCOPE) == "Bearer abc"
            clock.now += 1
        assert tokens.held("registry.example", SCOPE) is None

    run(main())


def test_tokens_are_per_upstream_and_scope() -> None:
    async def main() -> None:
        realm = Realm({"token": "abc"})
        tokens, _ = made(realm)
        await tokens.ask("a.example", SCOPE, CHALLENGE)
        assert tokens.held("b.example", SCOPE) is None
        assert tokens.held("a.example", "repository:acme/y:pull") is None
        await tokens.ask("a.example", SCOPE, CHALLENGE)
        assert len(realm.asked) == 1

    run(main())


def test_concurrent_askers_share_one_question_even_when_the_first_goes_away() -> None:
    async def main() -> None:
        realm = Realm({"token": "abc"})
        realm.gate.clear()
        tokens, _ = made(realm)
        askers = [asyncio.create_task(tokens.ask("a.example", SCOPE, CHALLENGE)) for _ in range(20)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        askers[0].cancel()
        realm.gate.set()
        results = await asyncio.gather(*askers, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == ["Bearer abc"] * 19
        assert len(realm.asked) == 1

    run(main())


def test_a_failure_is_shared_but_not_kept() -> None:
    async def main() -> None:
        realm = Realm({"token": "abc"}, status=500)
        tokens, _ = made(realm)
        askers = [tokens.ask("a.example", SCOPE, CHALLENGE) for _ in range(3)]
        assert all(isinstance(one, UpstreamMisbehaved) for one in await asyncio.gather(*askers, return_exceptions=True))
        realm.status = 200
        assert await tokens.ask("a.example", SCOPE, CHALLENGE) == "Bearer abc"
        assert len(realm.asked) == 2

    run(main())


def test_a_dropped_token_is_gone_but_a_newer_one_stays() -> None:
    async def main() -> None:
        tokens, _ = made(Realm({"token": "new"}))
        await tokens.ask("a.example", SCOPE, CHALLENGE)
        tokens.drop("a.example", SCOPE, "Bearer old")
        assert tokens.held("a.example", SCOPE) == "Bearer new"
        tokens.drop("a.example", SCOPE, "Bearer new")
        assert tokens.held("a.example", SCOPE) is None

    run(main())


def test_the_least_recently_used_token_makes_room() -> None:
    async def main() -> None:
        tokens, _ = made(Realm({"token": "abc"}), most=2)
        for scope in ("one", "two"):
            await tokens.ask("a.example", scope, CHALLENGE)
        assert tokens.held("a.example", "one")
        await tokens.ask("a.example", "three", CHALLENGE)
        assert [bool(tokens.held("a.example", scope)) for scope in ("one", "two", "three")] == [
            True,
            False,
            True,
        ]

    run(main())


@pytest.mark.parametrize(
    ("realm", "declared", "allowed"),
    [
        ("http://auth.example/token", {}, False),
        ("http://auth.example/token", {"registry_example": "https://cache.example"}, False),
        ("http://auth.example/token", {"registry_example": "http://127.0.0.1:5000"}, True),
        ("http://auth.example/token", {"auth_example": "http://127.0.0.1:5001"}, True),
    ],
)
def test_a_realm_is_https_unless_the_operator_said_otherwise(
    realm: str, declared: dict[str, str], allowed: bool
) -> None:
    client = Realm({"token": "abc"}, **declared)
    if allowed:
        assert ask(client, [f'Bearer realm="{realm}"']) == "Bearer abc"
    else:
        with pytest.raises(UpstreamForbidden):
            ask(client, [f'Bearer realm="{realm}"'])
        assert client.asked == []


@pytest.mark.parametrize("lines", [[], ["Basic realm=x"], ["Bearer service=x"]])
def test_without_a_bearer_realm_there_is_no_token(lines: list[str]) -> None:
    realm = Realm({"token": "abc"})
    assert ask(realm, lines) is None
    assert realm.asked == []


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_realm_that_denies_the_anonymous_gives_none(status: int) -> None:
    assert ask(Realm({}, status)) is None


@pytest.mark.parametrize(
    "grant",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": 5}',
        b'{"token": ""}',
        b'{"token": "a b"}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": "\\u00e9"}',
        b'{"token": "' + b"a" * 16_385 + b'"}',
        b'{"token": "' + b"a" * 70_000 + b'"}',
    ],
)
def test_what_is_no_token_is_the_realms_fault(grant: bytes) -> None:
    with pytest.raises(UpstreamMisbehaved, match=r"auth\.example"):
        ask(Realm(grant))


def test_a_busy_realm_says_when_to_come_back() -> None:
    with pytest.raises(UpstreamBusy) as busy:
        ask(Realm({}, 429, {"retry-after": "7"}))
    assert busy.value.retry_after == "7"


@pytest.mark.parametrize("realm", ["ftp://auth.example/", "//auth.example/token", "token", "https://[x/"])
def test_a_realm_that_is_no_url_is_the_upstreams_fault(realm: str) -> None:
    with pytest.raises(UpstreamError):
        ask(Realm({"token": "abc"}), [f'Bearer realm="{realm}"'])


# The operator's account

ACCOUNT = Basic("acme", "s3cret:\u00e9")


def ask_as(realm: Realm, lines: list[str], host: str = "registry.example") -> str | None:
    tokens, _ = made(realm)
    return run(tokens.ask(host, SCOPE, lines, ACCOUNT))


def test_an_account_is_shown_to_the_realm_and_its_token_is_kept_apart() -> None:
    async def main() -> None:
        realm = Realm({"token": "abc"}, auth_example="https://auth.example")
        tokens, _ = made(realm)
        assert await tokens.ask("registry.example", SCOPE, CHALLENGE, ACCOUNT) == "Bearer abc"
        ((line,),) = realm.shown
        name, _, encoded = line.partition(" Basic ")
        assert (name, b64decode(encoded).decode()) == ("Authorization:", "acme:s3cret:\u00e9")
        assert tokens.held("registry.example", SCOPE, "acme") == "Bearer abc"
        assert tokens.held("registry.example", SCOPE) is None
        assert tokens.held("registry.example", SCOPE, "other") is None

    run(main())


@pytest.mark.parametrize(
    ("registry", "realm", "allowed"),
    [
        ("ghcr.io", "ghcr.io", True),
        ("registry-1.docker.io", "auth.docker.io", True),
        ("registry.gitlab.com", "gitlab.com", True),
        ("reg.acme.co.uk", "auth.acme.co.uk", True),
        ("reg.acme.example:5000", "auth.acme.example:5001", True),
        ("reg.acme.co.uk", "auth.evil.co.uk", False),
        ("acme.azurecr.io", "evil.azurecr.io", False),
        ("acme.github.io", "evil.github.io", False),
        ("docker.io", "docker.io.evil.example", False),
        ("ghcr.io", "evil.example", False),
        ("ghcr.io", "io", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("[2001:db8::1]", "[2001:db8::2]", False),
        ("reg.example", "declared.example", True),
    ],
)
def test_an_account_goes_to_realms_that_the_registry_vouches_for(registry: str, realm: str, allowed: bool) -> None:
    """A registry whose answers somebody has taken over could send passwords anywhere."""
    client = Realm({"token": "abc"}, declared_example="https://x.example")
    lines = [f'Bearer realm="https://{realm}/token"']
    if allowed:
        assert ask_as(client, lines, registry) == "Bearer abc"
    else:
        with pytest.raises(UpstreamForbidden, match="declare it"):
            ask_as(client, lines, registry)
        assert client.asked == []
        # Nobody's token may come from anywhere.
        assert ask(client, lines, registry) == "Bearer abc"


def test_a_registry_that_wants_basic_is_sent_it_without_a_question_for_a_while() -> None:
    async def main() -> None:
        realm = Realm({})
        tokens, clock = made(realm)
        assert await tokens.ask("registry.example", SCOPE, ['Basic realm="x"'], ACCOUNT) == ACCOUNT.header()
        assert realm.asked == []
        clock.now += BASIC_LIFE - 1
        assert tokens.held("registry.example", SCOPE, "acme") == ACCOUNT.header()
        clock.now += 2
        assert tokens.held("registry.example", SCOPE, "acme") is None

    run(main())


def test_credentials_are_in_no_repr() -> None:
    fetch = Fetch(url="https://x", then=lambda head: Reply(200))
    login = Login(registry="x", scopes=(), credentials=ACCOUNT, then=lambda granted: Reply(200))
    for shown in (repr(ACCOUNT), repr(RefreshToken("s3cret")), repr(login), f"{fetch} {login}"):
        assert "s3cret" not in shown
