"""Files: templates on a domain, each leading to where its files are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

import msgspec
from msgspec import Struct

from waypost.artifacts.immutable import Way, lockable
from waypost.artifacts.kind import Clash, DeclarationError, HostPolicy, Kind, Package, Reach, Route, origins
from waypost.artifacts.preset import NAMES as PRESETS
from waypost.artifacts.preset import Expanded, PresetError, expand
from waypost.artifacts.target import Target
from waypost.routing.clash import clashes, neighbours
from waypost.routing.decision import Decision, Fetch
from waypost.routing.expression import TemplateError
from waypost.routing.outgoing import Outgoing
from waypost.routing.request import Request
from waypost.routing.template import Template
from waypost.routing.trie import RouteTrie

# How many clashes are told of; more would only hide the first.
MOST_CLASHES = 20


class FileRoute(Struct, frozen=True, array_like=True, tag="file"):
    """An incoming template and where it leads.

    to      None: answer 200 and record
    others  where the same files are, in order, for when `to` is down
    latest  templates for the version "latest", one for `to` and one for each of `others`; none: they are the same
    """

    path: str
    to: str | None
    package: str
    owner: str | None = None
    proxy: bool = False
    others: tuple[str, ...] = ()
    latest: tuple[str, ...] = ()

    @property
    def ways(self) -> tuple[str, ...]:
        return () if self.to is None else (self.to, *self.others)


class _Entry:
    """A route as the trie carries it. Its target is made when it is first asked for: most never are."""

    __slots__ = ("_target", "row")

    def __init__(self, row: FileRoute) -> None:
        self.row = row
        self._target: Target | None = None

    def target(self) -> Target:
        if self._target is None:
            row = self.row
            names = Template.parse(row.path).names
            ways, latest = ([Outgoing.parse(url, names) for url in urls] for urls in (row.ways, row.latest))
            self._target = Target(ways, row.package, row.owner, row.proxy, latest)
        return self._target


class FileSite:
    def __init__(self, rows: Sequence[FileRoute], policy: HostPolicy) -> None:
        self._rows = rows
        self._base_url = policy.base_url
        self._trie: RouteTrie[_Entry] = RouteTrie()
        for row in rows:
            self._trie.insert(Template.parse(row.path), _Entry(row))

    def decide(self, request: Request) -> Decision | None:
        found = self._trie.find(request.path, request.query)
        if found is None:
            return None
        entry, values = found
        decision = entry.target().answer(request, values)
        return self._lockable(decision, entry.row) if isinstance(decision, Fetch) and entry.row.proxy else decision

    def _lockable(self, fetch: Fetch, row: FileRoute) -> Fetch:
        first, *others = (
            lockable(one, Way(self._base_url, row.path, to).back)
            for one, to in zip((fetch, *fetch.others), row.ways, strict=True)
        )
        return msgspec.structs.replace(first, others=tuple(others)) if others else first

    def explain(self, request: Request) -> list[str]:
        matches = [
            (template, row, values)
            for template, row in ((Template.parse(row.path), row) for row in self._rows)
            if (values := template.match(request.path, request.query)) is not None
        ]
        if not matches:
            return [f"file: none of {len(self._rows)} routes matches {request.target}"]
        (best, row, values), *others = sorted(matches, key=lambda match: (-match[0].literal, match[0].variables))
        bound = ", ".join(f"{name}={value}" for name, value in values.items()) or "no variables"
        lines = [f"file: {_said(row)} ({bound}), package {row.package}"]
        lines.extend(f"file: {_said(row)} matches as well, but {_why(best, other)}" for other, row, _ in others)
        return lines


def _said(row: FileRoute) -> str:
    return f"{row.path} → {', and while that is down '.join(row.ways) or '200'}"


def _why(best: Template, other: Template) -> str:
    if best.literal != other.literal:
        return "has less literal text"
    return "has more variables" if best.variables != other.variables else "comes later"


def declare(package: Package) -> list[FileRoute]:
    if package.upstream is not None:
        raise DeclarationError(
            "upstream",
            package.upstream,
            "no upstream: a file package says where it leads in routes = [{ path = …, to = … }]",
        )
    if not package.routes:
        raise DeclarationError("routes", "nothing", "at least one route: routes = [{ path = …, to = … }]")
    rows, errors = [], []
    for index, route in enumerate(package.routes):
        try:
            rows.append(_row(package, index, route))
        except DeclarationError as error:
            errors.append(error)
    if len(errors) > 1:
        raise ExceptionGroup(package.name, errors)
    if errors:
        raise errors[0]
    return rows


def _row(package: Package, index: int, route: Route) -> FileRoute:
    key = f"routes[{index}]"
    try:
        template = Template.parse(route.path)
    except TemplateError as error:
        raise DeclarationError(f"{key}.path", route.path, f"a path template: {error.sentence}") from error
    ways = _ways(route, template, f"{key}.to")
    to, *others = (way.url for way in ways) if ways else (None,)
    latest = tuple(way.latest or way.url for way in ways) if any(way.latest for way in ways) else ()
    return FileRoute(
        route.path, to, package.name, package.owner, route.proxy or package.proxy, tuple(filter(None, others)), latest
    )


def _ways(route: Route, template: Template, key: str) -> list[Expanded]:
    """Where a route leads, presets written out; none if it says nothing of it."""
    if route.to is None:
        return []
    written = [route.to] if isinstance(route.to, str) else route.to
    if not written:
        raise DeclarationError(key, written, "at least one URL; leave the key out to answer 200 and count")
    ways: list[Expanded] = []
    for text in written:
        try:
            way = expand(text, route.path) or Expanded(text)
            for url in filter(None, way):
                Outgoing.parse(url, template.names)
        except PresetError as error:
            raise DeclarationError(key, text, error.sentence) from error
        except TemplateError as error:
            raise DeclarationError(key, text, f"a URL template: {error.sentence}{_presets(text)}") from error
        if way in ways:
            raise DeclarationError(key, text, "each place once")
        ways.append(way)
    return ways


def _presets(text: str) -> str:
    """What may have been meant by something like `gitbub:acme/skates`."""
    known = ", ".join(f"{name}:" for name in PRESETS)
    return f" Presets begin with {known}." if re.match(r"[A-Za-z0-9]+:(?!//)", text) else ""


def clashing(rows: Sequence[FileRoute]) -> list[Clash]:
    """Routes that can match the same path and of which none goes before the other; the first MOST_CLASHES found."""
    why = "can match the same path, and neither has more literal text or fewer variables"
    found = (
        Clash(group[one], group[other], f"{_placed(group[one])} and {_placed(group[other])} {why}")
        for group in ([rows[index] for index in near] for near in neighbours([row.path for row in rows]))
        for one, other in clashes([Template.parse(row.path) for row in group], MOST_CLASHES)
    )
    return list(islice(found, MOST_CLASHES))


def _placed(row: FileRoute) -> str:
    return f"{row.path} (package {row.package})"


def reach(rows: Sequence[FileRoute]) -> Reach:
    return Reach(origins(url for row in rows if not row.proxy for url in row.ways))


KIND = Kind(name="file", order=20, row=FileRoute, site=FileSite, declare=declare, clashes=clashing, reach=reach)
