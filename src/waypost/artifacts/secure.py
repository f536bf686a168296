"""Hosts with a certificate: who comes by http is sent to the same place by https."""

from __future__ import annotations

from waypost.artifacts.kind import HostPolicy
from waypost.routing.decision import Decision, Redirect
from waypost.routing.outgoing import Outgoing, keep_query
from waypost.routing.request import Request


class SecureSite:
    """Before all other sites of its host. Counted is what https answers."""

    def __init__(self, policy: HostPolicy) -> None:
        self._base = policy.base_url
        self._outgoing = Outgoing.parse(f"{policy.base_url}/{{+path}}", ("path",))

    def decide(self, request: Request) -> Decision | None:
        if request.scheme == "https" or not request.path.startswith("/"):
            return None
        location = self._outgoing.location({"path": request.path[1:]})
        if location is None:
            return None  # what climbs is refused by whoever would answer it
        if request.query is not None:
            location = f"{location}?{keep_query(request.query)}"
        # RFC 9110 section 15.4.9: a POST stays a POST.
        return Redirect(location, status=308)

    def explain(self, request: Request) -> list[str]:
        return [] if request.scheme == "https" else [f"This host has a certificate: http leads to {self._base}."]
