"""Who is told of credentials: the operator's account and the logins of users, against registries on loopback."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from waypost.routing.decision import Basic, RefreshToken
from waypost.upstream.accounts import COMPLAINT_SECONDS, RENEW_SECONDS, Accounts
from waypost.upstream.client import Client
from waypost.upstream.declared import AccountError, Declared, by_host
from waypost.upstream.ecr import EcrLogin, ask_aws, region_of
from waypost.upstream.failure import UpstreamForbidden, UpstreamMisbehaved
from waypost.upstream.upstreams import PUBLIC_SECONDS, Upstreams

SCOPE = "repository:acme/x:pull"
URL = "https://reg.example/v2/acme/x/manifests/1"
ME = Basic("acme", "s3cret")
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


class Registry:
    """A registry and its realm in one. `readers`: who may read acme/x; "" is everybody."""

    def __init__(self) -> None:
        self.readers = {"", "acme"}
        self.accounts = {"acme": "s3cret"}
        self.realm = "https://reg.example/token"
        self.challenge = "Bearer"
        self.seen: list[str] = []

    async def serve(self, request: web.Request) -> web.Response:
        shown = request.headers.get("Authorization", "")
        who = self._who(shown)
        name = who if who is not None else "?"
        self.seen.append(f"{request.method} {request.path} {name}".strip())
        if request.path == "/token":
            return await self._token(request, shown)
        if request.path == "/v2/":
            return web.Response(status=200 if who else 401, headers=self._ask(shown))
        allowed = who is not None and who in self.readers and (self.challenge == "Basic" or shown)
        return web.Response(status=200 if allowed else 401, headers={} if allowed else self._ask(shown))

    def _ask(self, shown: str) -> dict[str, str]:
        if self.challenge == "Basic":
            return {"WWW-Authenticate": 'Basic realm="reg"'}
        return {"WWW-Authenticate": f'Bearer realm="{self.realm}",service="reg"'}

    def _who(self, shown: str) -> str | None:
        """The name behind an Authorization; "" for nobody, None for a wrong one."""
        scheme, _, rest = shown.partition(" ")
        if scheme == "Bearer":
            return rest.removeprefix("for-")
        if scheme != "Basic":
            return ""
        name, _, password = b64decode(rest).decode().partition(":")
        return name if self.accounts.get(name) == password else None

    async def _token(self, request: web.Request, shown: str) -> web.Response:
        who = self._who(shown)
        if request.method == "POST":
            form = dict(await request.post())
            self.seen.append(f"form {sorted(form.items())}")
            who = "acme" if form.get("refresh_token") == "r3fresh" else None
        if who is None:
            return web.Response(status=401)
        return web.json_response({"token": f"for-{who}", "expires_in": 300})


class House:
    def __init__(self, registry: Registry, url: str, **account: Any) -> None:
        self.registry = registry
        self.now = 0.0
        self.declared = Declared(host="reg.example", connect=url, **account)
        self.aws_asked: list[str] = []
        self.aws: Callable[[str], EcrLogin] = self._aws
        client = Client(by_host([self.declared, Declared(host=ECR, connect=url)]))
        accounts = Accounts(client, lambda region: self.aws(region), lambda: self.now)
        self.upstreams = Upstreams(client, accounts=accounts, clock=lambda: self.now)

    def _aws(self, region: str) -> EcrLogin:
        self.aws_asked.append(region)
        return EcrLogin(Basic("AWS", "tok"), self.now + 43_200)

    async def status(self, published: bool = False, **more: Any) -> int:
        answer = await self.upstreams.open("GET", more.pop("url", URL), scope=SCOPE, published=published, **more)
        await answer.aclose()
        return answer.status


def scenario(function: Callable[[House], Coroutine[Any, Any, None]], **account: Any) -> None:
    @asynccontextmanager
    async def house() -> AsyncIterator[House]:
        registry = Registry()
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", registry.serve)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made = House(registry, f"http://127.0.0.1:{runner.addresses[0][1]}", **account)
        try:
            yield made
        finally:
            await made.upstreams.close()
            await runner.cleanup()

    async def main() -> None:
        async with house() as made:
            await function(made)

    asyncio.run(main())


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("WAYPOST_TEST_PASSWORD", "s3cret")
    return {"username": "acme", "password_env": "WAYPOST_TEST_PASSWORD"}


# The operator's account


def test_an_account_reads_what_anybody_may_read(own: dict[str, str]) -> None:
    async def story(house: House) -> None:
        assert await house.status() == 200
        assert house.registry.seen[-1] == "GET /v2/acme/x/manifests/1 acme"
        asked = len(house.registry.seen)
        assert await house.status() == 200
        # With the token that is held, and without asking again whether the image is public.
        assert house.registry.seen[asked:] == ["GET /v2/acme/x/manifests/1 acme"]
        house.now += PUBLIC_SECONDS + 1
        await house.status()
        assert "HEAD /v2/acme/x/manifests/1" in house.registry.seen[asked + 1 :]
        # What the metrics show as requests sent to upstreams.
        assert house.upstreams.client.asked == len(house.registry.seen)

    scenario(story, **own)


def test_an_account_publishes_nothing_by_itself(own: dict[str, str]) -> None:
    async def story(house: House) -> None:
        house.registry.readers = {"acme"}
        assert await house.status() == 401
        assert not any(line.endswith(" acme") for line in house.registry.seen)
        assert await house.status(published=True) == 200
        # What is published by name is so under that name only.
        assert await house.status() == 401

    scenario(story, **own)


@pytest.mark.parametrize("published", [True, False])
def test_a_registry_that_wants_basic_is_given_it(own: dict[str, str], published: bool) -> None:
    async def story(house: House) -> None:
        house.registry.challenge = "Basic"
        house.registry.readers = {"acme"} if published else {"", "acme"}
        assert await house.status(published) == 200
        assert await house.status(published) == 200
        assert any("acme" in line.split()[2:] for line in house.registry.seen) == published

    scenario(story, **own)


def test_a_wrong_password_is_told_once_and_costs_nothing_but_the_quota(
    own: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def story(house: House) -> None:
        house.registry.accounts = {"acme": "another"}
        assert await house.status(published=True) == 200
        assert await house.status(published=True) == 200
        assert house.registry.seen[-1] == "GET /v2/acme/x/manifests/1"

    scenario(story, **own)
    (line,) = caplog.messages
    assert "reg.example" in line
    assert "acme is not let in" in line
    assert "s3cret" not in line


def test_a_hostile_realm_gets_no_account(own: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    async def story(house: House) -> None:
        house.registry.realm = "https://reg.example.evil.example/token"
        with pytest.raises(
            Exception, match=r"reg\.example\.evil\.example"
        ):  # nobody's token: the name is not to be had
            await house.status(published=True)
        assert not any(line.startswith("GET /token") for line in house.registry.seen)

    scenario(story, **own)
    (line,) = caplog.messages
    assert "is no kin of it" in line


@pytest.mark.parametrize(
    ("account", "why"),
    [
        ({"password_env": "WAYPOST_TEST_NOT_THERE"}, "the environment has no WAYPOST_TEST_NOT_THERE"),
        ({"password_file": "/nowhere/secret"}, "/nowhere/secret cannot be read: No such file or directory"),
    ],
)
def test_a_password_that_is_not_there_is_told_and_everybodys_images_stay(
    account: dict[str, str], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(house: House) -> None:
        assert await house.status() == 200
        assert await house.status() == 200
        assert len(caplog.messages) == 1
        house.now += COMPLAINT_SECONDS + 1
        assert await house.status() == 200

    scenario(story, username="acme", **account)
    assert caplog.messages == [f"no account for upstream reg.example, which is asked as nobody: {why}"] * 2


def test_a_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    declared = Declared(host="x", username="acme", password_file=str(file))
    for content in (b"", b"\n", b"\xff\n"):
        file.write_bytes(content)
        with pytest.raises(AccountError):
            declared.account()
    file.write_text("s3cret\nsomething else\n")
    assert declared.account() == ME
    file.write_text("changed")
    assert declared.account() == Basic("acme", "changed")


# Amazon


@pytest.mark.parametrize(
    ("host", "region"),
    [
        (ECR, "eu-west-1"),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("public.ecr.aws", None),
        (f"{ECR}.evil.example", None),
        ("1234.dkr.ecr.eu-west-1.amazonaws.com", None),
    ],
)
def test_amazons_private_registries_have_their_region_in_their_name(host: str, region: str | None) -> None:
    assert region_of(host) == region


def test_aws_is_asked_once_for_its_twelve_hours() -> None:
    async def story(house: House) -> None:
        house.registry.challenge = "Basic"
        house.registry.accounts = {"AWS": "tok"}
        house.registry.readers = {"AWS"}
        url = f"https://{ECR}/v2/acme/x/manifests/1"
        assert [await house.status(True, url=url) for _ in range(3)] == [200] * 3
        assert house.aws_asked == ["eu-west-1"]
        house.now += 43_200 - RENEW_SECONDS + 1
        assert await house.status(True, url=url) == 200
        assert house.aws_asked == ["eu-west-1"] * 2
        # Nothing there is public, so a collection shows nothing of it.
        assert await house.status(False, url=url) == 401

    scenario(story)


def test_boto3_asks_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library, against a stand-in that answers as the Amazon ECR API Reference says."""
    ends = datetime.now(UTC) + timedelta(hours=12)
    asked: list[tuple[str, str]] = []

    async def serve(request: web.Request) -> web.Response:
        asked.append((request.headers["X-Amz-Target"], request.headers["Authorization"].split("/")[2]))
        if len(asked) > 1:
            body = {"__type": "AccessDeniedException", "message": "not you"}
            return web.json_response(body, status=400, content_type="application/x-amz-json-1.1")
        data = {
            "authorizationToken": b64encode(b"AWS:p4ss").decode(),
            "expiresAt": ends.timestamp(),
            "proxyEndpoint": f"https://{ECR}",
        }
        return web.json_response({"authorizationData": [data]}, content_type="application/x-amz-json-1.1")

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/", serve)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            for name, value in {
                "AWS_ENDPOINT_URL_ECR": f"http://127.0.0.1:{runner.addresses[0][1]}",
                "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_EC2_METADATA_DISABLED": "true",
            }.items():
                monkeypatch.setenv(name, value)
            login = await asyncio.to_thread(ask_aws, "eu-west-1")
            assert login.account == Basic("AWS", "p4ss")
            assert abs(login.until - ends.timestamp()) < 1
            with pytest.raises(AccountError, match="not you"):
                await asyncio.to_thread(ask_aws, "eu-west-1")
        finally:
            await runner.cleanup()

    asyncio.run(main())
    assert asked == [("AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken", "eu-west-1")] * 2


# Logins of users


def test_a_login_is_what_its_registry_grants() -> None:
    async def story(house: House) -> None:
        log_in = house.upstreams.log_in
        assert await log_in("reg.example", (SCOPE,), ME) == ("Bearer for-acme", 300.0)
        assert await log_in("reg.example", (), ME) == ("Bearer for-acme", 300.0)
        assert await log_in("reg.example", (SCOPE,), Basic("acme", "wrong")) is None
        assert await log_in("reg.example", (SCOPE, "b"), RefreshToken("r3fresh")) == ("Bearer for-acme", 300.0)
        assert await log_in("reg.example", (SCOPE,), RefreshToken("wrong")) is None
        form = [
            ("client_id", "waypost"),
            ("grant_type", "refresh_token"),
            ("refresh_token", "r3fresh"),
            ("scope", f"{SCOPE} b"),
            ("service", "reg"),
        ]
        assert f"form {form}" in house.registry.seen

    scenario(story)


def test_a_login_at_a_registry_that_wants_basic_is_checked_there() -> None:
    async def story(house: House) -> None:
        house.registry.challenge = "Basic"
        granted = await house.upstreams.log_in("reg.example", (SCOPE,), ME)
        assert granted is not None
        assert granted[0] == ME.header()
        assert await house.upstreams.log_in("reg.example", (SCOPE,), Basic("acme", "wrong")) is None
        assert await house.upstreams.log_in("reg.example", (SCOPE,), RefreshToken("r3fresh")) is None

    scenario(story)


def test_a_hostile_realm_gets_no_login() -> None:
    async def story(house: House) -> None:
        house.registry.realm = "https://evil.example/token"
        with pytest.raises(UpstreamForbidden, match="no kin"):
            await house.upstreams.log_in("reg.example", (SCOPE,), ME)
        house.registry.challenge = "Nonsense"
        house.registry.realm = '"'
        with pytest.raises(UpstreamMisbehaved):
            await house.upstreams.log_in("reg.example", (SCOPE,), ME)

    scenario(story)


def test_a_login_takes_the_place_of_every_account(own: dict[str, str]) -> None:
    async def story(house: House) -> None:
        house.registry.readers = {"acme"}
        answer = await house.upstreams.open("GET", URL, scope=SCOPE, published=True, authorization="Bearer for-them")
        await answer.aclose()
        assert answer.status == 401
        assert house.registry.seen == ["GET /v2/acme/x/manifests/1 them"]

    scenario(story, **own)


def test_a_login_is_not_sent_in_the_clear() -> None:
    async def main() -> None:
        upstreams = Upstreams(Client({}))
        try:
            with pytest.raises(UpstreamForbidden, match="plain http"):
                await upstreams.open("GET", "http://reg.example/v2/", authorization="Bearer x")
        finally:
            await upstreams.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "waypost")
