"""Anonymous Bearer tokens, as registries want them (distribution spec: token authentication).

A token is asked from the realm that an upstream's challenge names, and sent only to that upstream. Nothing of
ours goes to a realm but the scope, since every token here is anonymous. When the maintainer's own credentials
are added, they must go only to a realm that is on the upstream's own host, or is itself a declared upstream.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from waypost.upstream.challenge import Challenge, ChallengeError, bearer, parse_challenges
from waypost.upstream.client import Client
from waypost.upstream.failure import UpstreamBusy, UpstreamForbidden, UpstreamMisbehaved

DEFAULT_LIFE = 60.0  # "expires_in … if omitted, this defaults to 60 seconds": distribution token spec
LONGEST_LIFE = 3600.0
LARGEST_ANSWER = 65_536
LARGEST_TOKEN = 16_384
_MOST = 10_000


class _Grant(Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


class _Held(Struct, frozen=True):
    token: str
    until: float


_decode = msgspec.json.Decoder(_Grant, strict=False).decode


class Tokens:
    """Keeps tokens per (upstream, scope) until shortly before they expire; at most `most` of them."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        self._client = client
        self._clock = clock
        self._most = most
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[str | None]] = {}

    def held(self, host: str, scope: str) -> str | None:
        """A token that is still good, or None."""
        held = self._held.get((host, scope))
        if held is None:
            return None
        if held.until <= self._clock():
            del self._held[host, scope]
            return None
        self._held.move_to_end((host, scope))
        return held.token

    def drop(self, host: str, scope: str, token: str) -> None:
        """The upstream did not accept `token`. A newer one stays."""
        held = self._held.get((host, scope))
        if held is not None and held.token == token:
            del self._held[host, scope]

    def forget(self) -> None:
        """Drops every token: declared upstreams have changed."""
        self._held.clear()

    async def ask(self, host: str, scope: str, lines: Sequence[str]) -> str | None:
        """A token for what `host` challenged us with (its WWW-Authenticate lines). Concurrent askers share
        one question.

        None: there is no Bearer challenge, or the realm gives none to the anonymous. Raises UpstreamError.
        """
        if token := self.held(host, scope):
            return token
        try:
            challenge = bearer(parse_challenges(lines))
        except ChallengeError as error:
            raise UpstreamMisbehaved(host, f"its WWW-Authenticate cannot be read: {error}") from None
        if challenge is None:
            return None
        key = (host, scope)
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.create_task(self._fetch(key, challenge))
            self._asking[key] = asking
            asking.add_done_callback(lambda done: self._asked(key, done))
        # Shielded: whoever asked first may go away, the others still wait.
        return await asyncio.shield(asking)

    def _asked(self, key: tuple[str, str], done: asyncio.Task[str | None]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # taken note of, even if every asker has gone away

    async def _fetch(self, key: tuple[str, str], challenge: Challenge) -> str | None:
        url = self._question(key, challenge)
        realm = self._client.target(url).host
        answer = await self._client.open("GET", url, (("Accept", "application/json"),))
        try:
            if answer.status == 429:
                raise UpstreamBusy(realm, "asks us to come back later", answer.header("retry-after"))
            if answer.status in (400, 401, 403, 404):
                return None
            if answer.status != 200:
                raise UpstreamMisbehaved(realm, f"answered {answer.status} when asked for a token")
            body = await answer.read(LARGEST_ANSWER)
        finally:
            await answer.aclose()
        token, life = _read(realm, body)
        self._keep(key, _Held(token, self._clock() + life - min(10.0, life / 10)))
        return token

    def _question(self, key: tuple[str, str], challenge: Challenge) -> str:
        host, scope = key
        realm = challenge.parameters["realm"]
        target = self._client.target(realm)  # raises if it is no URL that we would ever visit
        parts = urlsplit(realm)
        if parts.scheme == "http" and not (target.declared or self._is_plain(host)):
            raise UpstreamForbidden(target.host, "its token realm is not https")
        service = challenge.parameters.get("service")
        asked = urlencode([(name, text) for name, text in (("service", service), ("scope", scope)) if text])
        query = f"{parts.query}&{asked}" if parts.query else asked
        return parts._replace(query=query, fragment="").geturl()

    def _is_plain(self, host: str) -> bool:
        """A token must not cross a network in the clear, unless the operator has sent us there that way."""
        upstream = self._client.declared.get(host)
        return upstream is not None and (upstream.connect or "").startswith("http://")

    def _keep(self, key: tuple[str, str], held: _Held) -> None:
        self._held[key] = held
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)


def _read(realm: str, body: bytes) -> tuple[str, float]:
    """(token, life in seconds) from a realm's answer. `issued_at` plays no part: clocks differ."""
    try:
        grant = _decode(body)
    except msgspec.DecodeError:
        raise UpstreamMisbehaved(realm, "its answer holds no token") from None
    token = grant.token or grant.access_token
    # RFC 6750 section 2.1: b68token. We allow any visible ASCII, and nothing that could end a header line.
    if not token or len(token) > LARGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UpstreamMisbehaved(realm, "its answer holds no token")
    life = grant.expires_in if grant.expires_in is not None else DEFAULT_LIFE
    return token, min(max(life, 0.0), LONGEST_LIFE)
