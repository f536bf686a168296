"""10,000 domains, each with a certificate of its own: how long they take to be declared, replaced, and asked for."""

from __future__ import annotations

import socket
import ssl
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.support.certificate import Authority
from tests.support.server import WaypostServer, until

from benchmarks.measure import Figure, at_most, memory

ASKED = 500  # names whose first handshake is looked at
GB = 1e9


def run(quick: bool) -> list[Figure]:
    many = 2000 if quick else 10_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority(folder)
        for number in range(many):
            authority.issue(_host(number))
        server = WaypostServer(folder, _config(many), workers=1, tls=True)
        start = time.monotonic()
        server.start(300)
        started = time.monotonic() - start
        try:
            context = ssl.create_default_context(cafile=str(authority.file))
            # The last ones are not loaded before they are asked for.
            asked = [_host(many - 1 - number) for number in range(ASKED)]
            first = [_handshake(server, context, host)[0] for host in asked]
            again = [_handshake(server, context, host)[0] for host in asked]
            serial = _handshake(server, context, asked[-1])[1]
            worker = server.children()[-1]
            start = time.monotonic()
            authority.issue(asked[-1])
            until(lambda: _handshake(server, context, asked[-1])[1] != serial, 300, "the new certificate")
            replaced = time.monotonic() - start
            size = memory(worker)["Anonymous"]
        finally:
            server.stop()
    return [
        Figure(f"start with {many:,} domains that have certificates", f"{started:.1f} s"),
        Figure("from replacing one of them until it is presented", f"{replaced:.1f} s"),
        at_most(f"first handshake for a name, worst of {ASKED}", max(first) * 1000, 20, " ms"),
        Figure("… median", f"{median(first) * 1000:.1f} ms"),
        Figure(
            "another one for the same names, median and worst",
            f"{median(again) * 1000:.1f} ms, {max(again) * 1000:.1f} ms",
        ),
        Figure("memory of a worker", f"{size / GB:.2f} GB"),
    ]


def _host(number: int) -> str:
    return f"h{number}.acme.example"


def _config(many: int) -> str:
    hosts = [_host(number) for number in range(many)]
    certificates = "".join(
        f'{{ domain = "{host}", certificate = "{host}.pem", key = "{host}.key" }},\n' for host in hosts
    )
    return f"""
base_domain = "waypost.example"
[tls]
mode = "files"
certificates = [
{certificates}]
[[package]]
type = "file"
name = "skates"
domains = [{", ".join(f'"{host}"' for host in hosts)}]
routes = [{{ path = "/{{version}}/skates.tgz", to = "https://dl.example/{{version}}" }}]
"""


def _handshake(server: WaypostServer, context: ssl.SSLContext, host: str) -> tuple[float, object]:
    """Seconds of a handshake, and the serial number that was presented."""
    plain = socket.create_connection(("127.0.0.1", server.tls_port), 60)
    start = time.perf_counter()
    with context.wrap_socket(plain, server_hostname=host) as one:
        took = time.perf_counter() - start
        presented = one.getpeercert()
        assert presented is not None
        return took, presented["serialNumber"]
