"""Whose request it is: the peer, or what a trusted proxy says of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


class TrustedProxies:
    """Networks whose X-Forwarded-For is believed.

    The client is the nearest hop that we do not trust, read from the right: what stands further left was
    written by the client itself.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= 1024:
                self._known.clear()
            known = self._known[address] = self._contains(address)
        return known

    def _contains(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed.version == network.version and parsed in network for network in self._networks)

    def client(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """`forwarded_for`: the X-Forwarded-For lines in order; several lines are one list (RFC 9110 section 5.3)."""
        if not self._networks or not self.trusts(peer):
            return peer
        hops = [hop.strip() for line in forwarded_for for hop in line.split(",")]
        nearest = peer
        for hop in reversed(hops):
            address = _bare(hop)
            if address is None:
                break  # What is not an address ends the chain: nothing left of it can be believed.
            nearest = address
            if not self.trusts(address):
                break
        return nearest


def _bare(hop: str) -> str | None:
    """An address without port and brackets, in its canonical spelling; IPv4 in IPv6 becomes IPv4."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(hop)
    except ValueError:
        return None
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
