"""What registries let us in with: tokens that anybody is given, and those of the operator's own account.

Kept are whole Authorization lines, so that a registry that wants Basic needs no token and no second way.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from msgspec import Struct

from waypost.routing.decision import Basic
from waypost.upstream.challenge import ChallengeError, bearer, parse_challenges
from waypost.upstream.client import Client
from waypost.upstream.failure import UpstreamMisbehaved
from waypost.upstream.realm import ask_realm

# How long, in seconds, a registry that wants Basic is sent it without being asked for it first.
BASIC_LIFE = 300.0
_MOST = 10_000

# (upstream, scope, username of the operator's account or "")
Key = tuple[str, str, str]


class _Held(Struct, frozen=True):
    authorization: str
    until: float


class Tokens:
    """Keeps what was granted per (upstream, scope, account) until shortly before it expires; at most `most`."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        self._client = client
        self._clock = clock
        self._most = most
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        self._asking: dict[Key, asyncio.Task[str | None]] = {}

    def held(self, host: str, scope: str, username: str = "") -> str | None:
        """An Authorization value that is still good, or None. `username`: of the operator's account, "" for none."""
        key = (host, scope, username)
        held = self._held.get(key)
        if held is None:
            return None
        if held.until <= self._clock():
            del self._held[key]
            return None
        self._held.move_to_end(key)
        return held.authorization

    def drop(self, host: str, scope: str, authorization: str, username: str = "") -> None:
        """The upstream did not accept it. A newer one stays."""
        held = self._held.get((host, scope, username))
        if held is not None and held.authorization == authorization:
            del self._held[host, scope, username]

    def forget(self) -> None:
        """Drops all of them: declared upstreams have changed."""
        self._held.clear()

    async def ask(self, host: str, scope: str, lines: Sequence[str], account: Basic | None = None) -> str | None:
        """An Authorization value for what `host` challenged us with (its WWW-Authenticate lines), as `account` or as
        nobody. Concurrent askers share one question.

        None: there is no challenge that we can meet, or nothing is granted. Raises UpstreamError.
        """
        username = account.username if account else ""
        if held := self.held(host, scope, username):
            return held
        try:
            challenges = parse_challenges(lines)
        except ChallengeError as error:
            raise UpstreamMisbehaved(host, f"its WWW-Authenticate cannot be read: {error}") from None
        key = (host, scope, username)
        challenge = bearer(challenges)
        if challenge is None:
            if account is None or not any(one.scheme == "basic" for one in challenges):
                return None
            return self._keep(key, account.header(), BASIC_LIFE)
        asking = self._asking.get(key)
        if asking is None:

            async def ask() -> str | None:
                grant = await ask_realm(self._client, host, challenge, [scope], account)
                if grant is None:
                    return None
                return self._keep(key, f"Bearer {grant.token}", grant.life - min(10.0, grant.life / 10))

            asking = asyncio.create_task(ask())
            self._asking[key] = asking
            asking.add_done_callback(lambda done: self._asked(key, done))
        # Shielded: whoever asked first may go away, the others still wait.
        return await asyncio.shield(asking)

    def _asked(self, key: Key, done: asyncio.Task[str | None]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # taken note of, even if every asker has gone away

    def _keep(self, key: Key, authorization: str, life: float) -> str:
        self._held[key] = _Held(authorization, self._clock() + life)
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        return authorization
