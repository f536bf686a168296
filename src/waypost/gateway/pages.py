"""Indexes that we serve with links to ourselves: fetched and rewritten once, and then given to all who ask.

1. A page that was fetched, or confirmed, within `Page.seconds` is given out as it is.
2. An older one is confirmed: its upstream is asked whether it has changed (RFC 9110 section 13.1).
3. Who asks the same at the same time waits for the one answer.
4. That there is no such page is believed for some seconds, too: clients ask every cache for everything.
5. While no upstream answers, the page is given out as it last was, and says so. At once if all are known to be down.
6. What a page does not have (`Page.choose` refuses with 404) may be in a newer one that another worker, or another
   machine, has given out: it is looked for on the disk, and then upstream, if nobody has done so within some seconds.

What `then` makes of an upstream's answer is kept, not what the upstream sent: making it may cost more than fetching.
An index may be given out in several forms, and may say where files are: `Page.choose` makes that of what is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeAlias

import msgspec

from waypost.artifacts.oci import digest_of
from waypost.gateway.choice import all_down, ask_in_order, is_failure
from waypost.gateway.fetch import MUCH_BYTES, check_redirect, refusal
from waypost.gateway.manifests import HIT, MOST_UNKNOWN, STALE, UNKNOWN_SECONDS
from waypost.routing.decision import Fetch, Final, Page, Redirect, Refuse, Relay, Reply, UpstreamHead
from waypost.upstream.client import Response
from waypost.upstream.failure import UpstreamForbidden
from waypost.upstream.health import Health
from waypost.upstream.pages import KeptPage, PageStore
from waypost.upstream.upstreams import Upstreams

_UNCHANGED = Reply(304)
# What `choose` made is held for so many forms, and of so many bytes, in each worker.
MOST_FORMS = 10_000
FORM_BYTES = 32 * 1024 * 1024

# For so long a page that lacks something is believed all the same, whatever clients ask for.
LACKS_SECONDS = 2.0

# What an index may turn out to be for one who asks: itself, where a file of it is, or that it has none such.
Chosen: TypeAlias = Redirect | Reply | Refuse | Fetch


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
        self._asking: dict[str, asyncio.Task[Refuse | tuple[KeptPage, str]]] = {}
        self._forms: dict[tuple[str, str], tuple[str, Chosen, int]] = {}
        self._form_bytes = 0
        self._unknown: dict[str, tuple[Refuse, float]] = {}
        self.hits = 0
        self.stale = 0

    def at_once(self, page: Page) -> Redirect | Reply | Refuse | None:
        """The answer, if it is in memory, needs nobody's confirmation and is quickly made."""
        unknown = self._unknown.get(page.asked)
        if unknown is not None and unknown[1] > self._clock():
            return unknown[0]
        kept = self._store.held(page.asked)
        if kept is None or not self._is_fresh(page.seconds, kept):
            return None
        made = self._made(page, kept)
        if made is None and len(kept.body) >= MUCH_BYTES and not page.quick:
            return None
        chosen = made or self._remember(page, kept, self._make(page, kept))
        if isinstance(chosen, Fetch) or _lacks(chosen):
            return None
        self.hits += 1
        return self._told(page, chosen, kept, HIT) if isinstance(chosen, Reply) else chosen

    async def carry_out(self, fetch: Fetch, page: Page) -> tuple[Final, Response | bytes]:
        """As gateway.fetch.carry_out: never raises UpstreamError."""
        chosen = await self._answer(fetch, page)
        if isinstance(chosen, Fetch):
            return await ask_in_order(chosen, self._upstreams, self._health)
        return chosen, b""

    async def _answer(self, fetch: Fetch, page: Page) -> Chosen:
        held = self._store.held(page.asked)
        if held is not None and self._is_fresh(page.seconds, held):
            chosen = await self._given(page, held, HIT)
            if not _lacks(chosen):
                self.hits += 1
                return chosen
        kept = await asyncio.get_running_loop().run_in_executor(self._disk, self._store.page, page.asked)
        # What others learned while this one looked at the disk.
        held = self._store.held(page.asked)
        if held is not None and (kept is None or held.at > kept.at):
            kept = held
        if kept is not None and self._is_fresh(page.seconds, kept):
            chosen = await self._given(page, kept, HIT)
            if not _lacks(chosen) or self._is_fresh(LACKS_SECONDS, kept):
                self.hits += 1
                return chosen
        task = self._asking.get(page.asked)
        if task is None:
            task = self._asking[page.asked] = asyncio.create_task(self._ask(fetch, page, kept))
            task.add_done_callback(lambda _: self._asking.pop(page.asked))
        # A client that goes away does not end it for the others.
        learned = await asyncio.shield(task)
        return learned if isinstance(learned, Refuse) else await self._given(page, *learned)

    def forget(self) -> None:
        """The configuration changed: answers are made anew of what is kept."""
        self._forms.clear()
        self._form_bytes = 0
        self._unknown.clear()

    def _is_fresh(self, seconds: float, kept: KeptPage) -> bool:
        # A clock that was set back makes an age negative: then it says nothing.
        return 0 <= self._clock() - kept.at < seconds

    async def _ask(self, fetch: Fetch, page: Page, kept: KeptPage | None) -> Refuse | tuple[KeptPage, str]:
        """What there is to give out now, and what Cache-Status says of it ("": it is new)."""
        if kept is not None and all_down(fetch, self._health):
            return self._old(kept)
        heard: list[tuple[str, UpstreamHead]] = []
        question = _watched(fetch, kept, heard)
        question = msgspec.structs.replace(
            question, others=tuple(_watched(other, kept, heard) for other in fetch.others)
        )
        final, _ = await ask_in_order(question, self._upstreams, self._health)
        if isinstance(final, Reply) and final.status == 304 and kept is not None:
            kept = msgspec.structs.replace(kept, at=self._clock())
            await self._keep(kept)
            self.hits += 1
            return kept, HIT
        if isinstance(final, Reply) and final.status == 200 and heard:
            source, head = heard[-1]
            fresh = KeptPage(
                asked=page.asked,
                headers=final.headers,
                digest=await self._digest(final.body),
                at=self._clock(),
                source=source,
                etag=head.header("etag"),
                last_modified=head.header("last-modified"),
                body=final.body,
            )
            await self._keep(fresh)
            return fresh, ""
        if is_failure(final):
            if kept is not None:
                return self._old(kept)
            if page.failure:
                return Refuse(page.failure, final.code, final.message, final.headers)
        # An index is neither streamed nor found elsewhere by the client.
        assert isinstance(final, Refuse), final
        if final.status == 404:
            if len(self._unknown) >= MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[page.asked] = (final, self._clock() + UNKNOWN_SECONDS)
        return final

    async def _digest(self, body: bytes) -> str:
        if len(body) < MUCH_BYTES:
            return digest_of(body)
        return await asyncio.get_running_loop().run_in_executor(self._disk, digest_of, body)

    def _old(self, kept: KeptPage) -> tuple[KeptPage, str]:
        self.hits += 1
        self.stale += 1
        return kept, STALE

    async def _keep(self, page: KeptPage) -> None:
        await asyncio.get_running_loop().run_in_executor(self._disk, self._store.keep, page)

    async def _given(self, page: Page, kept: KeptPage, status: str) -> Chosen:
        made = self._made(page, kept)
        if made is None and len(kept.body) >= MUCH_BYTES:
            chosen = await asyncio.get_running_loop().run_in_executor(None, self._make, page, kept)
            made = self._remember(page, kept, chosen)
        chosen = made or self._remember(page, kept, self._make(page, kept))
        return self._told(page, chosen, kept, status) if isinstance(chosen, Reply) else chosen

    def _told(self, page: Page, reply: Reply, kept: KeptPage, status: str) -> Reply:
        """With what became of it here (RFC 9111 section 5.1, RFC 9211), and the facts to record."""
        headers = reply.headers
        if status:
            headers += (("Age", str(max(0, int(self._clock() - kept.at)))), ("Cache-Status", status))
        return Reply(reply.status, headers, reply.body, page.facts)

    def _made(self, page: Page, kept: KeptPage) -> Chosen | None:
        """What was made of it before."""
        if page.choose is not None and not page.form:
            return None
        found = self._forms.get((page.asked, page.form))
        return found[1] if found is not None and found[0] == kept.digest else None

    def _make(self, page: Page, kept: KeptPage) -> Chosen:
        whole = Reply(200, kept.headers, kept.body)
        chosen: Chosen = whole if page.choose is None else page.choose(whole)
        if isinstance(chosen, Redirect):
            client = self._upstreams.client
            try:
                for one in (chosen, *chosen.others):
                    if not client.target(one.location).declared:
                        check_redirect(client.target(kept.source), one)
            except UpstreamForbidden as error:
                return refusal(error)
        if not isinstance(chosen, Reply):
            return chosen
        # RFC 9110 section 8.8.3: strong, since equal bytes have equal tags.
        digest = kept.digest if chosen.body is kept.body else digest_of(chosen.body)
        return msgspec.structs.replace(chosen, headers=(*chosen.headers, ("ETag", f'"{digest}"')))

    def _remember(self, page: Page, kept: KeptPage, chosen: Chosen) -> Chosen:
        if page.choose is not None and not page.form:
            return chosen
        key = (page.asked, page.form)
        size = len(chosen.body) if isinstance(chosen, Reply) and chosen.body is not kept.body else 0
        before = self._forms.pop(key, None)
        self._form_bytes += size - (before[2] if before is not None else 0)
        self._forms[key] = (kept.digest, chosen, size)
        while len(self._forms) > MOST_FORMS or self._form_bytes > FORM_BYTES:
            self._form_bytes -= self._forms.pop(next(iter(self._forms)))[2]
        return chosen


def _lacks(chosen: Chosen) -> bool:
    return isinstance(chosen, Refuse) and chosen.status == 404


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
