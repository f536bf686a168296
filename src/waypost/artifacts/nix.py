"""Nix binary caches: what describes a store path (HASH.narinfo) passes through us, its archive (nar) does not.

The archive's own URL is a hash, which says nothing. So the narinfo that clients get names it
`nar-of/NAME-VERSION/URL`, and whoever is asked for that knows what it is, and where it is upstream, from the path
alone. The signature of a narinfo covers StorePath, NarHash, NarSize and References, and not its URL (Nix manual,
"Serving a Nix store via HTTP"; `ValidPathInfo::fingerprint`): it stays good.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import quote, urlsplit

import msgspec

from waypost.artifacts.kind import HostPolicy, Kind, Package
from waypost.artifacts.target import followed
from waypost.artifacts.tree import OTHER, File, TreeRow, TreeSite, alone, roots
from waypost.routing.decision import Decision, Fact, Fetch, Page, Refuse, Reply, UpstreamHead
from waypost.routing.request import Request

# Nix's base 32 leaves out e, o, t and u (Nix manual, "Store path").
_NARINFO = re.compile(r"/([0-9a-df-np-sv-z]{32})\.narinfo")
_NAME = r"[0-9A-Za-z+_?=-][0-9A-Za-z+._?=-]{0,210}"
_STORE_PATH = re.compile(rf"(?:/[^/\s]+)+/([0-9a-df-np-sv-z]{{32}})-({_NAME})".encode())
_NAMED = re.compile(rf"nar-of/({_NAME})/(?=.)")
_NAMED_AS_IT_CAME = re.compile(r"nar-of/[^/]+/")
_ARCHIVE = re.compile(r"(?:nar/)?[^/]+\.nar(?:\.[a-z0-9]+)?")
_FIELD = re.compile(rb"^(StorePath|URL|NarHash): (.*)$", re.MULTILINE)
_URL = re.compile(rb"[!-~]+")
# builtins.parseDrvName: a version begins behind the first dash that no letter follows.
_VERSION = re.compile(r"-(?=[^A-Za-z])")

# A path that refers to thousands of others has a narinfo of some 100 KB.
_LARGEST = 1024 * 1024
# What a store path is never changes. Its URL may, when a cache is compressed anew: rarely, and clients themselves
# believe it for 30 days.
_SECONDS = 3600.0
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
# A bucket that may not be listed says 403 of what it does not have, and Nix reads both so.
_UNKNOWN = frozenset((403, 404, 410))
_LOST = Refuse(502, "UPSTREAM_FAILED", "The upstream redirected to something that is no URL, or to plain http.")

# What an upstream sent → what clients get; None if it is not what was asked for.
Rewriter = Callable[[bytes], bytes | None]


class NixRow(TreeRow, frozen=True, array_like=True, tag="nix"):
    pass


def split(name: str) -> tuple[str, str | None]:
    """The name of a store path → (name, version), as Nix itself splits it: `skates-1.2-dev` → skates, 1.2-dev."""
    dash = _VERSION.search(name)
    if dash is None or not dash.start() or dash.end() == len(name):
        return name, None
    return name[: dash.start()], name[dash.end() :]


def read(path: str) -> File:
    """`nar-of/skates-1.2/nar/0abc.nar.xz` → skates 1.2. An archive without that is one of nobody knows what."""
    if path == "nix-cache-info":
        return File("index-fetch")
    named = _NAMED.match(path)
    if named is not None:
        return File("binary-download", *split(named[1]), same=True)
    return File("binary-download", same=True) if _ARCHIVE.fullmatch(path) else OTHER


def rewritten(wanted: str, caches: Sequence[str], body: bytes) -> bytes | None:
    """The narinfo of the store path `wanted` (its hash), with its archive under our own name for it.

    An archive on a host that is none of `caches` keeps its URL: to lead there, a request would have to say where.
    """
    fields = {match[1]: match for match in reversed(list(_FIELD.finditer(body)))}
    if len(fields) < 3:
        return None
    store_path = _STORE_PATH.fullmatch(fields[b"StorePath"][2])
    if store_path is None or store_path[1] != wanted.encode():
        return None
    field = fields[b"URL"]
    if not _URL.fullmatch(field[2]):
        return None
    url = field[2].decode()
    root = next((cache for cache in caches if url.startswith(f"{cache}/")), None)
    if root is not None:
        url = url[len(root) + 1 :]
    elif urlsplit(url).scheme:
        return body
    ours = f"nar-of/{quote(store_path[2].decode(), safe='+=')}/{url}"
    return body[: field.start(2)] + ours.encode() + body[field.end(2) :]


def _cache_info(body: bytes) -> bytes | None:
    return body if body.startswith(b"StoreDir: ") or b"\nStoreDir: " in body else None


class NixSite(TreeSite):
    """A cache: descriptions are served, and all else is at the same path upstream."""

    def __init__(self, rows: Sequence[NixRow], policy: HostPolicy) -> None:
        super().__init__(rows, policy, read)

    def decide(self, request: Request) -> Decision | None:
        if request.method in ("GET", "HEAD"):
            if request.path == "/nix-cache-info":
                facts = (
                    ()
                    if request.method == "HEAD"
                    else (Fact(kind="index-fetch", package=self._row.package, owner=self._row.owner),)
                )
                return self._ask(request.path, "text/x-nix-cache-info", _cache_info, facts)
            narinfo = _NARINFO.fullmatch(request.path)
            if narinfo is not None:
                rewriter = partial(rewritten, narinfo[1], self._row.upstreams)
                return self._ask(request.path, "text/x-nix-narinfo", rewriter)
        return super().decide(request)

    def upstream_path(self, path: str) -> str:
        return _NAMED_AS_IT_CAME.sub("", path[1:], count=1) if path.startswith("/nar-of/") else path[1:]

    def _ask(self, path: str, media_type: str, rewriter: Rewriter, facts: tuple[Fact, ...] = ()) -> Fetch:
        first, *others = (_question(f"{cache}{path}", media_type, rewriter) for cache in self._row.upstreams)
        page = Page(f"nix {self._row.upstreams[0]}{path}", facts, _SECONDS)
        return msgspec.structs.replace(first, others=tuple(others), keep=page)

    def explain(self, request: Request) -> list[str]:
        if not _NARINFO.fullmatch(request.path):
            return super().explain(request)
        caches = ", and while that is down ".join(self._row.upstreams)
        return [f"{self._row.package}: {request.path} describes a store path; it is asked of {caches}, and served"]


def _question(url: str, media_type: str, rewriter: Rewriter) -> Fetch:
    return Fetch(url=url, buffer=_LARGEST, then=partial(_answer, url, media_type, rewriter))


def _answer(url: str, media_type: str, rewriter: Rewriter, head: UpstreamHead) -> Reply | Refuse | Fetch:
    host = urlsplit(url).netloc
    if head.status in _REDIRECTS:
        target = followed(url, head.header("location") or "")
        return _LOST if target is None else _question(target, media_type, rewriter)
    if head.status in _UNKNOWN:
        return Refuse(404, "NOT_FOUND", "This cache does not have it.")
    if head.status == 429:
        after = head.header("retry-after")
        headers = (("Retry-After", after),) if after else ()
        return Refuse(429, "TOOMANYREQUESTS", f"The upstream {host} limits how often it is asked.", headers)
    if head.status != 200:
        return Refuse(502, "UPSTREAM_FAILED", f"The upstream {host} answered {head.status}.")
    if (head.header("content-encoding") or "identity").lower() != "identity":
        return Refuse(502, "UPSTREAM_MISBEHAVED", f"The upstream {host} answers in a coding that nobody asked for.")
    body = rewriter(head.body)
    if body is None:
        return Refuse(502, "UPSTREAM_MISBEHAVED", f"The upstream {host} answers with something else.")
    return Reply(200, (("Content-Type", media_type),), body)


def declare(package: Package) -> list[NixRow]:
    return [NixRow(package.name, roots(package, "https://cache.acme.example"), package.owner, package.proxy)]


KIND = Kind(name="nix", order=50, row=NixRow, site=NixSite, declare=declare, clashes=alone, root=True)
