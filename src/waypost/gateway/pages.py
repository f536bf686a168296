"""Indexes that we serve with links to ourselves: fetched and rewritten once, and then given to all who ask.

1. A page that was fetched, or confirmed, within `Page.seconds` is given out as it is.
2. An older one is confirmed: its upstream is asked whether it has changed (RFC 9110 section 13.1).
3. Who asks the same at the same time waits for the one answer.
4. While no upstream answers, the page is given out as it last was, and says so. At once if all are known to be down.

What `then` makes of an upstream's answer is kept, not what the upstream sent: making it may cost more than fetching.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor

import msgspec

from waypost.artifacts.oci import digest_of
from waypost.gateway.choice import all_down, ask_in_order, is_failure
from waypost.gateway.manifests import HIT, STALE
from waypost.routing.decision import Fetch, Final, Page, Redirect, Refuse, Relay, Reply, UpstreamHead
from waypost.upstream.client import Response
from waypost.upstream.health import Health
from waypost.upstream.pages import KeptPage, PageStore
from waypost.upstream.upstreams import Upstreams

_UNCHANGED = Reply(304)


class Pages:
    """Carries out every Fetch of a worker whose answer may be kept as a page.

    hits, stale  answers from what was kept, and those of them that no upstream could confirm
    """

    def __init__(
        self,
        store: PageStore,
        upstreams: Upstreams,
        health: Health,
        disk: Executor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock`: seconds since 1970."""
        self._store = store
        self._upstreams = upstreams
        self._health = health
        self._disk = disk
        self._clock = clock
        self._asking: dict[str, asyncio.Task[Final]] = {}
        self.hits = 0
        self.stale = 0

    def at_once(self, page: Page) -> Reply | None:
        """The answer, if it is in memory and needs nobody's confirmation."""
        kept = self._store.held(page.asked)
        return self._hit(page, kept) if kept is not None and self._is_fresh(page, kept) else None

    async def carry_out(self, fetch: Fetch, page: Page) -> tuple[Final, Response | bytes]:
        """As gateway.fetch.carry_out: never raises UpstreamError."""
        kept = await asyncio.get_running_loop().run_in_executor(self._disk, self._store.page, page.asked)
        if kept is not None and self._is_fresh(page, kept):
            return self._hit(page, kept), b""
        task = self._asking.get(page.asked)
        if task is None:
            # What others learned while this one looked at the disk.
            ready = self.at_once(page)
            if ready is not None:
                return ready, b""
            task = self._asking[page.asked] = asyncio.create_task(self._ask(fetch, page, kept))
            task.add_done_callback(lambda _: self._asking.pop(page.asked))
        # A client that goes away does not end it for the others.
        return await asyncio.shield(task), b""

    def _is_fresh(self, page: Page, kept: KeptPage) -> bool:
        # A clock that was set back makes an age negative: then it says nothing.
        return 0 <= self._clock() - kept.at < page.seconds

    async def _ask(self, fetch: Fetch, page: Page, kept: KeptPage | None) -> Final:
        if kept is not None and all_down(fetch, self._health):
            return self._old(page, kept)
        heard: list[tuple[str, UpstreamHead]] = []
        question = _watched(fetch, kept, heard)
        question = msgspec.structs.replace(
            question, others=tuple(_watched(other, kept, heard) for other in fetch.others)
        )
        final, _ = await ask_in_order(question, self._upstreams, self._health)
        if isinstance(final, Reply) and final.status == 304 and kept is not None:
            kept = msgspec.structs.replace(kept, at=self._clock())
            await self._keep(kept)
            return self._hit(page, kept)
        if isinstance(final, Reply) and final.status == 200 and heard:
            source, head = heard[-1]
            fresh = KeptPage(
                asked=page.asked,
                headers=(*final.headers, ("ETag", f'"{digest_of(final.body)}"')),
                digest=digest_of(final.body),
                at=self._clock(),
                source=source,
                etag=head.header("etag"),
                last_modified=head.header("last-modified"),
                body=final.body,
            )
            await self._keep(fresh)
            return Reply(200, fresh.headers, fresh.body, page.facts)
        if is_failure(final):
            if kept is not None:
                return self._old(page, kept)
            if page.failure:
                return Refuse(page.failure, final.code, final.message, final.headers)
        assert not isinstance(final, Redirect | Relay)
        return final

    async def _keep(self, page: KeptPage) -> None:
        await asyncio.get_running_loop().run_in_executor(self._disk, self._store.keep, page)

    def _hit(self, page: Page, kept: KeptPage) -> Reply:
        self.hits += 1
        told = (("Age", str(max(0, int(self._clock() - kept.at)))), ("Cache-Status", HIT))
        return Reply(200, kept.headers + told, kept.body, page.facts)

    def _old(self, page: Page, kept: KeptPage) -> Reply:
        self.hits += 1
        self.stale += 1
        told = (("Age", str(max(0, int(self._clock() - kept.at)))), ("Cache-Status", STALE))
        return Reply(200, kept.headers + told, kept.body, page.facts)


def _watched(fetch: Fetch, kept: KeptPage | None, heard: list[tuple[str, UpstreamHead]]) -> Fetch:
    """The same question, asked only for what has changed; what is answered is put down in `heard`.

    A redirect leads to another URL, and is followed by `then` as it sees fit: its conditions go along, since
    validators belong to what is found in the end.
    """
    conditions: list[tuple[str, str]] = []
    if kept is not None and kept.source == fetch.url:
        if kept.etag is not None:
            conditions.append(("If-None-Match", kept.etag))
        if kept.last_modified is not None:
            conditions.append(("If-Modified-Since", kept.last_modified))
    return _conditional(fetch, fetch.url, tuple(conditions), heard)


def _conditional(
    fetch: Fetch, source: str, conditions: tuple[tuple[str, str], ...], heard: list[tuple[str, UpstreamHead]]
) -> Fetch:
    def then(head: UpstreamHead) -> Redirect | Reply | Refuse | Relay | Fetch:
        if head.status == 304 and conditions:
            return _UNCHANGED
        heard.append((source, head))
        made = fetch.then(head)
        return _conditional(made, source, conditions, heard) if isinstance(made, Fetch) else made

    return msgspec.structs.replace(fetch, headers=(*fetch.headers, *conditions), then=then)
