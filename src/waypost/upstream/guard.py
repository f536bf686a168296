"""The address guard: which addresses we never visit for an upstream that is not declared.

The addresses are checked after resolution, and the checked ones are those that are connected to. So a name
that answers differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp.abc import AbstractResolver, ResolveResult

from waypost.upstream.failure import UpstreamForbidden

# The IANA special-purpose address registries (RFC 6890), without what is globally reachable, and with what
# they leave out: multicast and the unspecified address. The standard library's is_private is not used, since
# what it covers differs between Python versions.
FORBIDDEN: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this network (RFC 791)"),
    ("10.0.0.0/8", "private (RFC 1918)"),
    ("100.64.0.0/10", "carrier-grade NAT (RFC 6598)"),
    ("127.0.0.0/8", "loopback (RFC 1122)"),
    ("169.254.0.0/16", "link-local (RFC 3927)"),
    ("172.16.0.0/12", "private (RFC 1918)"),
    ("192.0.0.0/24", "protocol assignments (RFC 6890)"),
    ("192.0.2.0/24", "documentation (RFC 5737)"),
    ("192.88.99.0/24", "6to4 relay anycast (RFC 7526)"),
    ("192.168.0.0/16", "private (RFC 1918)"),
    ("198.18.0.0/15", "benchmarking (RFC 2544)"),
    ("198.51.100.0/24", "documentation (RFC 5737)"),
    ("203.0.113.0/24", "documentation (RFC 5737)"),
    ("224.0.0.0/4", "multicast (RFC 5771)"),
    ("240.0.0.0/4", "reserved or broadcast (RFC 1112, RFC 919)"),
    ("::/128", "unspecified (RFC 4291)"),
    ("::1/128", "loopback (RFC 4291)"),
    ("::/96", "IPv4-compatible (RFC 4291, deprecated)"),
    ("::ffff:0:0:0/96", "IPv4-translated (RFC 2765)"),
    ("64:ff9b:1::/48", "local NAT64 (RFC 8215)"),
    ("100::/64", "discard-only (RFC 6666)"),
    ("100:0:0:1::/64", "dummy prefix (RFC 9780)"),
    ("2001:2::/48", "benchmarking (RFC 5180)"),
    ("2001:10::/28", "ORCHID (RFC 4843)"),
    ("2001:20::/28", "ORCHIDv2 (RFC 7343)"),
    ("2001:db8::/32", "documentation (RFC 3849)"),
    ("3fff::/20", "documentation (RFC 9637)"),
    ("5f00::/16", "segment routing (RFC 9602)"),
    ("fc00::/7", "unique local (RFC 4193)"),
    ("fe80::/10", "link-local (RFC 4291)"),
    ("fec0::/10", "site-local (RFC 3879)"),
    ("ff00::/8", "multicast (RFC 4291)"),
)

# IPv6 networks whose addresses lead to IPv4 addresses: each is judged by what it leads to.
EMBEDDED: tuple[tuple[str, Callable[[int], tuple[int, ...]]], ...] = (
    ("::ffff:0:0/96", lambda bits: (bits & 0xFFFF_FFFF,)),  # IPv4-mapped, RFC 4291 section 2.5.5.2
    ("64:ff9b::/96", lambda bits: (bits & 0xFFFF_FFFF,)),  # NAT64, RFC 6052
    ("2002::/16", lambda bits: (bits >> 80 & 0xFFFF_FFFF,)),  # 6to4, RFC 3056
    # Teredo, RFC 4380: the server, and the client with its bits flipped. Either may be the one that is
    # reached.
    ("2001::/32", lambda bits: (bits >> 64 & 0xFFFF_FFFF, ~bits & 0xFFFF_FFFF)),
)

_Network = IPv4Network | IPv6Network
_FORBIDDEN: tuple[tuple[_Network, str], ...] = tuple((ip_network(net), why) for net, why in FORBIDDEN)
_EMBEDDED = tuple((IPv6Network(net), within) for net, within in EMBEDDED)


def why_forbidden(address: str) -> str | None:
    """Why an address is not visited ("loopback (RFC 1122)"), or None if it may be. Takes a literal, zone or
    not.

    What is no address at all is forbidden too.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return "not an address"
    return _judge(parsed)


def _judge(address: IPv4Address | IPv6Address) -> str | None:
    if isinstance(address, IPv6Address):
        for network, within in _EMBEDDED:
            if address in network:
                reasons = (_judge(IPv4Address(bits)) for bits in within(int(address)))
                return next((f"{why} inside {network}" for why in reasons if why), None)
    for forbidden, why in _FORBIDDEN:
        if address in forbidden:
            return why
    return None


def check_literal(host: str) -> None:
    """Refuses a URL host that is a forbidden address itself: aiohttp asks no resolver about those.

    `host` is without brackets. Names pass; `Guarded` sees what they resolve to.
    Raises UpstreamForbidden.
    """
    # The rule by which aiohttp skips the resolver. It holds more than addresses: "127.1", "2130706433".
    is_literal = ":" in host or host.replace(".", "").isdigit()
    if is_literal and (why := why_forbidden(host)):
        raise UpstreamForbidden(host, f"{_ADVICE} ({why})")


def check_handed_over(host: str) -> None:
    """Refuses to send a client to a forbidden address, in any spelling that clients understand, or to itself.

    Names pass: what they lead to is seen by the client alone, in its own network.
    Raises UpstreamForbidden.
    """
    host = host.lower().removesuffix(".")
    try:
        # What is no canonical address may still be one to a C library: "127.1", "0x7f.1", "2130706433".
        why = why_forbidden(host if ":" in host else socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        why = "the client itself (RFC 6761)" if f".{host}".endswith(".localhost") else None
    if why:
        raise UpstreamForbidden(host, f"it would send the client to an address that is not a public one ({why})")


_ADVICE = "not visited: its address is not a public one; declare it as [[upstream]] with `connect` if it is meant"


class Guarded(AbstractResolver):
    """A resolver that lets only allowed addresses through. A name without any raises UpstreamForbidden."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        reasons = [why_forbidden(one["host"]) for one in found]
        allowed = [one for one, why in zip(found, reasons, strict=True) if why is None]
        if found and not allowed:
            raise UpstreamForbidden(host, f"{_ADVICE} ({reasons[0]})")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()
