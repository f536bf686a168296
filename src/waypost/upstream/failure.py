"""What can go wrong between us and an upstream. None of it is the client's fault, and none of it is a 404.

UpstreamError
├── UpstreamUnreachable    no connection: name, route, port or certificate. The upstream's or the operator's.
├── UpstreamTimeout        connected, but too slow. The upstream's.
├── UpstreamMisbehaved     it answered something that its protocol does not allow. The upstream's.
├── UpstreamBusy           it asks us to come back later. Nobody's.
└── UpstreamForbidden      its address is one that we never visit undeclared. The operator's to declare.
"""

from __future__ import annotations


class UpstreamError(Exception):
    """`host` is the upstream as the operator knows it, never the address or the `connect` behind it."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"{host}: {why}")
        self.host = host
        self.why = why


class UpstreamUnreachable(UpstreamError):
    pass


class UpstreamTimeout(UpstreamError):
    pass


class UpstreamMisbehaved(UpstreamError):
    pass


class UpstreamBusy(UpstreamError):
    """`retry_after` is its Retry-After as it came, or None."""

    def __init__(self, host: str, why: str, retry_after: str | None = None) -> None:
        super().__init__(host, why)
        self.retry_after = retry_after


class UpstreamForbidden(UpstreamError):
    pass
