"""Telemetry: JSON that programs post, and the install reports of scarf-js. Rows come from manifests."""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from urllib.parse import unquote

from msgspec import Struct

from waypost.artifacts.kind import HostPolicy, Kind, nowhere
from waypost.artifacts.posted import flatten, objects
from waypost.routing.decision import Decision, Fact, Refuse, Reply
from waypost.routing.request import Request

MAX_OBJECTS = 1000
_JSON = (("content-type", "application/json"),)


class TelemetryRow(Struct, frozen=True, array_like=True, tag="telemetry"):
    """A manifest's telemetry-v1 rule. `tokens`: None lets everybody in, an empty list nobody."""

    path: str
    package: str
    owner: str | None = None
    tokens: list[str] | None = None


class InstallRow(Struct, frozen=True, array_like=True, tag="install"):
    """Marks the base host, where scarf-js reports installs."""


class TelemetrySite:
    """Posts to the exact paths of telemetry rows; everything else is left to other sites."""

    def __init__(self, rows: Sequence[TelemetryRow], policy: HostPolicy) -> None:
        self._rows: dict[str, TelemetryRow] = {}
        for row in rows:
            self._rows.setdefault(row.path, row)

    def decide(self, request: Request) -> Decision | None:
        row = self._rows.get(unquote(request.path))
        if row is None or request.method != "POST":
            return None
        if row.tokens is not None and not _authorised(request, row.tokens):
            # RFC 6750 section 3: the challenge that goes with a 401 for a bearer token.
            challenge = (("www-authenticate", 'Bearer realm="telemetry"'),)
            return Refuse(401, "UNAUTHORIZED", "This address takes events with a known access token only.", challenge)
        facts = tuple(
            Fact(kind="telemetry", package=row.package, owner=row.owner, variables=flatten(item) or None)
            for item in objects(request.body, MAX_OBJECTS)
        )
        return Reply(200, _JSON, b"{}", facts)

    def explain(self, request: Request) -> list[str]:
        if unquote(request.path) not in self._rows:
            return []
        if request.method != "POST":
            return [f"telemetry at {request.path} takes POST only, not {request.method}"]
        return [f"telemetry rule {request.path}: each JSON object of the body is an event"]


def _authorised(request: Request, tokens: Sequence[str]) -> bool:
    scheme, _, token = (request.header("authorization") or "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    offered = token.strip().encode("latin-1", "replace")
    # Every token is compared, each in constant time, so that the answer's time tells nothing about them.
    matches = [hmac.compare_digest(offered, known.encode()) for known in tokens]
    return any(matches)


INSTALL_PATH = "/package-event/install"


class InstallSite:
    """`POST /package-event/install[/ID]`: what scarf-js sends when a library that uses it is installed."""

    def __init__(self, rows: Sequence[InstallRow], policy: HostPolicy) -> None:
        pass

    def decide(self, request: Request) -> Decision | None:
        path = request.path
        if not path.startswith(INSTALL_PATH):
            return None
        package = path[len(INSTALL_PATH) + 1 :]
        if path[len(INSTALL_PATH) : len(INSTALL_PATH) + 1] not in ("", "/") or "/" in package:
            return None
        if request.method != "POST":
            return Refuse(405, "UNSUPPORTED", "Install reports are posted here.", (("allow", "POST"),))
        try:
            report = json.loads(request.body)
        except (ValueError, RecursionError):
            return Refuse(422, "UNPARSABLE", "The body must be one JSON value.")
        variables = flatten(report) if isinstance(report, dict) else {}
        name = unquote(package) or variables.get("dependencyInfo.parent.name", "")
        version = variables.get("dependencyInfo.parent.version")
        fact = Fact(kind="telemetry", package=name, version=version, variables=variables or None)
        return Reply(200, _JSON, b"{}", (fact,))

    def explain(self, request: Request) -> list[str]:
        return ["install reports: one JSON value, posted"] if request.path.startswith(INSTALL_PATH) else []


KIND = (
    Kind(name="telemetry", order=40, row=TelemetryRow, site=TelemetrySite, reach=nowhere),
    Kind(name="install", order=5, row=InstallRow, site=InstallSite, reach=nowhere),
)
