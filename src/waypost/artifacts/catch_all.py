"""Catch-all: a manifest's rule for everything on a domain that nothing else answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from waypost.artifacts.kind import HostPolicy, Kind, Reach, origins
from waypost.artifacts.target import Target
from waypost.routing.decision import Decision
from waypost.routing.expression import TemplateError
from waypost.routing.outgoing import Outgoing, keep_query
from waypost.routing.request import Request


class CatchAllRow(Struct, frozen=True, array_like=True, tag="catch-all"):
    """`target`: the host, perhaps with a port, that has the same paths; None: answer 200 and record."""

    target: str | None
    package: str
    owner: str | None = None


def outgoing(target: str) -> Outgoing:
    """Raises TemplateError for what is no host, with a port if it has one."""
    if re.search(r"[^A-Za-z0-9.:_\[\]-]", target):
        raise TemplateError(target, 0, f"{target!r} is no host; a target has neither scheme nor path.")
    return Outgoing.parse(f"https://{target}/{{+path}}", ("path",))


class CatchAllSite:
    """The first row answers. Path and query stay as they came, save what a URL cannot hold."""

    def __init__(self, rows: Sequence[CatchAllRow], policy: HostPolicy) -> None:
        row = rows[0]
        self._row = row
        self._outgoing = None if row.target is None else outgoing(row.target)
        self._target = Target(() if self._outgoing is None else (self._outgoing,), row.package, row.owner)

    def decide(self, request: Request) -> Decision | None:
        if not request.path.startswith("/"):
            return None
        if self._outgoing is None:
            return self._target.answer(request, {})
        # The query is carried as it is, repeated names and all: the same address, on another host.
        location = self._outgoing.location({"path": request.path[1:]})
        if location is not None and request.query is not None:
            location = f"{location}?{keep_query(request.query)}"
        return None if location is None else self._target.to((location,), request, {})

    def explain(self, request: Request) -> list[str]:
        to = "200" if self._row.target is None else f"https://{self._row.target}/…"
        return [f"catch-all: everything → {to}, package {self._row.package}"]


def reach(rows: Sequence[CatchAllRow]) -> Reach:
    """The first row answers."""
    return Reach(origins(f"https://{row.target}" for row in rows[:1] if row.target is not None))


KIND = Kind(name="catch-all", order=90, row=CatchAllRow, site=CatchAllSite, reach=reach)
