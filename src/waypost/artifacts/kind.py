"""What a package type is made of: rows that a snapshot carries, a site that serves them, and how people declare it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from types import UnionType
from typing import Any

from msgspec import Struct

from waypost.routing.site import Site


class DeclarationError(Exception):
    """The operator declared something that cannot work. `key` is where, inside the declaration ("routes[0].to")."""

    def __init__(self, key: str, found: object, expected: str) -> None:
        super().__init__(f"{key}: found {found!r}; expected {expected}")
        self.key = key
        self.found = found
        self.expected = expected


class Route(Struct, forbid_unknown_fields=True):
    """One entry of `routes`: an incoming path template, and where it leads (None: answer 200 and count).

    Several places have the same files; the first that is up serves.
    """

    path: str
    to: str | list[str] | None = None
    proxy: bool = False


class Package(Struct, forbid_unknown_fields=True, kw_only=True):
    """A [[package]] as people write it."""

    type: str
    name: str
    owner: str | None = None
    domain: str | None = None
    domains: list[str] = []
    upstream: str | list[str] | None = None
    routes: list[Route] = []
    proxy: bool = False


class Collection(Struct, forbid_unknown_fields=True, kw_only=True):
    """A [[collection]] as people write it: packages that come into being with their first download."""

    pattern: str
    upstream: str
    owner: str | None = None
    domain: str | None = None
    domains: list[str] = []


class Clash(Struct, frozen=True):
    """Two rows of one host that cannot live together, the earlier one first. `why` is a sentence about both."""

    one: Struct
    other: Struct
    why: str


class HostPolicy(Struct, frozen=True, array_like=True):
    """What holds for a whole host. `base_url` has no trailing slash; links are built from it, never from Host.

    login           none, or pass-through: users log in at the registries behind the host
    login_upstream  the registry that checks a login which names no image; with pass-through only
    secure          who comes by http is sent to https
    fallback        a URL with a trailing slash: where what no package here declares is found (python, npm)
    """

    base_url: str
    login: str = "none"
    login_upstream: str | None = None
    fallback: str | None = None
    secure: bool = False


class Reach(Struct, frozen=True):
    """Where clients of one host may be sent to by one type, as its rows say.

    origins  "https://github.com", "http://dl.example:8080"
    further  also to hosts that an upstream names in its answers: the storage of layers, the files of an index
    """

    origins: frozenset[str] = frozenset()
    further: bool = False


_ORIGIN = re.compile(r"(https?://[^/?#{]+)", re.IGNORECASE)


def origins(urls: Iterable[str]) -> frozenset[str]:
    """Scheme, host and port of URLs, or of templates of them."""
    return frozenset(found[1].lower() for found in map(_ORIGIN.match, urls) if found is not None)


def upstreams_reach(rows: Sequence[Any]) -> Reach:
    """Of rows whose `upstreams` are URLs: those, and whatever these name in turn, unless files pass through us.

    What a type is taken for that does not say it better: rather more than too little.
    """
    sent = [row for row in rows if not getattr(row, "proxy", False)]
    return Reach(origins(url for row in sent for url in getattr(row, "upstreams", ())), further=bool(sent))


def nowhere(rows: Sequence[Any]) -> Reach:
    """Of a type that answers everything itself."""
    return Reach()


class Kind(Struct, frozen=True, kw_only=True):
    """A package type.

    name     as in `type = "…"`
    order    who is asked first where several kinds share a host; lower first
    row      tagged, array_like, frozen msgspec Struct: one validated row of a snapshot; or a union of them (A | B)
    site     builds the site of one host from its rows, in the order in which they were declared
    declare  a [[package]] → its rows; the same rows are put on every domain of the package.
             Raises DeclarationError, or an ExceptionGroup of several. None: people cannot declare it.
    clashes  rows of one host → those that cannot live together; [] when all is well.
             Called when configuration is loaded, never while serving.
    claims   a row → paths that are its kind's, with everything below them. Two kinds cannot claim the same, and
             routes of files there are refused where the kind is asked before them: they would never answer.
    falls_back
             its domain's `fallback` is where it finds what nobody declares
    root     answers for everything under its host's root, so that no other type has room there
    reach    rows of one host → where its clients may be sent. Called when somebody asks for that, and remembered.
    """

    name: str
    order: int
    row: type[Struct] | UnionType
    site: Callable[[Sequence[Any], HostPolicy], Site]
    declare: Callable[[Package], Sequence[Struct]] | None = None
    clashes: Callable[[Sequence[Any]], list[Clash]] = lambda rows: []
    claims: Callable[[Any], Sequence[str]] = lambda row: ()
    falls_back: bool = False
    root: bool = False
    reach: Callable[[Sequence[Any]], Reach] = upstreams_reach
