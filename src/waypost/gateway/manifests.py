"""Manifests, asked for once: kept by digest for ever, by tag for a while, and served when upstreams are down.

What a request for a manifest goes through, in order:

1. A digest that is kept is answered from what is kept.
2. A tag that a registry confirmed within `tag_ttl` seconds is, too.
3. A tag that is older is confirmed by HEAD, which registries do not meter; only if it moved is it fetched.
4. Who asks the same at the same time waits for the one answer.
5. If every upstream fails (down, 429, 5xx), what a tag meant last is served, and the answer says that it is old. At
   once if all are known to be down: no client waits to find out whether they are back.

What manifests say of the blobs that they lead to (Keep.labels) is written down, and told when one of those is asked
for (Listed), whichever worker saw the manifest.

Private ones (Keep.private) go another way: their upstream is asked each time whether their asker may read them.

Age and Cache-Status (RFC 9111, RFC 9211) say which it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

import msgspec

from waypost.artifacts.oci import INDEX_TYPES
from waypost.gateway.choice import all_down, ask_in_order, is_failure
from waypost.routing.decision import (
    Fetch,
    Final,
    Headers,
    Keep,
    Listed,
    Redirect,
    Refuse,
    Relay,
    Reply,
    UpstreamHead,
)
from waypost.upstream.client import Response
from waypost.upstream.health import Health
from waypost.upstream.manifests import Label, Manifest, ManifestStore, Tag
from waypost.upstream.upstreams import Upstreams

# How long, in seconds, it is remembered that something does not exist: cosign asks for many such tags.
UNKNOWN_SECONDS = 10.0
MOST_UNKNOWN = 10_000

# Whole answers that are held ready, so that asking again costs no more than finding them.
MOST_READY = 1000
HIT = "waypost; hit"
# Stands for the media types of whoever asked last.
ANY = "*"
STALE = "waypost; hit; detail=no-upstream-answers"

Outcome = tuple[Final, Response | bytes]
T = TypeVar("T")


class Manifests:
    """Carries out every Fetch of a worker whose answer is a manifest, from what is kept if possible.

    tag_ttl          seconds for which a tag is believed without asking
    hits, stale      answers from what was kept, and those of them that no upstream could confirm
    """

    def __init__(
        self,
        store: ManifestStore,
        upstreams: Upstreams,
        health: Health,
        disk: Executor,
        tag_ttl: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._upstreams = upstreams
        self.health = health
        self._disk = disk
        self._clock = clock
        self.tag_ttl = tag_ttl
        self._asking: dict[tuple[str, str, str], asyncio.Task[Final]] = {}
        self._ready: dict[tuple[str, str, str], tuple[str, Reply]] = {}
        self._unknown: dict[tuple[str, str], tuple[Refuse, float]] = {}
        self.hits = 0
        self.stale = 0

    def at_once(self, fetch: Fetch, keep: Keep) -> Reply | None:
        """The answer, if it is in memory and needs nobody's confirmation."""
        if keep.private:
            return None
        ready = self._ready.get((fetch.method, keep.asked, keep.accept))
        if ready is None:
            return None
        digest, reply = ready
        if ":" in keep.reference:
            self.hits += 1
            return _told(reply, None, HIT)
        tag = self._store.held_tag(keep.repository, keep.reference, keep.accept)
        if tag is None or tag.digest != digest or not self._is_fresh(tag):
            return None
        self.hits += 1
        return _told(reply, self._clock() - tag.at, HIT)

    async def carry_out(self, fetch: Fetch, keep: Keep) -> Outcome:
        """As gateway.fetch.carry_out: never raises UpstreamError."""
        if keep.private:
            return await self._private(fetch, keep)
        final = await (self._by_digest if ":" in keep.reference else self._by_tag)(fetch, keep)
        if keep.labels is not None and isinstance(final, Reply) and final.body:
            await self._on_disk(self._stick, keep.repository, keep.labels, final.body)
        return final, b""

    async def with_label(self, fetch: Fetch, listed: Listed) -> Outcome:
        """A blob, whose `then` is told what a manifest said of it."""
        label = await self._on_disk(self._store.label, listed.repository, listed.digest)
        return await ask_in_order(_labelled(fetch, label), self._upstreams, self.health)

    def _stick(self, repository: str, labels: Callable[[bytes], dict[str, str]], body: bytes) -> None:
        self._store.stick(Label(repository, digest, label) for digest, label in labels(body).items())

    async def _private(self, fetch: Fetch, keep: Keep) -> Outcome:
        """A manifest that the upstream must let its asker read, now: by HEAD where its bytes are kept, which
        spares a fetch that registries meter. Nobody else's answer is shared, and none is older than this moment.
        """
        # Whatever is public under the same name is kept apart: to read the one says nothing of the other.
        keep = msgspec.structs.replace(keep, repository=f"{keep.repository} (private)")
        manifest = await self._last(keep) if fetch.method == "GET" else None
        if manifest is not None:
            head, _ = await ask_in_order(_as_head(fetch), self._upstreams, self.health)
            if isinstance(head, Reply) and _header(head.headers, "docker-content-digest") == manifest.digest:
                self.hits += 1
                final = _again(fetch, manifest)
                return (_told(final, None, HIT) if isinstance(final, Reply) else final), b""
        final, body = await ask_in_order(fetch, self._upstreams, self.health)
        if isinstance(final, Reply) and final.status == 200 and fetch.method == "GET":
            await self._learn(fetch, keep, final)
        return final, body

    async def _last(self, keep: Keep) -> Manifest | None:
        """What a reference meant last, if its bytes are kept and fit what is asked for."""
        digest = keep.reference
        if ":" not in digest:
            tag = await self._on_disk(self._store.tag, keep.repository, keep.reference, keep.accept)
            if tag is None:
                return None
            digest = tag.digest
        manifest = await self._kept(keep.repository, digest)
        return manifest if manifest is not None and accepts(keep.accept, manifest.media_type) else None

    def forget(self) -> None:
        """The configuration changed: answers are made anew from what is kept."""
        self._ready.clear()
        self._unknown.clear()

    async def _by_digest(self, fetch: Fetch, keep: Keep) -> Final:
        manifest = await self._kept(keep.repository, keep.reference)
        if manifest is not None and accepts(keep.accept, manifest.media_type):
            return self._hit(fetch, keep, manifest)
        return await self._together(fetch, keep, None)

    async def _by_tag(self, fetch: Fetch, keep: Keep) -> Final:
        tag = self._store.held_tag(keep.repository, keep.reference, keep.accept)
        if tag is None or not self._is_fresh(tag):
            tag = await self._on_disk(self._store.tag, keep.repository, keep.reference, keep.accept)
        if tag is not None and self._is_fresh(tag):
            manifest = await self._kept(keep.repository, tag.digest)
            if manifest is not None:
                return self._hit(fetch, keep, manifest, self._clock() - tag.at)
        return await self._together(fetch, keep, tag)

    def _is_fresh(self, tag: Tag) -> bool:
        # A clock that was set back makes an age negative: then it says nothing.
        return 0 <= self._clock() - tag.at < self.tag_ttl

    async def _kept(self, repository: str, digest: str) -> Manifest | None:
        held = self._store.held(repository, digest)
        return held or await self._on_disk(self._store.manifest, repository, digest)

    async def _on_disk(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, function, *arguments)

    async def _together(self, fetch: Fetch, keep: Keep, tag: Tag | None) -> Final:
        """One question upstream for all who ask it now. A client that goes away does not end it for the others."""
        unknown = self._unknown.get((keep.asked, keep.accept))
        if unknown is not None and unknown[1] > self._clock():
            return unknown[0]
        key = (fetch.method, keep.asked, keep.accept)
        task = self._asking.get(key)
        if task is None:
            # From here to the new task nothing else runs: what was learned before is seen, and what comes after waits.
            learned = self._learned(fetch, keep)
            if learned is not None:
                return learned
            task = self._asking[key] = asyncio.create_task(self._ask(fetch, keep, tag))
            task.add_done_callback(lambda _: self._asking.pop(key))
        return await asyncio.shield(task)

    def _learned(self, fetch: Fetch, keep: Keep) -> Final | None:
        """What others learned while this one looked for it on the disk, which may take longer than an upstream does."""
        tag = None
        digest = keep.reference
        if ":" not in digest:
            tag = self._store.held_tag(keep.repository, keep.reference, keep.accept)
            if tag is None or not self._is_fresh(tag):
                return None
            digest = tag.digest
        manifest = self._store.held(keep.repository, digest)
        if manifest is None or (tag is None and not accepts(keep.accept, manifest.media_type)):
            return None
        return self._hit(fetch, keep, manifest, None if tag is None else self._clock() - tag.at)

    async def _ask(self, fetch: Fetch, keep: Keep, tag: Tag | None) -> Final:
        manifest = None if tag is None else await self._kept(keep.repository, tag.digest)
        if tag is not None and manifest is not None:
            confirmed = await self._confirm(fetch, keep, tag, manifest)
            if confirmed is not None:
                return confirmed
        final, _ = await ask_in_order(fetch, self._upstreams, self.health)
        if isinstance(final, Reply) and final.status == 200:
            await self._learn(fetch, keep, final)
        elif isinstance(final, Refuse) and final.status == 404:
            self._remember_unknown(keep, final)
        elif is_failure(final) and ":" not in keep.reference:
            return await self._any(fetch, keep) or final
        return final

    async def _any(self, fetch: Fetch, keep: Keep) -> Final | None:
        """For an outage: what the tag meant last to a client that asked for other types, if this one takes it."""
        tag = await self._on_disk(self._store.tag, keep.repository, keep.reference, ANY)
        manifest = None if tag is None else await self._kept(keep.repository, tag.digest)
        if tag is None or manifest is None or not accepts(keep.accept, manifest.media_type):
            return None
        return self._old(fetch, manifest, tag)

    async def _confirm(self, fetch: Fetch, keep: Keep, tag: Tag, manifest: Manifest) -> Final | None:
        """The kept manifest, if the tag still means it or nobody can tell; None if it must be fetched."""
        if all_down(fetch, self.health):
            return self._old(fetch, manifest, tag)
        head, _ = await ask_in_order(_as_head(fetch), self._upstreams, self.health)
        if isinstance(head, Reply) and _header(head.headers, "docker-content-digest") == tag.digest:
            await self._point(keep, tag.digest)
            return self._hit(fetch, keep, manifest, 0.0)
        if is_failure(head):
            return self._old(fetch, manifest, tag)
        return None

    async def _learn(self, fetch: Fetch, keep: Keep, reply: Reply) -> None:
        """Keeps what a registry has just said. `then` has checked the digest against the bytes."""
        digest = _header(reply.headers, "docker-content-digest")
        if digest is None:
            return
        if fetch.method == "GET":
            media_type = _header(reply.headers, "content-type") or ""
            platform = next((fact.platform for fact in reply.facts if fact.platform), "")
            manifest = Manifest(keep.repository, digest, media_type, reply.body, platform)
            await self._on_disk(self._store.keep, manifest)
        if ":" not in keep.reference:
            await self._point(keep, digest)

    async def _point(self, keep: Keep, digest: str) -> None:
        tag = Tag(keep.repository, keep.reference, keep.accept, digest, self._clock())
        await self._on_disk(self._store.point, tag)
        known = self._store.held_tag(keep.repository, keep.reference, ANY)
        manifest = self._store.held(keep.repository, digest)
        # Of several things that a tag means to several clients, an index says most: it fits every platform.
        if known is None or known.digest == digest or (manifest is not None and manifest.media_type in INDEX_TYPES):
            await self._on_disk(self._store.point, msgspec.structs.replace(tag, accept=ANY))

    def _remember_unknown(self, keep: Keep, refusal: Refuse) -> None:
        if len(self._unknown) >= MOST_UNKNOWN:
            self._unknown.clear()
        self._unknown[keep.asked, keep.accept] = (refusal, self._clock() + UNKNOWN_SECONDS)

    def _hit(self, fetch: Fetch, keep: Keep, manifest: Manifest, age: float | None = None) -> Final:
        self.hits += 1
        final = _again(fetch, manifest)
        if not isinstance(final, Reply):
            return final
        if len(self._ready) >= MOST_READY:
            del self._ready[next(iter(self._ready))]
        self._ready[fetch.method, keep.asked, keep.accept] = (manifest.digest, final)
        return _told(final, age, HIT)

    def _old(self, fetch: Fetch, manifest: Manifest, tag: Tag) -> Final:
        self.hits += 1
        self.stale += 1
        final = _again(fetch, manifest)
        return _told(final, max(0.0, self._clock() - tag.at), STALE) if isinstance(final, Reply) else final


def _as_it_is(head: UpstreamHead) -> Reply | Refuse:
    """A HEAD of ours, not of a client: only what it says of tag and health matters."""
    if head.status == 429 or head.status >= 500:
        retry_after = head.header("retry-after")
        headers = (("Retry-After", retry_after),) if retry_after else ()
        return Refuse(head.status, "UPSTREAM_FAILED", "a HEAD of ours was refused", headers)
    return Reply(head.status, head.headers) if head.status == 200 else Refuse(404, "", "")


_HEAD = {"method": "HEAD", "buffer": 0, "then": _as_it_is}


def _as_head(fetch: Fetch) -> Fetch:
    return msgspec.structs.replace(fetch, **_HEAD, others=tuple(_as_head(other) for other in fetch.others))


def _labelled(fetch: Fetch, label: str | None) -> Fetch:
    def then(head: UpstreamHead) -> Redirect | Reply | Refuse | Relay | Fetch:
        return fetch.then(msgspec.structs.replace(head, label=label))

    return msgspec.structs.replace(fetch, then=then, others=tuple(_labelled(other, label) for other in fetch.others))


def _again(fetch: Fetch, manifest: Manifest) -> Final:
    """What `fetch.then` makes of a kept manifest, as if its registry had just sent it."""
    final = fetch.then(
        UpstreamHead(
            200,
            (
                ("content-type", manifest.media_type),
                ("docker-content-digest", manifest.digest),
                ("content-length", str(len(manifest.body))),
            ),
            manifest.body if fetch.method == "GET" else b"",
            manifest.platform,
        )
    )
    assert not isinstance(final, Fetch)
    return final


def _told(reply: Reply, age: float | None, status: str) -> Reply:
    """With Age in seconds, where something may be old, and with what became of it here."""
    extra: Headers = (("Cache-Status", status),)
    if age is not None:
        extra = (("Age", str(int(age))), *extra)
    return Reply(reply.status, reply.headers + extra, reply.body, reply.facts)


def accepts(accept: str, media_type: str) -> bool:
    """Whether a client that sent this Accept takes this type (RFC 9110 section 12.5.1; weights play no part)."""
    if not accept:
        return True
    kind = media_type.partition(";")[0].strip().lower()
    ranges = {one.partition(";")[0].strip().lower() for one in accept.split(",")}
    return kind in ranges or "*/*" in ranges or f"{kind.partition('/')[0]}/*" in ranges


def _header(headers: Headers, name: str) -> str | None:
    return next((value for key, value in headers if key.lower() == name), None)
