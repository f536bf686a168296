"""The address guard: every row of its tables, and what stands just outside them."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from waypost.upstream.failure import UpstreamForbidden
from waypost.upstream.guard import EMBEDDED, FORBIDDEN, Guarded, check_handed_over, check_literal, why_forbidden

PUBLIC = [
    "8.8.8.8",
    "140.82.112.3",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "2606:4700::1111",
]


@pytest.mark.parametrize(("network", "why"), FORBIDDEN)
def test_first_and_last_address_of_each_row_are_refused_for_its_reason(network: str, why: str) -> None:
    assert why_forbidden(str(ip_network(network)[0])) is not None  # "::" has a row of its own before "::/96"
    assert why_forbidden(str(ip_network(network)[-1])) == why


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert why_forbidden(address) is None
    check_literal(address)


@pytest.mark.parametrize("row", range(len(EMBEDDED)))
def test_embedded_addresses_are_judged_by_what_they_lead_to(row: int) -> None:
    network = ip_network(EMBEDDED[row][0])
    make = {
        "::ffff:0:0/96": lambda v4: int(network[0]) | v4,
        "64:ff9b::/96": lambda v4: int(network[0]) | v4,
        "2002::/16": lambda v4: int(network[0]) | v4 << 80,
        "2001::/32": lambda v4: int(network[0]) | int(IPv4Address("8.8.8.8")) << 64 | (~v4 & 0xFFFF_FFFF),
    }[EMBEDDED[row][0]]
    for private in ("10.1.2.3", "127.0.0.1", "169.254.169.254", "100.64.0.1"):
        address = str(IPv6Address(make(int(IPv4Address(private)))))
        assert why_forbidden(address) is not None, address
    assert why_forbidden(str(IPv6Address(make(int(IPv4Address("8.8.8.8")))))) is None


def test_a_teredo_server_that_is_private_is_refused() -> None:
    bits = (
        int(IPv6Address("2001::")) | int(IPv4Address("10.0.0.1")) << 64 | (~int(IPv4Address("8.8.8.8")) & 0xFFFF_FFFF)
    )
    assert why_forbidden(str(IPv6Address(bits))) is not None


@pytest.mark.parametrize("address", ["fe80::1%eth0", "::1%1", "127.1", "0x7f000001", "", "localhost"])
def test_zones_and_what_is_no_canonical_address_are_refused(address: str) -> None:
    assert why_forbidden(address) is not None


def test_names_are_no_literals() -> None:
    check_literal("ghcr.io")
    check_literal("127.0.0.1.example")


@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1", "127.1", "2130706433", "0177.0.0.1", "127.0.0.1."])
def test_literals_that_no_resolver_sees_are_refused(host: str) -> None:
    with pytest.raises(UpstreamForbidden):
        check_literal(host)


@given(st.integers(0, 2**32 - 1))
def test_agrees_with_a_plain_scan_of_the_ipv4_rows(bits: int) -> None:
    rows = [IPv4Network(network) for network, _ in FORBIDDEN if ":" not in network]
    inside = any(int(row[0]) <= bits <= int(row[-1]) for row in rows)
    assert (why_forbidden(str(IPv4Address(bits))) is not None) == inside


class Fixed(AbstractResolver):
    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=one, port=port, family=socket.AF_INET, proto=0, flags=0)
            for one in self.addresses
        ]

    async def close(self) -> None:
        pass


def test_the_resolver_lets_only_allowed_addresses_through() -> None:
    found = asyncio.run(Guarded(Fixed("10.0.0.1", "8.8.8.8")).resolve("mixed.example"))
    assert [one["host"] for one in found] == ["8.8.8.8"]


def test_a_name_with_only_forbidden_addresses_is_refused() -> None:
    with pytest.raises(UpstreamForbidden, match=r"rebind\.example"):
        asyncio.run(Guarded(Fixed("10.0.0.1", "::1")).resolve("rebind.example"))


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "169.254.169.254", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "127.0.0.1.", "0", "::1", "::ffff:10.0.0.1",
     "localhost", "LOCALHOST.", "x.localhost"],
)  # fmt: skip
def test_no_client_is_sent_to_a_forbidden_address(host: str) -> None:
    with pytest.raises(UpstreamForbidden, match="would send the client"):
        check_handed_over(host)


@pytest.mark.parametrize("host", ["93.184.215.14", "2606:2800::1", "bucket.example", "localhost.example", "0x.example"])
def test_clients_are_sent_to_names_and_public_addresses(host: str) -> None:
    check_handed_over(host)
