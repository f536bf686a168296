"""The table: host → its sites → a decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from waypost.routing.decision import Decision, Refuse
from waypost.routing.request import Request
from waypost.routing.site import Site

UNKNOWN_HOST = Refuse(404, "NOT_FOUND", "Nothing is served under this host name.")
NO_MATCH = Refuse(404, "NOT_FOUND", "No route matches this path.")


class Table:
    """Asks the sites of a request's host, in order; the first that answers decides.

    sites_of  host → its sites, or None for a host that is not ours. May compile them: what it returns is
              kept for the `most` hosts that came last. Unknown hosts are not kept: anybody can name one.
    """

    __slots__ = ("_known", "_most", "_sites_of")

    def __init__(self, sites_of: Callable[[str], Sequence[Site] | None], most: int = 10_000) -> None:
        self._sites_of = sites_of
        self._most = most
        self._known: dict[str, Sequence[Site]] = {}

    def decide(self, request: Request) -> Decision:
        sites = self._known.get(request.host)
        if sites is None:
            sites = self._sites(request.host)
            if sites is None:
                return UNKNOWN_HOST
        for site in sites:
            decision = site.decide(request)
            if decision is not None:
                return decision
        return NO_MATCH

    def explain(self, request: Request) -> list[str]:
        """What each site of the host says about a request, up to the one that answers."""
        sites = self._sites(request.host)
        if sites is None:
            return [f"{request.host} is no host of this configuration."]
        lines = []
        for site in sites:
            lines.extend(site.explain(request))
            if site.decide(request) is not None:
                return lines
        return [*lines, f"Nothing on {request.host} answers {request.method} {request.target}."]

    def _sites(self, host: str) -> Sequence[Site] | None:
        sites = self._known.get(host)
        if sites is None:
            sites = self._sites_of(host)
            if sites is not None:
                if len(self._known) >= self._most:
                    del self._known[next(iter(self._known))]
                self._known[host] = sites
        return sites
