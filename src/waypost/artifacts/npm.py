"""npm packages: packuments with links to ourselves, and tarballs wherever their registry says that they are.

What a package declares comes from its upstream or not at all. Everything else that clients ask of a registry (other
packages, search, audits) is the fallback's, if the domain has one: that is a site of its own, asked after all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from waypost.artifacts import packument
from waypost.artifacts.kind import Clash, DeclarationError, HostPolicy, Kind, Package, nowhere
from waypost.artifacts.packument import ABBREVIATED, FULL, PackumentError
from waypost.artifacts.target import fetch_file, followed
from waypost.artifacts.tree import FORWARDED, INSECURE, roots
from waypost.routing.accept import preferred
from waypost.routing.decision import Decision, Fact, Fetch, Final, Headers, Page, Redirect, Refuse, Reply, UpstreamHead
from waypost.routing.outgoing import Outgoing, keep_query
from waypost.routing.request import Request

# The largest packuments of the public registry are some tens of megabytes.
BUFFER = 64 * 1024 * 1024
# Of versions and tags. https://semver.org leaves it open; npm's own reading of versions ends here.
LONGEST_VERSION = 256
_JSON: Headers = (("Content-Type", "application/json"),)
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_READ_ONLY = Refuse(
    405,
    "UNSUPPORTED",
    "Packages can be installed from this address, not published to it. Publish to the registry behind it.",
    (("Allow", "GET, HEAD"),),
)
_NOTHING = Refuse(404, "NOT_FOUND", "The registry API has no such path.")
# npm shows people what stands in `error`, and nothing of errors in another form.
_UNKNOWN = Reply(
    404, _JSON, b'{"error":"No package of this name is published at this address, and it has no fallback."}\n'
)
_CLIMBS = Refuse(404, "NOT_FOUND", "A path that climbs out of its folder leads nowhere.")

_Choose: TypeAlias = Callable[[Reply], Redirect | Reply | Refuse | Fetch]


class NpmRow(Struct, frozen=True, array_like=True, tag="npm"):
    """One package. `upstreams`: registries without trailing slash, first healthy first; `proxy`: tarballs pass
    through us."""

    name: str
    upstreams: tuple[str, ...]
    owner: str | None = None
    proxy: bool = False


class NpmRestRow(Struct, frozen=True, array_like=True, tag="npm-rest"):
    """That a host is a registry, so that it answers for packages that nobody declares."""


class NpmSite:
    """What is declared on one host, and `/-/ping`."""

    def __init__(self, rows: Sequence[NpmRow], policy: HostPolicy) -> None:
        self._rows = {row.name: row for row in reversed(rows)}
        self._base = policy.base_url
        self._secure = policy.base_url.startswith("https:")

    def decide(self, request: Request) -> Decision | None:
        row, rest = self._asked(request.path)
        if row is None:
            if rest == ["-", "ping"] and request.method in ("GET", "HEAD"):
                return Reply(200, _JSON, b"{}")
            return None
        if request.method not in ("GET", "HEAD"):
            return _READ_ONLY
        match rest:
            case []:
                return self._packument(row, request)
            case ["-", "dist-tags"]:
                return self._ask(row, request, ABBREVIATED, "dist-tags", _dist_tags)
            case ["-", "attestations", version]:
                return self._attestations(row, request, version)
            case ["-", file]:
                return self._tarball(row, request, file)
            case [version] if len(version) <= LONGEST_VERSION:
                return self._ask(row, request, FULL, f"version {version}", partial(_version, row.name, version))
        return _NOTHING

    def _asked(self, path: str) -> tuple[NpmRow | None, list[str]]:
        """The declared package that a path is about, and what follows its name; of others the whole path.

        `/-/package/NAME/dist-tags` and `/-/npm/v1/attestations/NAME@VERSION` are read as if the name came first.
        Clients write the slash of a scoped name as it is, as %2f, and as %2F.
        """
        segments = [segment for segment in unquote(path).split("/") if segment]
        match segments:
            case ["-", "package", *named]:
                row, rest = self._named(named)
                return row, ["-", *rest]
            case ["-", "npm", "v1", "attestations", *named] if named:
                *scope, last = named
                name, _, version = last.rpartition("@")
                row, rest = self._named([*scope, name])
                if row is not None and not rest:
                    return row, ["-", "attestations", version]
                return None, segments
        row, rest = self._named(segments)
        return row, segments if row is None else rest

    def _named(self, segments: Sequence[str]) -> tuple[NpmRow | None, list[str]]:
        parts = 2 if segments and segments[0].startswith("@") else 1
        return self._rows.get("/".join(segments[:parts])), list(segments[parts:])

    def _packument(self, row: NpmRow, request: Request) -> Fetch:
        form = preferred(",".join(request.header_all("accept")), (FULL, ABBREVIATED)) or FULL
        return self._ask(row, request, form, "packument", _document)

    def _ask(self, row: NpmRow, request: Request, form: str, what: str, choose: _Choose, quick: bool = False) -> Fetch:
        """A packument in one of its two forms, of which `choose` makes `what`. "": that depends on more."""
        facts = () if request.method == "HEAD" else (Fact(kind="index-fetch", package=row.name, owner=row.owner),)
        first, *others = (self._question(row, root, form) for root in row.upstreams)
        page = Page(f"{self._base}/{row.name} {form}", facts, failure=503, choose=choose, form=what, quick=quick)
        return msgspec.structs.replace(first, others=tuple(others), keep=page)

    def _question(self, row: NpmRow, root: str, form: str) -> Fetch:
        # A scoped name is one segment to registries: https://github.com/npm/registry/blob/main/docs/REGISTRY-API.md
        url = f"{root}/{row.name.replace('/', '%2f')}"
        accept = FULL if form == FULL else f"{form}; q=1.0, {FULL}; q=0.8, */*"
        return _fetch_packument(url, row.name, f"{self._base}/{row.name}/-/", (("Accept", accept),))

    def _tarball(self, row: NpmRow, request: Request, file: str) -> Decision:
        version = packument.version_in(row.name, file)
        if version is None or len(version) > LONGEST_VERSION:
            return _NOTHING
        secure = self._secure or request.scheme == "https"
        choose = partial(_lead, row, request, version, secure)
        # What passes through us depends on the request's headers, too.
        what = "" if row.proxy else f"{request.method} {secure} {version}"
        return self._ask(row, request, ABBREVIATED, what, choose, quick=True)

    def _attestations(self, row: NpmRow, request: Request, version: str) -> Decision:
        """Bundles of signatures that nobody needs in order to install: the registry's own, at the registry."""
        path = f"-/npm/v1/attestations/{row.name.replace('/', '%2f')}@{{version}}"
        found = (
            (Outgoing.parse(f"{root}/{path}", ("version",)).location({"version": version}), root)
            for root in row.upstreams
        )
        locations = [(one, root, ()) for one, root in found if one is not None]
        return _redirect(locations, self._secure or request.scheme == "https")

    def explain(self, request: Request) -> list[str]:
        row, rest = self._asked(request.path)
        if row is None:
            return []
        first, *others = row.upstreams
        then = f", and while that is down {', then '.join(others)}" if others else ""
        version = packument.version_in(row.name, rest[1]) if len(rest) == 2 and rest[0] == "-" else None
        what = f"the tarball of {version}" if version else "a path of the registry API"
        return [f"{row.name}: {request.path} is {what}; what there is says {first}{then}"]


def _fetch_packument(url: str, name: str, link: str, headers: Headers) -> Fetch:
    def then(head: UpstreamHead) -> Final | Fetch:
        if head.status in _REDIRECTS:
            target = followed(url, head.header("location") or "")
            if target is not None:
                return _fetch_packument(target, name, link, headers)
        if head.status in (404, 410):
            return Refuse(404, "NOT_FOUND", f"The registry behind this address has no package {name}.")
        if head.status == 429:
            after = head.header("retry-after")
            return Refuse(429, "TOOMANYREQUESTS", "The upstream is busy.", (("Retry-After", after),) if after else ())
        if head.status != 200:
            return Refuse(502, "UPSTREAM_FAILED", f"The upstream answered {head.status}.")
        form = ABBREVIATED if (head.header("content-type") or "").startswith(ABBREVIATED) else FULL
        try:
            body = packument.kept(head.body, name, url, link)
        except PackumentError as error:
            return Refuse(502, "UPSTREAM_MISBEHAVED", f"What the upstream sent is no packument: {error}.")
        return Reply(200, (("Content-Type", form), ("Vary", "Accept")), body)

    return Fetch(url=url, then=then, headers=headers, buffer=BUFFER)


def _document(kept: Reply) -> Reply:
    return Reply(200, kept.headers, packument.packument(kept.body))


def _dist_tags(kept: Reply) -> Reply:
    return Reply(200, _JSON, packument.dist_tags(kept.body))


def _version(name: str, wanted: str, kept: Reply) -> Reply | Refuse:
    found = packument.version_document(kept.body, wanted)
    return _lacks(name, wanted) if found is None else Reply(200, _JSON, found)


def _lacks(name: str, version: str) -> Refuse:
    return Refuse(404, "NOT_FOUND", f"{name} has no version {version!a}.")


def _lead(row: NpmRow, request: Request, version: str, secure: bool, kept: Reply) -> Redirect | Refuse | Fetch:
    """To where the packument says that the tarball is; while that upstream is down, to where others keep theirs."""
    told = packument.location(kept.body, version)
    if told is None:
        return _lacks(row.name, version)
    file = packument.file_of(row.name, version)
    host = urlsplit(told).netloc
    # Tarballs that are kept elsewhere do not go down with their registry.
    own = next((root for root in row.upstreams if urlsplit(root).netloc == host), None)
    places = [(told, own)]
    if own is not None:
        places += [(f"{root}/{row.name}/-/{file}", root) for root in row.upstreams if urlsplit(root).netloc != host]
    locations = [(one, root, _facts(row, request, version, file, one)) for one, root in places]
    if not row.proxy:
        return _redirect(locations, secure)
    headers = tuple((name, value) for name, value in request.headers if name in FORWARDED)
    first, *others = (fetch_file(one, request.method, headers, facts) for one, _, facts in locations)
    return msgspec.structs.replace(first, others=tuple(others), alike=True)


def _redirect(locations: Sequence[tuple[str, str | None, tuple[Fact, ...]]], secure: bool) -> Redirect | Refuse:
    """To the first that is up, of those where https may lead. With each its upstream, if it is at one."""
    fit = [
        Redirect(one, facts, root=None if root is None else f"{root}/")
        for one, root, facts in locations
        if not (secure and one.startswith("http:"))
    ]
    if not fit:
        return INSECURE if locations else _CLIMBS
    return msgspec.structs.replace(fit[0], others=tuple(fit[1:]))


def _facts(row: NpmRow, request: Request, version: str, file: str, location: str) -> tuple[Fact, ...]:
    if request.method == "HEAD":
        return ()
    return (
        Fact(
            kind="binary-download",
            package=row.name,
            owner=row.owner,
            version=version,
            artifact=file,
            upstream=urlsplit(location).netloc,
        ),
    )


class NpmRestSite:
    """What no package of the host declares and no other type answers is the fallback's, and not recorded (C11)."""

    def __init__(self, rows: Sequence[NpmRestRow], policy: HostPolicy) -> None:
        self._fallback = policy.fallback
        self._outgoing = None if policy.fallback is None else Outgoing.parse(f"{policy.fallback}{{+path}}", ("path",))
        self._secure = policy.base_url.startswith("https:")

    def decide(self, request: Request) -> Decision | None:
        path = request.path
        if request.method not in ("GET", "HEAD") and not (
            # https://docs.npmjs.com/cli/commands/npm-audit: a question, though it is posted.
            request.method == "POST" and path.startswith("/-/npm/v1/security/")
        ):
            return _READ_ONLY
        if self._outgoing is None:
            return _UNKNOWN
        location = self._outgoing.location({"path": path.lstrip("/")})
        if location is None:
            return _CLIMBS
        if request.query is not None:
            location = f"{location}?{keep_query(request.query)}"
        return _redirect([(location, None, ())], self._secure or request.scheme == "https")

    def explain(self, request: Request) -> list[str]:
        if self._fallback is None:
            return ["npm: no package of this host declares it, and the domain has no fallback"]
        return [f"npm: no package of this host declares it, so the fallback answers: {self._fallback}"]


def declare(package: Package) -> list[NpmRow | NpmRestRow]:
    if not packument.NAME.match(package.name):
        raise DeclarationError("name", package.name, "a package's name, such as skates or @acme/skates")
    found = roots(package, "https://npm.example")
    return [NpmRow(package.name, found, package.owner, package.proxy), NpmRestRow()]


def clashes(rows: Sequence[NpmRow]) -> list[Clash]:
    seen: dict[str, NpmRow] = {}
    return [
        Clash(first, row, f"the npm package {row.name} is declared twice; each name once")
        for row in rows
        if (first := seen.setdefault(row.name, row)) is not row
    ]


KIND = (
    Kind(
        name="npm",
        order=15,
        row=NpmRow,
        site=NpmSite,
        declare=declare,
        clashes=clashes,
        claims=lambda row: (f"/{row.name}", "/-"),
        falls_back=True,
    ),
    Kind(name="npm-rest", order=95, row=NpmRestRow, site=NpmRestSite, reach=nowhere),
)
