"""Which of several upstreams answers: the first healthy one, then the others."""

from __future__ import annotations

import logging
from typing import TypeGuard
from urllib.parse import urlsplit

import msgspec

from waypost.gateway.fetch import carry_out
from waypost.gateway.pins import Pins
from waypost.routing.decision import Fetch, Final, Redirect, Refuse
from waypost.upstream.client import Response
from waypost.upstream.health import Health, retry_after
from waypost.upstream.upstreams import Upstreams

logger = logging.getLogger("waypost")


def is_failure(final: Final) -> TypeGuard[Refuse]:
    """Whether an answer says something of the upstream's health, rather than of what was asked for."""
    return isinstance(final, Refuse) and (final.status >= 500 or final.status == 429)


async def ask_in_order(fetch: Fetch, upstreams: Upstreams, health: Health) -> tuple[Final, Response | bytes]:
    """What `carry_out` gives, of the first upstream that can tell.

    An upstream that fails is passed over. One that does not know what was asked for (404) decides, unless the
    question is content-addressed: then whoever has it may serve it. If nobody does, a failure weighs more than a
    404: it may be there after all.
    """
    refusals: list[Refuse] = []
    for candidate in health.order((fetch, *fetch.others), _host):
        final, body = await carry_out(candidate, upstreams)
        # A quota that one login has used up says nothing of how others are served.
        if not (candidate.authorization and isinstance(final, Refuse) and final.status == 429):
            _note(health, candidate, final if is_failure(final) else None)
        if not isinstance(final, Refuse) or not (is_failure(final) or (final.status == 404 and fetch.alike)):
            return final, body
        refusals.append(final)
    return next((refusal for refusal in refusals if is_failure(refusal)), refusals[0]), b""


def choose(redirect: Redirect, health: Health, pins: Pins) -> Redirect:
    """The redirect to the upstream that clients are to go to now.

    What is pinned comes from one upstream for all, whatever this worker has found. The rest comes from that one, too,
    if it is up: a mirror that is behind the index may not have it yet.
    """
    candidates = (redirect, *redirect.others)
    if redirect.pin is not None:
        return min(candidates, key=lambda one: pins.rank(_host_of(one)))

    def preference(one: Redirect) -> tuple[bool, float]:
        host = _host_of(one)
        return pins.is_down(host) or not health.is_up(host), pins.rank(host)

    return min(candidates, key=preference)


def pinned(fetch: Fetch, pins: Pins) -> Fetch:
    """The question to the one upstream that all are sent to."""
    first = min((fetch, *fetch.others), key=lambda one: pins.rank(_host(one)))
    return msgspec.structs.replace(first, others=(), alike=fetch.alike)


def roots(decision: Redirect | Fetch) -> list[str]:
    """Of each upstream that may be chosen the URL that tells whether it is up."""
    if isinstance(decision, Redirect):
        return [one.root or _root(one.location) for one in (decision, *decision.others)]
    return [_root(one.url) for one in (decision, *decision.others)]


def all_down(fetch: Fetch, health: Health) -> bool:
    """Whether every upstream that might answer is known to be down."""
    return not health.is_up(_host(health.order((fetch, *fetch.others), _host)[0]))


def _note(health: Health, asked: Fetch, failure: Refuse | None) -> None:
    """Learns from an answer, and tells the operator when an upstream goes down or comes back."""
    host = _host(asked)
    if failure is None:
        if health.succeeded(host):
            logger.info("upstream %s answers again", host)
        return
    said = next((value for name, value in failure.headers if name.lower() == "retry-after"), None)
    pause = health.failed(host, failure.message, retry_after(said), _probe(asked))
    if pause:
        logger.warning("upstream %s fails, and is asked last for %.0f s: %s", host, pause, failure.message)


def _host(fetch: Fetch) -> str:
    return urlsplit(fetch.url).netloc


def _host_of(redirect: Redirect) -> str:
    # Roots are few, so that splitting one again is a look-up.
    return urlsplit(redirect.root or redirect.location).netloc


def _root(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/"


def _probe(fetch: Fetch) -> str | None:
    """The URL by which a registry tells that it is there; None for a host that is asked as no registry is."""
    parts = urlsplit(fetch.url)
    return f"{parts.scheme}://{parts.netloc}/v2/" if parts.path.startswith("/v2/") else None
