"""Carries out a Fetch that several upstreams may answer: the first healthy one, then the others."""

from __future__ import annotations

import logging
from typing import TypeGuard
from urllib.parse import urlsplit

from waypost.gateway.fetch import carry_out
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


def choose(redirect: Redirect, health: Health) -> Redirect:
    """The redirect to the first upstream that is up."""
    return health.order((redirect, *redirect.others), lambda one: urlsplit(one.location).netloc)[0]


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


def _probe(fetch: Fetch) -> str | None:
    """The URL by which a registry tells that it is there; None for a host that is asked as no registry is."""
    parts = urlsplit(fetch.url)
    return f"{parts.scheme}://{parts.netloc}/v2/" if parts.path.startswith("/v2/") else None
