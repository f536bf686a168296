"""Files: templates on a domain, each leading to where its files are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from msgspec import Struct

from waypost.artifacts.immutable import Way, lockable
from waypost.artifacts.kind import Clash, DeclarationError, HostPolicy, Kind, Package, Route
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
    """An incoming template and where it leads. `to` None: answer 200 and record."""

    path: str
    to: str | None
    package: str
    owner: str | None = None
    proxy: bool = False


class _Entry:
    """A route as the trie carries it. Its target is made when it is first asked for: most never are."""

    __slots__ = ("_target", "row")

    def __init__(self, row: FileRoute) -> None:
        self.row = row
        self._target: Target | None = None

    def target(self) -> Target:
        if self._target is None:
            row = self.row
            outgoing = None if row.to is None else Outgoing.parse(row.to, Template.parse(row.path).names)
            self._target = Target(outgoing, row.package, row.owner, row.proxy)
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
        if isinstance(decision, Fetch) and entry.row.proxy and entry.row.to is not None:
            return lockable(decision, Way(self._base_url, entry.row.path, entry.row.to).back)
        return decision

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
    return f"{row.path} → {'200' if row.to is None else row.to}"


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
    if route.to is not None:
        if route.to.startswith(("github:", "gitlab:")):
            raise DeclarationError(f"{key}.to", route.to, "a URL; github: and gitlab: are not supported yet")
        try:
            Outgoing.parse(route.to, template.names)
        except TemplateError as error:
            raise DeclarationError(f"{key}.to", route.to, f"a URL template: {error.sentence}") from error
    return FileRoute(route.path, route.to, package.name, package.owner, route.proxy or package.proxy)


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


KIND = Kind(name="file", order=20, row=FileRoute, site=FileSite, declare=declare, clashes=clashing)
