"""Asks upstreams, with whatever authorisation they want and we may use."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from waypost.routing.decision import Basic, Credentials, Headers
from waypost.upstream.accounts import Accounts
from waypost.upstream.challenge import ChallengeError, bearer, parse_challenges
from waypost.upstream.client import Client, Response
from waypost.upstream.declared import Declared
from waypost.upstream.failure import UpstreamForbidden, UpstreamMisbehaved
from waypost.upstream.realm import ask_realm
from waypost.upstream.tokens import Tokens

logger = logging.getLogger("waypost")

# How long, in seconds, a repository that anybody may read is taken for one.
PUBLIC_SECONDS = 3600.0
_MOST_PUBLIC = 10_000
# How long, in seconds, a login is good for at a registry that wants Basic and says nothing of time.
LOGIN_SECONDS = 300.0


class Upstreams:
    """All that a process needs to talk to upstreams. One per worker, made inside its event loop."""

    def __init__(
        self,
        client: Client,
        tokens: Tokens | None = None,
        accounts: Accounts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client = client
        self.tokens = tokens or Tokens(client)
        self.accounts = accounts or Accounts(client)
        self._clock = clock
        self._public: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._refused: set[tuple[str, str]] = set()

    def declare(self, declared: Mapping[str, Declared]) -> None:
        """Takes other declared upstreams from the next request on; requests under way end as they began."""
        if declared != self.client.declared:
            self.client.declared = declared
            self.tokens.forget()
            self.accounts.forget()
            self._public.clear()
            self._refused.clear()

    async def open(
        self,
        method: str,
        url: str,
        headers: Headers = (),
        *,
        scope: str | None = None,
        published: bool = False,
        authorization: str | None = None,
    ) -> Response:
        """The upstream's answer, with what it takes to be let in. A 401 that nothing helps against is an answer.

        scope          of the token to ask for if the upstream challenges; None: none is asked for
        published      whether the operator's own account may be used for what not everybody may read
        authorization  a client's own, sent as it is, and instead of ours

        Raises UpstreamError. Whoever has the answer closes it.
        """
        target = self.client.target(url)
        # Neither tokens nor passwords cross a network in the clear, unless the operator sends us there that way.
        secure = target.declared or target.url.scheme == "https"
        if authorization is not None:
            if not secure:
                raise UpstreamForbidden(target.host, "it is reached by plain http, where nobody's login is sent")
            return await self.client.open(method, url, (*headers, ("Authorization", authorization)))
        if scope is None or not secure:
            return await self.client.open(method, url, headers)
        account = await self.accounts.of(target.host)
        if account is not None and not published and not await self._is_public(target.host, url, headers, scope):
            account = None
        if account is not None:
            try:
                answer = await self._let_in(target.host, method, url, headers, scope, account)
            except UpstreamForbidden as error:
                self._complain(target.host, str(error))
            else:
                if answer.status != 401:
                    return answer
                # Docker Hub answers so about what does not exist, too: that says nothing of the account.
                await answer.aclose()
        return await self._let_in(target.host, method, url, headers, scope, None)

    async def _let_in(
        self, host: str, method: str, url: str, headers: Headers, scope: str, account: Basic | None
    ) -> Response:
        username = account.username if account else ""
        held = self.tokens.held(host, scope, username)
        answer = await self.client.open(method, url, _with(headers, held))
        if answer.status == 400 and held is not None:
            # Amazon ECR Public says so of a token that is no longer good, and challenges only who brings none.
            await answer.aclose()
            answer = await self.client.open(method, url, headers)
        if answer.status != 401:
            return answer
        try:
            if held is not None:
                self.tokens.drop(host, scope, held, username)
            fresh = await self.tokens.ask(host, scope, answer.header_all("www-authenticate"), account)
        except BaseException:
            await answer.aclose()
            raise
        if fresh is not None:
            await answer.aclose()
            answer = await self.client.open(method, url, _with(headers, fresh))
        if account is not None and answer.status == 401 and not (fresh or "").startswith("Bearer "):
            self._complain(host, f"{account.username} is not let in")
        return answer

    async def _is_public(self, host: str, url: str, headers: Headers, scope: str) -> bool:
        """Whether anybody may read what `url` names, as a HEAD without account tells; registries do not meter those.

        Else an account that raises a quota would publish all that it can read.
        """
        key = (host, scope)
        if self._public.get(key, 0.0) > self._clock():
            return True
        answer = await self._let_in(host, "HEAD", url, headers, scope, None)
        await answer.aclose()
        if answer.status >= 400:
            return False
        self._public[key] = self._clock() + PUBLIC_SECONDS
        self._public.move_to_end(key)
        if len(self._public) > _MOST_PUBLIC:
            self._public.popitem(last=False)
        return True

    async def log_in(
        self, registry: str, scopes: tuple[str, ...], credentials: Credentials
    ) -> tuple[str, float] | None:
        """What `registry` lets the owner of `credentials` in with, and for how many seconds; None: it does not.

        "" if it lets anybody in. Nothing of it is kept here. Raises UpstreamError.
        """
        url = f"https://{registry}/v2/"
        ping = await self.client.open("GET", url)
        await ping.aclose()
        if ping.status == 200:
            return "", LOGIN_SECONDS
        if ping.status != 401:
            raise UpstreamMisbehaved(registry, f"answers {ping.status} to /v2/")
        try:
            challenges = parse_challenges(ping.header_all("www-authenticate"))
        except ChallengeError as error:
            raise UpstreamMisbehaved(registry, f"its WWW-Authenticate cannot be read: {error}") from None
        challenge = bearer(challenges)
        if challenge is not None:
            grant = await ask_realm(self.client, registry, challenge, scopes, credentials)
            return None if grant is None else (f"Bearer {grant.token}", grant.life)
        if not isinstance(credentials, Basic) or not any(one.scheme == "basic" for one in challenges):
            return None
        checked = await self.open("GET", url, authorization=credentials.header())
        await checked.aclose()
        # Amazon ECR says 400 to a password that is none of its own, and 403 to one that has expired.
        if checked.status in (400, 401, 403):
            return None
        if checked.status != 200:
            raise UpstreamMisbehaved(registry, f"answers {checked.status} to /v2/")
        return credentials.header(), LOGIN_SECONDS

    def _complain(self, host: str, why: str) -> None:
        """Once for each host and reason, until the configuration changes."""
        if (host, why) not in self._refused and len(self._refused) < 1000:
            self._refused.add((host, why))
            logger.warning("the account for upstream %s is of no use, and it is asked as nobody: %s", host, why)

    async def close(self) -> None:
        await self.client.close()


def _with(headers: Headers, authorization: str | None) -> Headers:
    return (*headers, ("Authorization", authorization)) if authorization else headers
