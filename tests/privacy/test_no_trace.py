"""Promise 6: raw addresses are nowhere at rest, and those who ask not to be tracked leave no trace."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path

import pytest
from tests.support.server import WaypostServer, until

CONFIG = """
base_domain = "waypost.example"
[server]
trusted_proxies = ["127.0.0.1/32"]
[[package]]
type = "file"
name = "skates"
domain = "get.acme.example"
routes = [{ path = "/{version}/skates.tgz", to = "https://dl.example.net/skates-{version}.tgz" }]
"""
HOST = "get.acme.example"
# Documentation ranges (RFC 5737, RFC 3849): they occur nowhere by accident.
MARKED = [f"198.51.100.{number}" for number in range(100, 120)] + [
    f"2001:db8::bad:{number:x}" for number in range(16, 36)
]


@pytest.fixture
def server(tmp_path):
    one = WaypostServer(tmp_path, CONFIG, workers=2).start()
    yield one
    one.stop()


def spellings(address: str) -> set[bytes]:
    """Every form in which an address is likely to be written down: text, hexadecimal, binary in both orders."""
    parsed = ipaddress.ip_address(address)
    return {
        address.encode(),
        parsed.exploded.encode(),
        parsed.packed,
        parsed.packed[::-1],
        parsed.packed.hex().encode(),
        str(int(parsed)).encode(),
        parsed.reverse_pointer.encode(),
    }


def at_rest(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != "lock"}


def test_marked_addresses_are_nowhere_at_rest(server, tmp_path):
    seen: dict[Path, bytes] = {}
    for number, address in enumerate(MARKED):
        for target in (f"/{number}/skates.tgz", "/nothing/here", "/\x7f"):
            server.get(HOST, target.replace("\x7f", "%7F"), headers={"X-Forwarded-For": address})
        seen |= at_rest(server.data.spool)  # while they wait, too
    until(lambda: server.metric("waypost_stored_total") == len(MARKED), what="all events to be stored")
    assert server.stop() == 0
    seen |= at_rest(tmp_path)
    assert any(b"skates.tgz" in data for data in seen.values()), "nothing was searched"
    for address in MARKED:
        for form in spellings(address):
            found = [path for path, data in seen.items() if form in data]
            assert not found, f"{address} as {form!r} in {found}"


def test_sources_are_told_apart_although_their_addresses_are_not_kept(server):
    for address in MARKED[:5]:
        server.get(HOST, "/1/skates.tgz", headers={"X-Forwarded-For": address})
    until(lambda: server.metric("waypost_stored_total") == 5, what="five events")
    assert server.command("stats", "--format", "csv").splitlines()[1] == "skates,5,5,0,0,0"


@pytest.mark.parametrize("header", ["DNT", "Sec-GPC"])
def test_who_asks_not_to_be_tracked_leaves_no_trace(server, header):
    server.get(HOST, "/1/skates.tgz")
    until(lambda: server.metric("waypost_stored_total") == 1, what="the first event")
    until(lambda: not list(server.data.spool.glob("*")), 30, "the spool to be empty")
    time.sleep(1)  # the collector's last word on the segment
    before = listing(server.data.root)
    for number in range(20):
        status, headers, _ = server.get(
            HOST, f"/secret-{number}/skates.tgz", headers={header: "1", "User-Agent": "shy"}
        )
        assert (status, headers["Location"]) == (307, f"https://dl.example.net/skates-secret-{number}.tgz")
    until(lambda: server.metric("waypost_requests_total") >= 21, what="the tally")
    assert listing(server.data.root) == before
    assert server.metric("waypost_events_total") == 1
    assert server.stop() == 0
    for path, data in at_rest(server.folder).items():
        assert b"secret-" not in data, path
        assert b"shy" not in data, path


def test_other_values_of_the_headers_do_not_mean_it(server):
    server.get(HOST, "/1/skates.tgz", headers={"DNT": "0", "User-Agent": "a"})
    server.get(HOST, "/2/skates.tgz", headers={"Sec-GPC": "0", "User-Agent": "b"})
    until(lambda: server.metric("waypost_stored_total") == 2, what="two events")


def listing(root: Path) -> dict[str, int]:
    """Files and their sizes."""
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}
