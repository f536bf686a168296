"""`waypost explain`: what would happen to a request, and why, without asking anybody."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias
from urllib.parse import quote, urlsplit

from waypost.artifacts import reach
from waypost.artifacts.snapshot import Snapshot, decode_host, sites_of
from waypost.routing.decision import Decision, Fact, Fetch, Login, Redirect, Refuse, Reply
from waypost.routing.request import Request
from waypost.routing.site import Site
from waypost.routing.table import Table

# (request, fact, status of the answer) → the rule that leaves the fact out of the count, or None.
LeftOut: TypeAlias = Callable[[Request, Fact, int], str | None]
# A host → how it stands, in words.
Health: TypeAlias = Callable[[str], str]
# Of a decision with several upstreams, the one that is to answer now.
Steer: TypeAlias = Callable[[Redirect | Fetch], Redirect | Fetch]


def explain_request(
    snapshot: bytes,
    method: str,
    url: str,
    headers: Iterable[str],
    left_out: LeftOut,
    health: Health | None = None,
    steer: Steer | None = None,
) -> list[str]:
    """Lines to print; without `health` none says how upstreams stand, and without `steer` all are taken to be up.

    Raises ValueError with a sentence for a URL or header that is none.
    """
    request = _request(method, url, headers)
    read = Snapshot(snapshot)

    def sites(host: str) -> tuple[Site, ...] | None:
        blob = read.blob(host)
        return None if blob is None else sites_of(decode_host(blob))

    def told(host: str) -> bytes | None:
        blob = read.blob(host)
        return None if blob is None else reach.page(decode_host(blob))

    table = Table(sites, {reach.PATH: partial(reach.answer, told=told)})
    decided = decision = table.decide(request)
    if steer is not None and isinstance(decision, Redirect | Fetch):
        decision = steer(decision)
    lines = [f"{request.method} {request.scheme}://{request.host}{request.target}", *_answer(decision)]
    lines += [f"  why: {line}" for line in table.explain(request)]
    if isinstance(decided, Redirect | Fetch):
        lines += [f"  {line}" for line in _upstreams(decided, health)]
    lines += [f"  {line}" for line in _counted(request, decision, left_out)]
    return lines


# Clients encode what is not ASCII before they send it.
_AS_IT_IS = "".join(map(chr, range(0x21, 0x7F)))


def _request(method: str, url: str, headers: Iterable[str]) -> Request:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit or parts.hostname is None:
        raise ValueError(f"found {url!r}; expected a URL such as http://get.acme.example/1.2/skates.tgz")
    pairs = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"-H: found {header!r}; expected 'Name: value'")
        pairs.append((name.strip().lower(), value.strip()))
    host = parts.hostname.rstrip(".")
    host = f"[{host}]" if ":" in host else host
    query = quote(parts.query, safe=_AS_IT_IS) if parts.query or url.endswith("?") else None
    path = quote(parts.path, safe=_AS_IT_IS) or "/"
    return Request(method.upper(), host, path, query, pairs, scheme=parts.scheme)


def _answer(decision: Decision) -> list[str]:
    if isinstance(decision, Redirect):
        return [f"  {decision.status} to {decision.location}"]
    if isinstance(decision, Fetch):
        return [f"  fetched from {decision.url} and passed on"]
    if isinstance(decision, Reply):
        return [f"  {decision.status}, answered here"]
    if isinstance(decision, Login):
        return [f"  the login is checked at {decision.registry}, and a token of its own handed on"]
    return [f"  {decision.status} {decision.code}: {decision.message}"]


def _upstreams(decision: Redirect | Fetch, health: Health | None) -> list[str]:
    """What there is to choose from. Of a single place that we lead to, nobody asks how it stands."""
    urls = [one.location if isinstance(one, Redirect) else one.url for one in (decision, *decision.others)]
    if len(urls) == 1 and isinstance(decision, Redirect):
        return []
    lines = [] if len(urls) == 1 else [f"order: {', then '.join(urls)}"]
    if decision.pin is not None:
        lines.append("pin: upstreams may differ in this, so all clients are sent to the same one")
    if health is not None:
        lines += [f"health: {health(urlsplit(url).netloc)}" for url in urls]
    return lines


def _counted(request: Request, decision: Decision, left_out: LeftOut) -> list[str]:
    if isinstance(decision, Refuse):
        return ["counted: nothing; only answers that went well count (C1)"]
    if any(name in ("dnt", "sec-gpc") and value == "1" for name, value in request.headers):
        return ["counted: nothing, and nothing is recorded: the client asks not to be tracked (C5)"]
    if isinstance(decision, Login):
        return ["counted: nothing; a login is no download"]
    if isinstance(decision, Fetch):
        return ["counted: depends on what the upstream answers; see docs/what-we-count.md"]
    if not decision.facts:
        return [
            "counted: nothing; " + ("HEAD never counts (C2)" if request.method == "HEAD" else "this is no download")
        ]
    return [_verdict(fact, left_out(request, fact, decision.status)) for fact in decision.facts]


def _verdict(fact: Fact, rule: str | None) -> str:
    return f"recorded, not counted ({rule}): {_described(fact)}" if rule else f"counted: {_described(fact)}"


def _described(fact: Fact) -> str:
    details = [
        f"{name} {value}"
        for name, value in (
            ("version", fact.version),
            ("tag", fact.tag),
            ("platform", fact.platform),
            ("variables", " ".join(f"{key}={value}" for key, value in (fact.variables or {}).items()) or None),
        )
        if value is not None
    ]
    return ", ".join([f"{fact.kind} of {fact.package}", *details])
