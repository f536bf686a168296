"""Content negotiation: which of several forms a client wants (RFC 9110 section 12.5.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
# Headers are bounded already; clients of one kind send the same ones.
_REMEMBERED = 1024


@lru_cache(_REMEMBERED)
def preferred(accept: str, offered: Sequence[str]) -> str | None:
    """The media type of `offered` that suits the client best; None if none does.

    accept   the Accept lines, joined with commas; "" accepts all
    offered  in the order in which we like them, for clients that like several equally
    """
    ranges = _ranges(accept)
    if not ranges:
        return offered[0]
    best, found = (0.0, 0), None
    for one in offered:
        # The most exact range that covers a type says how much it is wanted.
        exact, quality = max(
            ((exact, ranges[name]) for exact, name in enumerate(_covering(one)) if name in ranges), default=(0, 0.0)
        )
        if quality > 0 and (quality, exact) > best:
            best, found = (quality, exact), one
    return found


def _covering(media_type: str) -> tuple[str, str, str]:
    return ("*/*", f"{media_type.partition('/')[0]}/*", media_type)


def _ranges(accept: str) -> dict[str, float]:
    """Media range → quality. Parameters other than q are not looked at; what is no quality is none at all."""
    found: dict[str, float] = {}
    for element in accept.split(","):
        name, *parameters = (part.strip() for part in element.split(";"))
        if not name:
            continue
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "q":
                quality = float(value) if _QUALITY.fullmatch(value := value.strip()) else 0.0
        found[name.lower()] = max(found.get(name.lower(), 0.0), quality)
    return found
