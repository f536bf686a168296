"""Where a route leads, and what is recorded on the way: shared by all that answers for single files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote, urljoin, urlsplit

import msgspec

from waypost.artifacts.posted import encodable, flatten, objects
from waypost.artifacts.preset import LATEST
from waypost.routing.decision import (
    Decision,
    Fact,
    Fetch,
    Final,
    Headers,
    Redirect,
    Refuse,
    Relay,
    Reply,
    UpstreamHead,
)
from waypost.routing.outgoing import Outgoing
from waypost.routing.request import Request

# A body is event data, and only its beginning is read.
BODY_BYTES = 256
BODY_OBJECTS = 10
# How many parameters of a query are recorded. All are carried to the target.
QUERY_VARIABLES = 64

METHODS = ("GET", "HEAD", "POST")
_NOT_ALLOWED = Refuse(405, "UNSUPPORTED", "Files are fetched with GET.", (("allow", "GET, HEAD, POST"),))
_NOT_ALLOWED_PROXY = Refuse(405, "UNSUPPORTED", "Files are fetched with GET.", (("allow", "GET, HEAD"),))
_CLIMBS = Refuse(404, "NOT_FOUND", "A path that climbs out of its folder leads nowhere.")
_INSECURE = Refuse(502, "UNSAFE_TARGET", "This file moved to plain http, and https never leads there.")
_LOST = Refuse(502, "UPSTREAM_FAILED", "The upstream redirected to something that is no URL, or to plain http.")
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_TEXT: Headers = (("content-type", "text/plain; charset=utf-8"),)

# RFC 9110 sections 12.5.1, 13.1 and 14.2: what of the client's request shapes the answer.
FORWARDED = frozenset(
    ("accept", "range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range")
)
_RELAYED = frozenset(
    (
        "content-type",
        "content-encoding",
        "content-length",
        "etag",
        "last-modified",
        "accept-ranges",
        "content-range",
        "content-disposition",
    )
)
# RFC 6266 appendix D: what a file name may hold without being read in several ways.
_PLAIN_NAME = re.compile(r"[0-9A-Za-z@+._ ~-]{1,200}")
_CONDITIONS = frozenset(("if-none-match", "if-modified-since"))
_NOT_MODIFIED = frozenset(("etag", "last-modified", "cache-control", "expires"))


class Target:
    """What answers once a route matched.

    ways    where the file is, in order; none: answer 200 and record
    proxy   stream the file through instead of redirecting
    latest  the same for the version "latest", as many; none: that is a version like others
    """

    __slots__ = ("latest", "owner", "package", "proxy", "upstreams", "ways")

    def __init__(
        self,
        ways: Sequence[Outgoing],
        package: str,
        owner: str | None,
        proxy: bool = False,
        latest: Sequence[Outgoing] = (),
    ) -> None:
        self.ways = ways
        self.package = package
        self.owner = owner
        self.proxy = proxy
        self.latest = latest
        self.upstreams = [way.authority for way in ways]

    def answer(self, request: Request, values: dict[str, str]) -> Decision:
        """`values`: the route's variables as they came."""
        ways = self.latest if self.latest and values.get("version") == LATEST else self.ways
        locations = []
        for way in ways:
            location = way.location(values, request.query)
            if location is None:
                return _CLIMBS
            locations.append(location)
        return self.to(locations, request, values)

    def to(self, locations: Sequence[str], request: Request, values: dict[str, str]) -> Decision:
        """The answer for URLs that are already made, one for each way."""
        method = request.method
        if method not in METHODS:
            return _NOT_ALLOWED
        if request.scheme == "https" and any(location.startswith("http:") for location in locations):
            return _INSECURE
        if self.proxy and locations:
            return _NOT_ALLOWED_PROXY if method == "POST" else self._fetch(locations, request, values)
        facts = () if method == "HEAD" else self._facts(request, values)
        if not locations:
            return Reply(200, _TEXT, b"", facts)
        first, *others = map(Redirect, locations, self._by_upstream(facts))
        redirect = msgspec.structs.replace(first, others=tuple(others)) if others else first
        if method == "HEAD" and goes_on_from_there(request):
            return _looked_for(redirect, request.path)
        return redirect

    def _by_upstream(self, facts: tuple[Fact, ...]) -> Iterator[tuple[Fact, ...]]:
        """The facts as they are where each upstream serves: as they are made, they are those of the first."""
        for number, upstream in enumerate(self.upstreams):
            yield tuple(msgspec.structs.replace(fact, upstream=upstream) for fact in facts) if number else facts

    def _facts(self, request: Request, values: dict[str, str]) -> tuple[Fact, ...]:
        kind = "telemetry" if request.method == "POST" else "binary-download"
        path = request.path
        if not request.query and not request.body and "%" not in path and path.isascii():
            return (self._fact(kind, values),)
        own = {name: _decoded(value) for name, value in values.items()}
        asked = _query_variables(request.query) if request.query else {}
        if request.body:
            found = objects(request.body[:BODY_BYTES], BODY_OBJECTS)
            if found:
                return tuple(self._fact("telemetry", {**asked, **flatten(item), **own}) for item in found)
        return (self._fact(kind, {**asked, **own} if asked else own),)

    def _fact(self, kind: str, variables: dict[str, str]) -> Fact:
        return Fact(
            kind=kind,
            package=self.package,
            owner=self.owner,
            version=variables.get("version"),
            platform=variables.get("platform"),
            variables=variables or None,
            upstream=self.upstreams[0] if self.upstreams else None,
        )

    def _fetch(self, locations: Sequence[str], request: Request, values: dict[str, str]) -> Fetch:
        # Bodies of proxied requests are not event data: nothing is posted here.
        facts = () if request.method == "HEAD" else self._facts(request, values)
        headers = tuple((name, value) for name, value in request.headers if name in FORWARDED)
        first, *others = (
            fetch_file(location, request.method, headers, own)
            for location, own in zip(locations, self._by_upstream(facts), strict=True)
        )
        # Mirrors have the same file, or do not have it yet.
        return msgspec.structs.replace(first, others=tuple(others), alike=True) if others else first


def fetch_file(url: str, method: str, headers: Headers, facts: tuple[Fact, ...]) -> Fetch:
    """A file that passes through us, wherever its upstream keeps it. `facts` are recorded if it is had."""

    def then(head: UpstreamHead) -> Final | Fetch:
        if head.status in _REDIRECTS:
            # The upstream keeps the file elsewhere, mostly behind a signed URL. The client may not be able
            # to go there, or the route would not say `proxy`: so we go.
            target = followed(url, head.header("location") or "")
            return _LOST if target is None else fetch_file(target, method, headers, facts)
        return _relayed(head, {name for name, _ in headers}, facts)

    return Fetch(url=url, then=then, method=method, headers=headers)


def goes_on_from_there(request: Request) -> bool:
    """Whether a client asks by HEAD where a file is, and then fetches it there, past us: Homebrew does."""
    return (request.header("user-agent") or "").startswith("Homebrew/")


def _looked_for(redirect: Redirect, path: str) -> Fetch:
    """A HEAD at whichever upstream can answer it; if none can, the client is sent there after all."""
    looks = [look(one.location, path, msgspec.structs.replace(one, others=())) for one in (redirect, *redirect.others)]
    looks[-1] = msgspec.structs.replace(looks[-1], instead=redirect)
    return msgspec.structs.replace(looks[0], others=tuple(looks[1:]))


def look(url: str, path: str, otherwise: Redirect) -> Fetch:
    """HEAD, answered by us, so that a client that goes on from where it was led comes back here for the file.

    Homebrew looks for a Content-Disposition, and where there is none asks again, by GET, with an interest in nothing
    else (Library/Homebrew/download_strategy.rb). If the file cannot be looked at, the client is sent there itself.
    """
    name = unquote(path.rpartition("/")[2])

    def then(head: UpstreamHead) -> Final | Fetch:
        if head.status in _REDIRECTS:
            target = followed(url, head.header("location") or "")
            return otherwise if target is None else look(target, path, otherwise)
        if head.status != 200:
            return otherwise
        headers = _picked(head, _RELAYED)
        if head.header("content-disposition") is None and _PLAIN_NAME.fullmatch(name):
            headers += (("content-disposition", f'attachment; filename="{name}"'),)
        return Relay(200, headers)

    return Fetch(url=url, then=then, method="HEAD")


def _relayed(head: UpstreamHead, asked: set[str], facts: tuple[Fact, ...]) -> Final:
    status = head.status
    # RFC 9110 sections 15.3.7 and 15.4.5: a part, or "not modified", answers only who asked for that.
    if status == 200 or (status == 206 and "range" in asked):
        return Relay(status, _picked(head, _RELAYED), facts)
    if status == 304 and asked & _CONDITIONS:
        return Reply(304, _picked(head, _NOT_MODIFIED))
    if status in (404, 410):
        return Refuse(404, "NOT_FOUND", "The upstream does not have this file.")
    if status in (412, 416):
        ranges = _picked(head, frozenset(("content-range",)))
        return Refuse(status, "UNSATISFIABLE", "The upstream cannot answer with this range or condition.", ranges)
    return Refuse(502, "UPSTREAM_FAILED", f"The upstream answered {status}.")


def followed(url: str, location: str) -> str | None:
    """Where a redirect from `url` leads; None if that is no URL we would fetch."""
    # urllib drops line breaks and tabs in silence, so the text is looked at first.
    if not location or not location.isascii() or not location.isprintable() or " " in location:
        return None
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return None
    downgrade = url.startswith("https:") and parts.scheme == "http"
    return target if fit and not downgrade else None


def _picked(head: UpstreamHead, names: frozenset[str]) -> Headers:
    return tuple((name, value) for name, value in head.headers if name in names)


def _decoded(raw: str) -> str:
    return encodable(unquote(raw)) if "%" in raw or not raw.isascii() else raw


def _query_variables(query: str) -> dict[str, str]:
    """Of a name that occurs twice the first, as it is carried to the target."""
    found: dict[str, str] = {}
    for pair in query.split("&", QUERY_VARIABLES)[:QUERY_VARIABLES]:
        name, _, value = pair.partition("=")
        if name:
            found.setdefault(_form_decoded(name), _form_decoded(value))
    return found


def _form_decoded(raw: str) -> str:
    return _decoded(raw.replace("+", " "))
