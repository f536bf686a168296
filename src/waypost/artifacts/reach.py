"""Where clients of a domain may be sent, for people whose networks let nobody out who is not on a list.

Answered on every host of ours, for each of them, before any site is asked. It tells what configuration says of
clients' own connections: what only we connect to is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from waypost.artifacts.kind import Reach, origins
from waypost.artifacts.snapshot import Host, by_kind
from waypost.routing.decision import Headers, Refuse, Reply
from waypost.routing.request import Request
from waypost.routing.template import parameters

# RFC 8615: what is asked of any host stands under /.well-known/.
PATH = "/.well-known/waypost/reach"

_HEADERS: Headers = (("content-type", "application/json"), ("cache-control", "no-store"))
_READ_ONLY = Refuse(405, "UNSUPPORTED", "This page is read with GET.", (("allow", "GET, HEAD"),))
_UNKNOWN = Refuse(404, "NOT_FOUND", "No such domain is served here.", (("cache-control", "no-store"),))


def answer(request: Request, told: Callable[[str], bytes | None]) -> Reply | Refuse:
    """`told`: a host → its page, or None for a host that is not ours."""
    if request.method not in ("GET", "HEAD"):
        return _READ_ONLY
    asked = parameters(request.query).get("domain")
    host = request.host if asked is None else unquote(asked).lower().removesuffix(".")
    # What is no ASCII names no host: those are written as they are looked up (xn--…).
    page = told(host) if host.isascii() else None
    return _UNKNOWN if page is None else Reply(200, _HEADERS, page)


def page(host: Host) -> bytes:
    """What is told of a host, as JSON."""
    told: dict[str, Any] = {
        "domain": host.name,
        "base_url": host.policy.base_url,
        "types": {kind.name: _shown(kind.reach(rows)) for kind, rows in by_kind(host.rows)},
    }
    if host.policy.fallback is not None:
        told["fallback"] = _shown(Reach(origins([host.policy.fallback]), further=True))
    return msgspec.json.format(msgspec.json.encode(told)) + b"\n"


def _shown(reach: Reach) -> dict[str, Any]:
    return {"hosts": sorted(_with_ports(reach.origins)), "further": reach.further}


def _with_ports(found: Iterable[str]) -> Iterable[str]:
    """Firewalls want the port, too."""
    for origin in found:
        parts = urlsplit(origin)
        yield parts.netloc if parts.port else f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}"
