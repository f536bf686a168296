"""Trees: repositories that are folders of files under one root URL, as apt, dnf, Maven, Go and others read them.

Clients ask for the same paths that the upstream has, and are sent there. What a path names (a package file with its
name, version and platform, or an index) is for each type to read; the rest is the same for all and stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from waypost.artifacts.kind import Clash, DeclarationError, HostPolicy, Kind, Package, Reach, upstreams_reach
from waypost.artifacts.target import fetch_file
from waypost.routing.decision import Decision, Fact, Fetch, Headers, Redirect, Refuse
from waypost.routing.expression import TemplateError
from waypost.routing.outgoing import Outgoing, keep_query
from waypost.routing.request import Request

_READ_ONLY = Refuse(405, "UNSUPPORTED", "This repository is read with GET.", (("allow", "GET, HEAD"),))
_CLIMBS = Refuse(404, "NOT_FOUND", "A path that climbs out of its folder leads nowhere.")
INSECURE = Refuse(502, "UNSAFE_TARGET", "This repository is on plain http, and https never leads there.")
# RFC 9110 sections 12.5.1, 13.1 and 14.2: what of the client's request shapes the answer.
FORWARDED = frozenset(
    ("accept", "range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range")
)


class File(NamedTuple):
    """What a path of a tree names.

    kind      binary-download; index-fetch for what lists others; "" for what is not worth an event (keys, checksums)
    name      of the artifact inside the package: a .deb, a jar, a crate
    same      whoever has it has the same bytes: any upstream may serve it. Else all clients are sent to one upstream.
    through   it passes through us: clients that are redirected for it would ask for all else there, too
    """

    kind: str
    name: str | None = None
    version: str | None = None
    platform: str | None = None
    same: bool = False
    through: bool = False


OTHER = File("")

# The path below the root, percent-decoded, without leading slash → what it names.
Reader: TypeAlias = Callable[[str], File]


class TreeRow(Struct, frozen=True, array_like=True):
    """A package whose domain is one tree. Each type has its own subclass, with a tag.

    upstreams  root URLs without trailing slash, first healthy first
    proxy      files pass through us
    """

    package: str
    upstreams: tuple[str, ...]
    owner: str | None = None
    proxy: bool = False


class TreeSite:
    """Everything under one host's root. `read` says what a path names."""

    def __init__(self, rows: Sequence[TreeRow], policy: HostPolicy, read: Reader) -> None:
        self._row = rows[0]  # a host has one tree: see `alone`
        self._read = read
        self._roots = [Outgoing.parse(f"{root}/{{+path}}", ("path",)) for root in self._row.upstreams]
        self._secure = policy.base_url.startswith("https:")

    def decide(self, request: Request) -> Decision | None:
        if not request.path.startswith("/"):
            return None
        if request.method not in ("GET", "HEAD"):
            return _READ_ONLY
        request = _plain(request)
        locations = [self._location(root, request) for root in self._roots]
        if None in locations:
            return _CLIMBS
        return self._lead([location for location in locations if location is not None], self._file(request), request)

    def _file(self, request: Request) -> File:
        return self._read(unquote(request.path[1:]))

    def _location(self, root: Outgoing, request: Request) -> str | None:
        location = root.location({"path": self.upstream_path(request.path)})
        if location is None or request.query is None:
            return location
        return f"{location}?{keep_query(request.query)}"

    def upstream_path(self, path: str) -> str:
        """What a path of ours is called upstream, as it came and without leading slash."""
        return path[1:]

    def _lead(self, locations: Sequence[str], file: File, request: Request) -> Decision:
        if self._row.proxy or file.through:
            headers = _forwarded(request)
            fetch, *others = (
                fetch_file(location, request.method, headers, self._facts(location, file, request))
                for location in locations
            )
            return msgspec.structs.replace(fetch, others=tuple(others), alike=file.same, pin=self._pin(file))
        if any(self._downgrades(location, request) for location in locations):
            return INSECURE
        redirects = [
            Redirect(location, self._facts(location, file, request), root=f"{root}/")
            for location, root in zip(locations, self._row.upstreams, strict=True)
        ]
        first, *rest = redirects
        if not rest:
            return first
        return msgspec.structs.replace(first, others=tuple(rest), pin=self._pin(file))

    def _pin(self, file: File) -> str | None:
        return None if file.same or len(self._roots) == 1 else self._row.package

    def _named(self, location: str, file: File, request: Request) -> Redirect | Fetch | Refuse:
        """The answer for a file that an index has at this URL, wherever that is."""
        facts = self._facts(location, file, request)
        if self._row.proxy:
            return fetch_file(location, request.method, _forwarded(request), facts)
        return INSECURE if self._downgrades(location, request) else Redirect(location, facts)

    def _downgrades(self, location: str, request: Request) -> bool:
        return location.startswith("http:") and (self._secure or request.scheme == "https")

    def _facts(self, location: str, file: File, request: Request) -> tuple[Fact, ...]:
        if not file.kind or request.method == "HEAD":
            return ()
        return (
            Fact(
                kind=file.kind,
                package=self._row.package,
                owner=self._row.owner,
                version=file.version,
                platform=file.platform,
                artifact=file.name,
                upstream=location.split("/", 3)[2],
            ),
        )

    def explain(self, request: Request) -> list[str]:
        row = self._row
        file = self._file(_plain(request))
        named = ", ".join(filter(None, (file.name, file.version, file.platform)))
        what = {"binary-download": f"a file ({named})", "index-fetch": "an index"}.get(file.kind, "neither")
        first, *others = row.upstreams
        then = f", and while that is down {', then '.join(others)}" if others else ""
        return [f"{row.package}: {request.path} is {what}; at {first}{then}"]


def _plain(request: Request) -> Request:
    """Without segments that stand for nothing (RFC 3986 section 5.2.4): apt sends them for flat repositories."""
    path = request.path
    if "/./" not in path:
        return request
    while "/./" in path:
        path = path.replace("/./", "/")
    return Request(request.method, request.host, path, request.query, request.headers, request.body, request.scheme)


def _forwarded(request: Request) -> Headers:
    return tuple((name, value) for name, value in request.headers if name in FORWARDED)


def roots(package: Package, example: str) -> tuple[str, ...]:
    """The root URLs that a package declares as `upstream`. Raises DeclarationError."""
    if package.routes:
        raise DeclarationError("routes", package.routes, f"no routes: this type has an `upstream`, such as {example}")
    if not package.upstream:
        raise DeclarationError("upstream", package.upstream, f"the root URL of the repository, such as {example}")
    written = [package.upstream] if isinstance(package.upstream, str) else package.upstream
    found: list[str] = []
    for one in written:
        root = one.rstrip("/")
        try:
            parts = urlsplit(one)
            fit = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
            Outgoing.parse(f"{root}/{{+path}}", ("path",))
        except (ValueError, TemplateError):
            fit = False
        if not fit or "{" in one:
            raise DeclarationError("upstream", one, f"the root URL of a repository, such as {example}")
        if root in found:
            raise DeclarationError("upstream", one, "each upstream once")
        found.append(root)
    return tuple(found)


def alone(rows: Sequence[TreeRow]) -> list[Clash]:
    """Of trees, one host has one."""
    first, *rest = rows
    return [
        Clash(first, row, f"{first.package} and {row.package} would both be the domain's root; each needs its own")
        for row in rest
    ]


def tree_reach(rows: Sequence[TreeRow]) -> Reach:
    """Path by path: nothing that an upstream says leads anywhere else."""
    return Reach(upstreams_reach(rows).origins)


def kind_of(
    name: str, row: type[TreeRow], read: Reader, example: str, order: int = 50, site: type[TreeSite] = TreeSite
) -> Kind:
    """The Kind of a type whose domains are trees. `example` is a root URL, for error messages."""

    def declare(package: Package) -> list[TreeRow]:
        return [row(package.name, roots(package, example), package.owner, package.proxy)]

    def site_of(rows: Sequence[TreeRow], policy: HostPolicy) -> TreeSite:
        return site(rows, policy, read)

    # A type with a site of its own may read where else files are.
    reach = tree_reach if site is TreeSite else upstreams_reach
    return Kind(name=name, order=order, row=row, site=site_of, declare=declare, clashes=alone, root=True, reach=reach)


__all__ = ["OTHER", "File", "Reader", "TreeRow", "TreeSite", "alone", "kind_of", "roots", "tree_reach"]
