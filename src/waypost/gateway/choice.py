"""Carries out a Fetch that several upstreams may answer: the first healthy one, then the others."""

from __future__ import annotations

import logging
from typing import TypeGuard
from urllib.parse import urlsplit

from waypost.gateway.fetch import carry_out
from waypost.routing.decision import Fetch, Final, Refuse
from waypost.upstream.client import Response
from waypost.upstream.health import Health
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
        _note(health, _host(candidate), final if is_failure(final) else None)
        if not isinstance(final, Refuse) or not (is_failure(final) or (final.status == 404 and fetch.alike)):
            return final, body
        refusals.append(final)
    return next((refusal for refusal in refusals if is_failure(refusal)), refusals[0]), b""


def _note(health: Health, host: str, failure: Refuse | None) -> None:
    """Learns from an answer, and tells the operator when an upstream goes down or comes back."""
    if failure is None:
        if health.succeeded(host):
            logger.info("upstream %s answers again", host)
        return
    pause = health.failed(host, failure.message, _retry_after(failure))
    if pause:
        logger.warning("upstream %s fails, and is asked last for %.0f s: %s", host, pause, failure.message)


def _host(fetch: Fetch) -> str:
    return urlsplit(fetch.url).netloc


def _retry_after(refusal: Refuse) -> float | None:
    """RFC 9110 section 10.2.3, in seconds. A date is not understood, and taken for nothing said."""
    for name, value in refusal.headers:
        if name.lower() == "retry-after" and value.isascii() and value.isdigit():
            return float(value[:9])
    return None
