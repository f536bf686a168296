"""The table: host → its sites → a decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from waypost.routing.decision import Decision, Refuse
from waypost.routing.request import Request
from waypost.routing.site import Site

UNKNOWN_HOST = Refuse(404, "NOT_FOUND", "Nothing is served under this host name.")
NO_MATCH = Refuse(404, "NOT_FOUND", "No route matches this path.")


class Table:
    """Asks the sites of a request's host, in order; the first that answers decides.

    sites_of  host → its sites, or None for a host that is not ours. Called for every request: it keeps what it has
              compiled.
    own       path → what answers it on every host of ours, before any site
    """

    __slots__ = ("_own", "_sites_of")

    def __init__(
        self,
        sites_of: Callable[[str], Sequence[Site] | None],
        own: Mapping[str, Callable[[Request], Decision]] | None = None,
    ) -> None:
        self._sites_of = sites_of
        self._own = dict(own or {})

    def decide(self, request: Request) -> Decision:
        sites = self._sites_of(request.host)
        if sites is None:
            return UNKNOWN_HOST
        own = self._own.get(request.path)
        if own is not None:
            return own(request)
        for site in sites:
            decision = site.decide(request)
            if decision is not None:
                return decision
        return NO_MATCH

    def explain(self, request: Request) -> list[str]:
        """What each site of the host says about a request, up to the one that answers."""
        sites = self._sites_of(request.host)
        if sites is None:
            return [f"{request.host} is no host of this configuration."]
        if request.path in self._own:
            return ["answered the same on every host of this configuration, before its own rules"]
        lines = []
        for site in sites:
            lines.extend(site.explain(request))
            if site.decide(request) is not None:
                return lines
        return [*lines, f"Nothing on {request.host} answers {request.method} {request.target}."]
