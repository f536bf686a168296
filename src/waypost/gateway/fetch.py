"""Carries out a `Fetch`: asks the upstream, with a token if it wants one, and lets the decision go on."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from waypost.routing.decision import Fetch, Final, Login, Redirect, Refuse, Relay, Reply, UpstreamHead
from waypost.upstream.client import Response, Target
from waypost.upstream.failure import (
    UpstreamBusy,
    UpstreamError,
    UpstreamForbidden,
    UpstreamMisbehaved,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from waypost.upstream.guard import check_handed_over
from waypost.upstream.upstreams import Upstreams

# A Fetch may lead to a Fetch (an upstream that redirects to itself). Beyond this many it is a loop.
MOST_FETCHES = 5
# A body that takes longer to read than a request may wait for another.
MUCH_BYTES = 128 * 1024
# How long what is welcome, but not needed, may hold up an answer.
WELCOME_SECONDS = 3.0

_CODES: dict[type[UpstreamError], tuple[int, str]] = {
    UpstreamUnreachable: (502, "UPSTREAM_UNREACHABLE"),
    UpstreamTimeout: (504, "UPSTREAM_TIMEOUT"),
    UpstreamMisbehaved: (502, "UPSTREAM_MISBEHAVED"),
    UpstreamForbidden: (502, "UPSTREAM_FORBIDDEN"),
    UpstreamBusy: (429, "TOOMANYREQUESTS"),
}


async def carry_out(fetch: Fetch, upstreams: Upstreams) -> tuple[Final, Response | bytes]:
    """The final decision, and the body of a Relay: a Response to iterate and close, or bytes already read.

    If iterating raises UpstreamError, cut the client's connection: to end it would make a part look like the
    whole. For every other decision the body is empty here; a Reply has its own.

    Never raises UpstreamError: a failure becomes a Refuse that names the upstream. The connection to the
    upstream is released whatever happens, cancellation included.
    """
    try:
        for _ in range(MOST_FETCHES):
            decision, body = await _within_its_time(fetch, upstreams)
            if not isinstance(decision, Fetch):
                return decision, body
            fetch = decision
        raise UpstreamMisbehaved(upstreams.client.target(fetch.url).host, "redirects in circles")
    except UpstreamError as error:
        return fetch.instead or refusal(error), b""


async def log_in(login: Login, upstreams: Upstreams) -> Reply | Refuse:
    """Never raises UpstreamError: a failure becomes a Refuse that names the upstream."""
    try:
        return login.then(await upstreams.log_in(login.registry, login.scopes, login.credentials))
    except UpstreamError as error:
        return refusal(error)


async def _within_its_time(fetch: Fetch, upstreams: Upstreams) -> tuple[Final | Fetch, Response | bytes]:
    if fetch.instead is None:
        return await _once(fetch, upstreams)
    try:
        async with asyncio.timeout(WELCOME_SECONDS):
            return await _once(fetch, upstreams)
    except TimeoutError:
        return fetch.instead, b""


def refusal(error: UpstreamError) -> Refuse:
    status, code = _CODES[type(error)]
    retry_after = error.retry_after if isinstance(error, UpstreamBusy) else None
    headers = (("Retry-After", retry_after),) if retry_after else ()
    return Refuse(status, code, f"The upstream {error.host} cannot serve this now: {error.why}.", headers)


async def _once(fetch: Fetch, upstreams: Upstreams) -> tuple[Final | Fetch, Response | bytes]:
    answer = await upstreams.open(
        fetch.method,
        fetch.url,
        fetch.headers,
        scope=fetch.scope,
        published=fetch.published,
        authorization=fetch.authorization,
    )
    streaming = False
    try:
        body = await answer.read(fetch.buffer) if fetch.buffer else b""
        decision = await _then(fetch, UpstreamHead(answer.status, answer.headers, body))
        if isinstance(decision, Redirect):
            check_redirect(upstreams.client.target(fetch.url), decision)
        streaming = isinstance(decision, Relay) and not fetch.buffer
        return decision, answer if streaming else body
    finally:
        if not streaming:
            await answer.aclose()


async def _then(fetch: Fetch, head: UpstreamHead) -> Redirect | Reply | Refuse | Relay | Fetch:
    """What is decided about an answer. Much to read is read in a thread, so that other requests need not wait."""
    if len(head.body) < MUCH_BYTES:
        return fetch.then(head)
    return await asyncio.get_running_loop().run_in_executor(None, fetch.then, head)


def check_redirect(upstream: Target, decision: Redirect) -> None:
    """An upstream says where the client is sent now. One that is declared may use the operator's own network.

    Raises UpstreamForbidden.
    """
    if upstream.declared:
        return
    try:
        check_handed_over(urlsplit(decision.location).hostname or "")
    except UpstreamForbidden as forbidden:
        raise UpstreamForbidden(upstream.host, forbidden.why) from None
