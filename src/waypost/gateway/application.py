"""The application behind the protocol: a request is decided, carried out and recorded here."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial

import msgspec

from waypost.artifacts import reach
from waypost.artifacts.snapshot import Policy
from waypost.events.spool import Spool
from waypost.gateway.address import TrustedProxies
from waypost.gateway.answer import Answer, announced, refusal, whole_answer
from waypost.gateway.choice import ask_in_order, choose, pinned, roots
from waypost.gateway.fetch import log_in
from waypost.gateway.manifests import Manifests
from waypost.gateway.pages import Pages
from waypost.gateway.pins import Pins
from waypost.gateway.record import Recorder
from waypost.gateway.reload import CompiledHosts
from waypost.routing.condition import unless_known
from waypost.routing.decision import Fetch, Final, Listed, Login, Page, Redirect, Refuse, Relay, Reply
from waypost.routing.request import Request
from waypost.routing.table import Table
from waypost.tls.contexts import Contexts
from waypost.upstream.client import Response
from waypost.upstream.declared import Declared, by_host
from waypost.upstream.upstreams import Upstreams


class Gateway:
    """The application behind the protocol: decides, carries out, records. One per worker."""

    def __init__(
        self,
        hosts: CompiledHosts,
        policy: Policy,
        recorder: Recorder,
        spool: Spool,
        upstreams: Upstreams,
        manifests: Manifests,
        pages: Pages,
        pins: Pins,
    ) -> None:
        self._table = Table(hosts, {reach.PATH: partial(reach.answer, told=hosts.reach)})
        self._recorder = recorder
        self._spool = spool
        self.upstreams = upstreams
        self.manifests = manifests
        self.pages = pages
        self.pins = pins
        self.policy = policy
        self.contexts: Contexts | None = None  # where https is spoken
        self.redirects = 0
        self.refused = 0
        self.fetch_failures = 0

    def handle(self, request: Request, peer: str) -> Answer | Awaitable[Answer]:
        answer = self._handle(request, peer)
        if request.scheme != "https" or request.host not in self.policy.hsts:
            return answer
        return strict(answer) if isinstance(answer, Answer) else _strict(answer)

    def _handle(self, request: Request, peer: str) -> Answer | Awaitable[Answer]:
        decision = self._table.decide(request)
        kind = type(decision)
        if kind is Redirect:
            return self._redirect(request, decision, peer)  # type: ignore[arg-type]
        if kind is Fetch:
            ready = self._at_once(decision)  # type: ignore[arg-type]
            if ready is not None:
                return self._finish(request, ready, peer)
            return self._fetch(request, decision, peer)  # type: ignore[arg-type]
        if kind is Reply:
            return self._reply(request, decision, peer)  # type: ignore[arg-type]
        if kind is Login:
            return self._log_in(request, decision, peer)  # type: ignore[arg-type]
        self.refused += 1
        return _refuse(decision)  # type: ignore[arg-type]

    def before_write(self) -> None:
        self._spool.flush()

    def _redirect(self, request: Request, decision: Redirect, peer: str) -> Answer:
        self.redirects += 1
        if decision.others:
            self.pins.note(roots(decision))
            decision = choose(decision, self.manifests.health, self.pins)
        if decision.facts:
            self._recorder.record(request, decision.facts, decision.status, peer)
        location = decision.location
        # RFC 9110 section 15.4: a short note with a link, for people who forgot `curl -L`.
        note = f"See {location}\nWith curl, add -L to follow.\n".encode("ascii")
        return Answer(
            decision.status, (("location", location), ("content-type", "text/plain"), *decision.headers), note
        )

    def _reply(self, request: Request, decision: Reply, peer: str) -> Answer:
        if decision.facts and decision.status < 400:
            size = None if request.method == "HEAD" else len(decision.body)
            self._recorder.record(request, decision.facts, decision.status, peer, size)
        return whole_answer(decision.status, decision.headers, decision.body, request.method == "HEAD")

    def _at_once(self, fetch: Fetch) -> Redirect | Reply | Refuse | None:
        keep = fetch.keep
        if keep is None or isinstance(keep, Listed):
            return None
        return self.pages.at_once(keep) if isinstance(keep, Page) else self.manifests.at_once(fetch, keep)

    async def _carry_out(self, fetch: Fetch) -> tuple[Final, Response | bytes]:
        keep = fetch.keep
        if fetch.pin is not None:
            self.pins.note(roots(fetch))
            fetch = pinned(fetch, self.pins)
        if keep is None:
            return await ask_in_order(fetch, self.upstreams, self.manifests.health)
        if isinstance(keep, Listed):
            return await self.manifests.with_label(fetch, keep)
        return await (self.pages if isinstance(keep, Page) else self.manifests).carry_out(fetch, keep)  # type: ignore[arg-type]

    async def _fetch(self, request: Request, fetch: Fetch, peer: str) -> Answer:
        final, body = await self._carry_out(fetch)
        if not isinstance(final, Relay):
            return self._finish(request, final, peer)
        if final.facts and final.status < 400:
            size = None if request.method == "HEAD" else announced(final.headers)
            self._recorder.record(request, final.facts, final.status, peer, size)
        return Answer(final.status, final.headers, body)

    def _finish(self, request: Request, final: Redirect | Reply | Refuse, peer: str) -> Answer:
        if isinstance(final, Redirect):
            return self._redirect(request, final, peer)
        if isinstance(final, Reply):
            return self._reply(request, unless_known(request, final), peer)
        return self._refused(final)

    async def _log_in(self, request: Request, login: Login, peer: str) -> Answer:
        final = await log_in(login, self.upstreams)
        return self._reply(request, final, peer) if isinstance(final, Reply) else self._refused(final)

    def _refused(self, final: Refuse) -> Answer:
        self.refused += 1
        if final.status >= 500:
            self.fetch_failures += 1
        return _refuse(final)

    def take(self, policy: Policy) -> None:
        """Another snapshot's policy, from the next request on. Its routes come with the hosts."""
        self._recorder.trusted = TrustedProxies(policy.trusted_proxies)
        self.upstreams.declare(declared(policy))
        self.manifests.tag_ttl = policy.tag_ttl
        self.manifests.forget()
        self.pages.forget()
        if self.contexts is not None:
            self.contexts.take(policy.certificates)
        self.policy = policy


async def _strict(answer: Awaitable[Answer]) -> Answer:
    return strict(await answer)


def strict(answer: Answer) -> Answer:
    """RFC 6797 section 6.1: for a year this host is asked by https only."""
    line = ("strict-transport-security", "max-age=31536000")
    return Answer(answer.status, (*answer.headers, line), answer.body)


def _refuse(decision: Refuse) -> Answer:
    return refusal(decision.status, decision.code, decision.message, decision.headers)


def declared(policy: Policy) -> dict[str, Declared]:
    return by_host(Declared(**msgspec.structs.asdict(row)) for row in policy.upstreams)
