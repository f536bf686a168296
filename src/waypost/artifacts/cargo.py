"""Cargo registries: a sparse index, and the crates that it says where to fetch (The Cargo Book, "Running a Registry").

config.json of the index has a template for where crates are. It is given out with a template of ours, and theirs is
filled in when a crate is asked for. The files of the index name no URLs, and are redirected like any tree's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.page import fetch_page
from waypost.artifacts.target import fetch_file, followed
from waypost.artifacts.tree import OTHER, File, Reader, TreeRow, TreeSite, kind_of
from waypost.routing.decision import Decision, Fact, Fetch, Page, Redirect, Refuse, Reply
from waypost.routing.outgoing import climbs, keep_query
from waypost.routing.request import Request

CONFIG = "/config.json"
API = "/api/v1/"
# "Index Files": by the length of the name, or by its first four letters.
_INDEX = re.compile(r"(?:1/[^/]|2/[^/]{2}|3/[^/]/[^/]{3}|[^/]{2}/[^/]{2}/[^/]{4,})")
# "Name restrictions" of registries, and SemVer 2: nothing of it needs an escape in a URL.
_CRATE = re.compile(
    r"/api/v1/crates/(?P<crate>[A-Za-z0-9][A-Za-z0-9_-]{0,63})"
    r"/(?P<version>[0-9][0-9A-Za-z.-]*(?:\+[0-9A-Za-z.-]+)?)/download"
)
_CHECKSUM = re.compile(r"(?:.*&)?sha256=(?P<checksum>[0-9a-f]{64})(?:&.*)?")
# "Index Configuration": what a template may hold. With none of them this is added to it.
_MARKERS = ("{crate}", "{version}", "{prefix}", "{lowerprefix}", "{sha256-checksum}")
_DEFAULT = "/{crate}/{version}/download"

# Questions of people and programs to the web API of a registry have no more than this in their paths.
_PLAIN = re.compile(r"[A-Za-z0-9/_.~%+-]+")

_NO_QUESTION = Refuse(404, "NOT_FOUND", "That is neither a crate nor a question to this registry.")
_NO_CHECKSUM = Refuse(
    400, "BAD_REQUEST", "This registry has crates by checksum: ask with ?sha256=…, as config.json says."
)
_NO_API = Refuse(404, "NOT_FOUND", "This registry answers no questions: its config.json has no `api`.")


class CargoRow(TreeRow, frozen=True, array_like=True, tag="cargo"):
    pass


class Crate(NamedTuple):
    name: str
    version: str
    checksum: str | None


def read(path: str) -> File:
    return File("index-fetch") if _INDEX.fullmatch(path) or path == CONFIG[1:] else OTHER


class CargoSite(TreeSite):
    def __init__(self, rows: Sequence[TreeRow], policy: HostPolicy, read: Reader) -> None:
        super().__init__(rows, policy, read)
        self._base = policy.base_url
        self._configs = [f"{root}{CONFIG}" for root in self._row.upstreams]

    def decide(self, request: Request) -> Decision | None:
        if request.method in ("GET", "HEAD"):
            if request.path == CONFIG:
                row = self._row
                fact = Fact(kind="index-fetch", package=row.package, owner=row.owner)
                facts = () if request.method == "HEAD" else (fact,)
                return self._page(Page("", facts, choose=self._ours, form="config"))
            if request.path.startswith(API):
                crate = _crate(request)
                return self._question(request) if crate is None else self._crate(crate, request)
        return super().decide(request)

    def explain(self, request: Request) -> list[str]:
        if not request.path.startswith(API):
            return super().explain(request)
        crate = _crate(request)
        what = "a question to its `api`" if crate is None else f"the crate {crate.name} {crate.version}"
        return [f"{self._row.package}: {request.path} is {what}; where that leads stands in config.json, which is kept"]

    def _page(self, page: Page) -> Fetch:
        asked = " ".join(("cargo", self._base, *self._row.upstreams))
        sources = [(url, partial(_kept, url)) for url in self._configs]
        return fetch_page(sources, msgspec.structs.replace(page, asked=asked))

    def _ours(self, kept: Reply) -> Reply:
        config = msgspec.json.decode(kept.body)
        checksum = "?sha256={sha256-checksum}" if "{sha256-checksum}" in config["dl"] else ""
        config["dl"] = f"{self._base}{API}crates{_DEFAULT}{checksum}"
        if "api" in config:
            config["api"] = self._base
        return msgspec.structs.replace(kept, body=msgspec.json.encode(config))

    def _crate(self, crate: Crate, request: Request) -> Fetch:
        def choose(kept: Reply) -> Redirect | Fetch | Refuse:
            location = _filled(msgspec.json.decode(kept.body)["dl"], crate)
            if location is None:
                return _NO_CHECKSUM
            return self._named(location, File("binary-download", crate.name, crate.version), request)

        return self._page(Page("", choose=choose))

    def _question(self, request: Request) -> Decision:
        """`cargo search` and the like. cargo follows no redirect there, so the answer passes through us."""
        if climbs(request.path) or not _PLAIN.fullmatch(request.path):
            return _NO_QUESTION
        headers = tuple((name, value) for name, value in request.headers if name == "accept")
        query = "" if request.query is None else f"?{keep_query(request.query)}"

        def answer(source: str, body: bytes) -> Refuse | Fetch:
            kept = _kept(source, body)
            if isinstance(kept, Refuse):
                return kept
            api = msgspec.json.decode(kept.body).get("api")
            return _NO_API if api is None else fetch_file(f"{api}{request.path}{query}", request.method, headers, ())

        return fetch_page([(url, partial(answer, url)) for url in self._configs], None)


def _crate(request: Request) -> Crate | None:
    match = _CRATE.fullmatch(unquote(request.path))
    if match is None:
        return None
    checksum = _CHECKSUM.fullmatch(request.query or "")
    return Crate(match["crate"], match["version"], checksum and checksum["checksum"])


def _filled(template: str, crate: Crate) -> str | None:
    if "{sha256-checksum}" in template and crate.checksum is None:
        return None
    name = crate.name
    prefix = f"{len(name)}" if len(name) < 3 else f"3/{name[0]}" if len(name) == 3 else f"{name[:2]}/{name[2:4]}"
    values = (name, crate.version, prefix, prefix.lower(), crate.checksum or "")
    for marker, value in zip(_MARKERS, values, strict=True):
        template = template.replace(marker, value)
    return template


def _kept(source: str, body: bytes) -> Reply | Refuse:
    """The upstream's configuration, its URLs whole."""
    try:
        config: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return _misread("it is no JSON")
    if not isinstance(config, dict) or not isinstance(config.get("dl"), str):
        return _misread("it has no `dl`")
    template = config["dl"]
    if not any(marker in template for marker in _MARKERS):
        template = template.rstrip("/") + _DEFAULT
    target = followed(source, template)
    if target is None or set("{}") & set(urlsplit(target).netloc):
        return _misread(f"its `dl` is no URL that may be followed: {template!r}")
    config["dl"] = target
    if config.setdefault("api", None) is None:
        del config["api"]
    else:
        api = followed(source, config["api"]) if isinstance(config["api"], str) else None
        if api is None:
            return _misread(f"its `api` is no URL that may be followed: {config['api']!r}")
        config["api"] = api.rstrip("/")
    return Reply(200, (("content-type", "application/json"),), msgspec.json.encode(config))


def _misread(why: str) -> Refuse:
    return Refuse(502, "UPSTREAM_FAILED", f"The upstream's config.json is none of a registry: {why}.")


KIND = kind_of("cargo", CargoRow, read, "https://index.acme.example", site=CargoSite)
