"""Where a route leads, and what is recorded on the way: shared by all that answers for single files."""

from __future__ import annotations

import re
from urllib.parse import unquote, urljoin, urlsplit

import msgspec

from waypost.artifacts.posted import encodable, flatten, objects
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

    outgoing  None: answer 200 and record
    proxy     stream the file through instead of redirecting
    """

    __slots__ = ("outgoing", "owner", "package", "proxy", "upstream")

    def __init__(self, outgoing: Outgoing | None, package: str, owner: str | None, proxy: bool = False) -> None:
        self.outgoing = outgoing
        self.package = package
        self.owner = owner
        self.proxy = proxy
        self.upstream = None if outgoing is None else outgoing.host

    def answer(self, request: Request, values: dict[str, str]) -> Decision:
        """`values`: the route's variables as they came."""
        location = None
        if self.outgoing is not None:
            location = self.outgoing.location(values, request.query)
            if location is None:
                return _CLIMBS
        return self.to(location, request, values)

    def to(self, location: str | None, request: Request, values: dict[str, str]) -> Decision:
        """The answer for a URL that is already made."""
        method = request.method
        if method not in METHODS:
            return _NOT_ALLOWED
        if location is not None and request.scheme == "https" and location.startswith("http:"):
            return _INSECURE
        if self.proxy and location is not None:
            return _NOT_ALLOWED_PROXY if method == "POST" else self._fetch(location, request, values)
        facts = () if method == "HEAD" else self._facts(request, values)
        if location is None:
            return Reply(200, _TEXT, b"", facts)
        redirect = Redirect(location, facts)
        if method == "HEAD" and goes_on_from_there(request):
            return msgspec.structs.replace(look(location, request.path, redirect), instead=redirect)
        return redirect

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
            upstream=self.upstream,
        )

    def _fetch(self, location: str, request: Request, values: dict[str, str]) -> Fetch:
        # Bodies of proxied requests are not event data: nothing is posted here.
        facts = () if request.method == "HEAD" else self._facts(request, values)
        headers = tuple((name, value) for name, value in request.headers if name in FORWARDED)
        return fetch_file(location, request.method, headers, facts)


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
