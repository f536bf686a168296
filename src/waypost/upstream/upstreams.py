"""Asks upstreams, with whatever authorisation they want and we may use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from waypost.routing.decision import Headers
from waypost.upstream.client import Client, Response
from waypost.upstream.declared import Declared
from waypost.upstream.tokens import Tokens


class Upstreams:
    """All that a process needs to talk to upstreams. One per worker, made inside its event loop."""

    def __init__(self, client: Client, tokens: Tokens | None = None) -> None:
        self.client = client
        self.tokens = tokens or Tokens(client)

    def declare(self, declared: Mapping[str, Declared]) -> None:
        """Takes other declared upstreams from the next request on; requests under way end as they began."""
        if declared != self.client.declared:
            self.client.declared = declared
            self.tokens.forget()

    async def open(self, method: str, url: str, headers: Headers = (), scope: str | None = None) -> Response:
        """The upstream's answer, by token if it wants one. A 401 that no token helps against is an answer.

        scope  of the token to ask for if the upstream challenges; None: no token is asked for

        Raises UpstreamError. Whoever has the answer closes it.
        """
        client, tokens = self.client, self.tokens
        target = client.target(url)
        # A token must not cross a network in the clear, unless the operator sends us there that way.
        secure = target.declared or target.url.scheme == "https"
        if scope is None or not secure:
            return await client.open(method, url, headers)
        host = target.host
        held = tokens.held(host, scope)
        answer = await client.open(method, url, _with(headers, held))
        if answer.status != 401:
            return answer
        try:
            if held is not None:
                tokens.drop(host, scope, held)
            token = await tokens.ask(host, scope, answer.header_all("www-authenticate"))
        except BaseException:
            await answer.aclose()
            raise
        if token is None:
            return answer
        await answer.aclose()
        return await client.open(method, url, _with(headers, token))

    async def close(self) -> None:
        await self.client.close()


def _with(headers: Iterable[tuple[str, str]], token: str | None) -> Headers:
    return (*headers, ("Authorization", f"Bearer {token}")) if token else tuple(headers)
