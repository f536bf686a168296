"""Python projects: a complete simple index, whose pages lead to us and whose files lead to where they are today.

A project that a package declares comes from its upstreams or not at all. Every other one is to be found at the
domain's `fallback`, if it has one: so that users name one index, and nobody else's project can take a name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from urllib.parse import quote, unquote, urlsplit

import msgspec
from msgspec import Struct

from waypost.artifacts.kind import Clash, DeclarationError, HostPolicy, Kind, Package, Reach, origins
from waypost.artifacts.listing import Listing, kept_of
from waypost.artifacts.oci import digest_of
from waypost.artifacts.project_page import HTML, JSON, TEXT, Unreadable
from waypost.artifacts.release import normalise, release_of
from waypost.artifacts.requirement import (
    EXAMPLE,
    Requirement,
    RequirementError,
    is_command,
    is_project,
    parse_command,
    parse_index,
)
from waypost.artifacts.target import FORWARDED, fetch_file, followed
from waypost.routing.accept import preferred
from waypost.routing.condition import unless_known
from waypost.routing.decision import Decision, Fact, Fetch, Final, Headers, Page, Redirect, Refuse, Reply, UpstreamHead
from waypost.routing.outgoing import Outgoing, keep_query
from waypost.routing.request import Request

# Of an upstream's page. 100,000 files are about 25 MB in HTML.
MOST_BYTES = 32 * 1024 * 1024
SECONDS = 60.0

# PEP 691: what a client may ask for → what it is then given, which is never called "latest".
_FORMS = {
    TEXT: TEXT,
    JSON: JSON,
    HTML: HTML,
    "application/vnd.pypi.simple.latest+json": JSON,
    "application/vnd.pypi.simple.latest+html": HTML,
}
_OFFERED = tuple(_FORMS)
_ASKED: Headers = (("Accept", f"{JSON}, {HTML};q=0.2, {TEXT};q=0.1"), ("Accept-Encoding", "identity"))

_READ_ONLY = Refuse(405, "UNSUPPORTED", "An index is read with GET.", (("allow", "GET, HEAD"),))
_NO_FORM = Refuse(
    406, "NOT_ACCEPTABLE", f"This is to be had as {', '.join(dict.fromkeys(_FORMS.values()))}.", (("vary", "accept"),)
)
_CLIMBS = Refuse(404, "NOT_FOUND", "A path that climbs out of its folder leads nowhere.")
_INSECURE = Refuse(502, "UNSAFE_TARGET", "This is on plain http, and https never leads there.")
_NO_FILE = Refuse(404, "NOT_FOUND", "The index upstream does not list this file.")
_GONE = Refuse(404, "NOT_FOUND", "The index upstream does not have this project.")
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


class ProjectRow(Struct, frozen=True, array_like=True, tag="python"):
    """A project. `name` is normalised; `indexes` are simple indexes with a slash at their end, first healthy first.

    proxy  files pass through us
    """

    name: str
    indexes: tuple[str, ...]
    package: str
    owner: str | None = None
    proxy: bool = False


class ProjectSite:
    """Everything under /simple/ on one host."""

    def __init__(self, rows: Sequence[ProjectRow], policy: HostPolicy) -> None:
        self._base = policy.base_url
        self._secure = policy.base_url.startswith("https:")
        self._rows = {row.name: row for row in reversed(rows)}  # the first one wins
        self._fallback = Outgoing.parse(f"{policy.fallback}{{+path}}", ("path",)) if policy.fallback else None
        self._root = {form: _root(sorted(self._rows), form) for form in _FORMS.values()}

    def decide(self, request: Request) -> Decision | None:
        path = request.path
        if path != "/simple" and not path.startswith("/simple/"):
            return None
        project, slash, file = path[len("/simple/") :].partition("/")
        name = normalise(unquote(project))
        row = self._rows.get(name)
        if row is None and project and self._fallback is None:
            return None
        if request.method not in ("GET", "HEAD"):
            return _READ_ONLY
        if not project:
            return self._list(request)
        if row is None:
            return self._elsewhere(name, slash, file, request)
        if not slash or (not file and name != project):
            # PEP 503: one spelling of each URL, with a slash at its end.
            return Redirect(f"{self._base}/simple/{name}/", status=301)
        return self._file(row, unquote(file), request) if file else self._page(row, request)

    def _list(self, request: Request) -> Decision:
        if request.path == "/simple":
            return Redirect(f"{self._base}/simple/", status=301)
        form = _form(request)
        return _NO_FORM if form is None else unless_known(request, self._root[form])

    def _elsewhere(self, name: str, slash: str, file: str, request: Request) -> Decision:
        """Nobody here has declared this: nothing of it is ours, nor is it recorded (C11)."""
        assert self._fallback is not None
        path = f"{quote(name, safe='', errors='replace')}/{file}"
        location = self._fallback.location({"path": path})
        if location is None:
            return _CLIMBS
        if self._is_downgrade(location, request):
            return _INSECURE
        return Redirect(location if request.query is None else f"{location}?{keep_query(request.query)}")

    def _page(self, row: ProjectRow, request: Request) -> Decision:
        form = _form(request)
        if form is None:
            return _NO_FORM
        facts = () if request.method == "HEAD" else (Fact(kind="index-fetch", package=row.package, owner=row.owner),)

        return self._ask(row, Page(self._kept_as(row), facts, SECONDS, 503, _CHOICES[form], form))

    def _file(self, row: ProjectRow, file: str, request: Request) -> Decision:
        """Where a file is, only its upstream's page knows: no part of the path goes into a URL."""

        def choose(kept: Reply) -> Redirect | Refuse | Fetch:
            url, counts = _url(Listing(kept.body), file)
            if url is None:
                return _NO_FILE
            facts = (_download(row, file, url),) if counts and request.method == "GET" else ()
            if row.proxy:
                headers = tuple((name, value) for name, value in request.headers if name in FORWARDED)
                return fetch_file(url, request.method, headers, facts)
            return _INSECURE if self._is_downgrade(url, request) else Redirect(url, facts)

        return self._ask(row, Page(self._kept_as(row), (), SECONDS, 503, choose, quick=True))

    def _kept_as(self, row: ProjectRow) -> str:
        """Another upstream, or another base of our links, makes another page."""
        return " ".join((self._links(row), *row.indexes))

    def _links(self, row: ProjectRow) -> str:
        return f"{self._base}/simple/{row.name}/"

    def _is_downgrade(self, location: str, request: Request) -> bool:
        return location.startswith("http:") and (self._secure or request.scheme == "https")

    def _ask(self, row: ProjectRow, page: Page) -> Fetch:
        first, *others = (_question(f"{index}{row.name}/", row.name, self._links(row)) for index in row.indexes)
        return msgspec.structs.replace(first, others=tuple(others), keep=page)

    def explain(self, request: Request) -> list[str]:
        if not request.path.startswith("/simple/"):
            return []
        name = normalise(unquote(request.path[len("/simple/") :].partition("/")[0]))
        if not name:
            return [f"Python index of {len(self._rows)} project{'s' * (len(self._rows) != 1)} declared here."]
        row = self._rows.get(name)
        if row is not None:
            first, *others = row.indexes
            then = f", and while that is down {', then '.join(others)}" if others else ""
            return [f"Python project {name!r}, declared here: from {first}{then}. It never comes from elsewhere."]
        if self._fallback is None:
            return [f"No Python project called {name!r} is declared on this host, which has no fallback."]
        return [f"No Python project called {name!r} is declared on this host: the fallback has it, or nobody."]


def _form(request: Request) -> str | None:
    """The media type of the answer; None if the client takes none of them."""
    lines = request.header_all("accept")
    wanted = preferred(lines[0] if len(lines) == 1 else ", ".join(lines), _OFFERED)
    return None if wanted is None else _FORMS[wanted]


def _root(names: Sequence[str], form: str) -> Reply:
    if form == JSON:
        body = msgspec.json.encode({"meta": {"api-version": "1.0"}, "projects": [{"name": name} for name in names]})
    else:
        anchors = "".join(f'<a href="{name}/">{name}</a><br>\n' for name in names)
        head = '<meta name="pypi:repository-version" content="1.0"><title>Simple index</title>'
        body = f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n{anchors}</body></html>\n".encode()
    return Reply(200, (*_headers(form), ("ETag", f'"{digest_of(body)}"')), body)


def _headers(form: str) -> Headers:
    return (("Content-Type", form if form != TEXT else f"{TEXT}; charset=utf-8"), ("Vary", "accept"))


def _choice(form: str) -> Callable[[Reply], Reply]:
    """The page in one of its forms."""
    headers = _headers(form)
    return lambda kept: Reply(200, headers, Listing(kept.body).page(form))


_CHOICES = {form: _choice(form) for form in _FORMS.values()}


def _url(listing: Listing, file: str) -> tuple[str | None, bool]:
    """(where a file is, whether it is one that counts): files, and the companions that pages promise."""
    place = listing.place(file)
    if place is not None:
        return place.url, True
    stem, _, suffix = file.rpartition(".")
    companion = listing.place(stem) if suffix in ("metadata", "asc") else None
    has = companion is not None and (companion.metadata if suffix == "metadata" else companion.signed)
    return (companion.beside(f".{suffix}"), False) if companion is not None and has else (None, False)


def _download(row: ProjectRow, file: str, url: str) -> Fact:
    release = release_of(row.name, file)
    return Fact(
        kind="binary-download",
        package=row.package,
        owner=row.owner,
        version=release.version,
        platform=release.platform,
        artifact=file,
        upstream=urlsplit(url).netloc,
    )


def _question(url: str, name: str, links: str) -> Fetch:
    def then(head: UpstreamHead) -> Final | Fetch:
        if head.status == 200:
            return _taken(head, url, name, links)
        if head.status in _REDIRECTS:
            target = followed(url, head.header("location") or "")
            return (
                _failed("it redirects to no URL, or to plain http")
                if target is None
                else _question(target, name, links)
            )
        return _GONE if head.status in (404, 410) else _failed(f"it answered {head.status}")

    return Fetch(url=url, then=then, headers=_ASKED, buffer=MOST_BYTES)


def _taken(head: UpstreamHead, url: str, name: str, links: str) -> Reply | Refuse:
    try:
        body = _plain(head)
        return Reply(200, (), kept_of(body, head.header("content-type") or "", url, name, links))
    except Unreadable as error:
        return _failed(f"it sent {error}")


def _failed(why: str) -> Refuse:
    return Refuse(502, "UPSTREAM_FAILED", f"The index upstream cannot be used now: {why}.")


def _plain(head: UpstreamHead) -> bytes:
    """The page without its coding: some servers keep files compressed, and send them so whatever was asked."""
    coding = (head.header("content-encoding") or "identity").lower()
    if coding == "identity":
        return head.body
    if coding not in ("gzip", "x-gzip"):
        raise Unreadable(f"a page in the coding {coding[:20]!r}, though it was asked for none")
    reader = zlib.decompressobj(wbits=31)
    try:
        body = reader.decompress(head.body, MOST_BYTES)
    except zlib.error:
        raise Unreadable("what is no gzip, though it says so") from None
    if not reader.eof or reader.unused_data:
        raise Unreadable(f"gzip that is cut off, or holds more than {MOST_BYTES} bytes")
    return body


def declare(package: Package) -> list[ProjectRow]:
    if not is_project(package.name):
        raise DeclarationError("name", package.name, "the project's name: letters, digits, and . _ - between them")
    if package.routes:
        raise DeclarationError("routes", package.routes, "no routes: a Python project has an `upstream`")
    example = f"a simple index such as {EXAMPLE}, or the pip line that users type"
    if not package.upstream:
        raise DeclarationError("upstream", package.upstream, example)
    name = normalise(package.name)
    indexes: list[str] = []
    for one in [package.upstream] if isinstance(package.upstream, str) else package.upstream:
        try:
            found = parse_command(one) if is_command(one) else Requirement(name, parse_index(one))
        except RequirementError as error:
            raise DeclarationError("upstream", one, f"{example}. {str(error)[:1].upper()}{str(error)[1:]}") from None
        if normalise(found.project) != name:
            raise DeclarationError("upstream", one, f"a line that installs {package.name}")
        if found.upstream in indexes:
            raise DeclarationError("upstream", one, "each upstream once")
        indexes.append(found.upstream)
    return [ProjectRow(name, tuple(indexes), package.name, package.owner, package.proxy)]


def clashes(rows: Sequence[ProjectRow]) -> list[Clash]:
    seen: dict[str, ProjectRow] = {}
    return [
        Clash(first, row, f"the project {row.name} is declared twice, and an index has each name once")
        for row in rows
        if (first := seen.setdefault(row.name, row)) is not row
    ]


def reach(rows: Sequence[ProjectRow]) -> Reach:
    """Where files are, the upstream's page says: mostly at the index itself, or at a host of its own."""
    sent = [row for row in rows if not row.proxy]
    return Reach(origins(index for row in sent for index in row.indexes), further=bool(sent))


KIND = Kind(
    name="python",
    order=29,
    row=ProjectRow,
    site=ProjectSite,
    declare=declare,
    clashes=clashes,
    claims=lambda row: ("/simple",),
    falls_back=True,
    reach=reach,
)
