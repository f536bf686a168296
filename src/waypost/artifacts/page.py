"""Indexes that are fetched, made ours and kept: shared by all types whose indexes say where files are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from waypost.artifacts.target import followed
from waypost.routing.decision import Fetch, Page, Refuse, Reply, UpstreamHead

# Larger indexes are refused. The largest that are known, of tens of thousands of charts, have half of it.
INDEX_BYTES = 64 * 1024 * 1024

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_MISSING = Refuse(404, "NOT_FOUND", "The upstream does not have this index.")
_LOST = Refuse(502, "UPSTREAM_FAILED", "The upstream redirected its index to no URL, or to plain http.")

# An index as one upstream answered with it → what is kept of it, or a Refuse if it is none; a Fetch where the index is
# only read to find what is asked for.
Make: TypeAlias = Callable[[bytes], Reply | Refuse | Fetch]


def fetch_page(sources: Sequence[tuple[str, Make]], page: Page | None) -> Fetch:
    """The index of the first upstream that can tell: (its URL there, what to make of it)."""
    first, *others = (_ask(url, make) for url, make in sources)
    return msgspec.structs.replace(first, others=tuple(others), keep=page)


def _ask(url: str, make: Make) -> Fetch:
    def then(head: UpstreamHead) -> Reply | Refuse | Fetch:
        if head.status == 200:
            return make(head.body)
        if head.status in _REDIRECTS:
            target = followed(url, head.header("location") or "")
            return _LOST if target is None else _ask(target, make)
        if head.status in (404, 410):
            return _MISSING
        return Refuse(502, "UPSTREAM_FAILED", f"The upstream answered {head.status} for its index.")

    return Fetch(url=url, then=then, buffer=INDEX_BYTES)
