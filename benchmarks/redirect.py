"""CPU per counted redirect, against nginx answering `return 307` with a buffered JSON access log.

One worker and nginx take turns on one core, wrk drives them from the other one, all in one run. What is compared is
CPU time as the kernel accounts it, so neither wrk's speed nor other work on the machine is in it. The collector may
only use time that wrk leaves; its CPU is told apart.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

from tests.support.server import WaypostServer, free_port, until

from benchmarks import clients
from benchmarks.measure import Figure, at_most, cores, cpu_seconds, pin, spread
from benchmarks.nginx import nginx
from benchmarks.wrk import Round, Wrk

CONNECTIONS = 32
REQUESTS = 4000  # different ones that wrk goes through
# As many kinds of clients as a worker remembers the header lines of, and more than it remembers.
FEW, MANY = len(clients.KINDS), 4000

_SERVERS = r"""
    server {{
        listen 127.0.0.1:{port};
        server_name {host};
        location / {{ return 307 https://dl.example.net$uri; }}
    }}
    server {{
        listen 127.0.0.1:{matching_port};
        server_name {host};
        location ~ "^/(?<version>[^/]+)/(?<platform>[^/]+)/skates\.tar\.gz$" {{
            return 307 https://dl.example.net/skates-$version-$platform.tar.gz;
        }}
    }}
"""


def run(quick: bool) -> list[Figure]:
    seconds, rounds = (1, 2) if quick else (3, 7)
    core, other = cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        few, many = (
            Wrk(folder / f"{kinds}.lua", (clients.raw(one, kinds) for one in range(REQUESTS)), other, CONNECTIONS)
            for kinds in (FEW, MANY)
        )
        # One port answers plainly; the other matches and binds variables.
        port, matching_port = free_port(), free_port()
        servers = _SERVERS.format(host=clients.HOST, port=port, matching_port=matching_port)
        server = WaypostServer(folder, clients.CONFIG, workers=1).start()
        try:
            console, worker = server.children()
            pin(server.pid, other)
            pin(worker, core)
            pin(console, other, idle=True)
            with nginx(folder / "nginx", core, servers) as nginx_worker:
                for warm in ((server.port, worker), (port, nginx_worker), (matching_port, nginx_worker)):
                    few.round(*warm, 1)
                _drained(server)
                ours, ours_many, plain, matching = [], [], [], []
                counted, collecting = server.metric("waypost_events_total"), cpu_seconds(console)
                answered = server.metric("waypost_redirects_total")
                for _ in range(rounds):
                    ours.append(few.round(server.port, worker, seconds))
                    _drained(server)
                    plain.append(few.round(port, nginx_worker, seconds))
                    ours_many.append(many.round(server.port, worker, seconds))
                    _drained(server)
                    matching.append(few.round(matching_port, nginx_worker, seconds))
                counted = server.metric("waypost_events_total") - counted
                answered = server.metric("waypost_redirects_total") - answered
                collecting = cpu_seconds(console) - collecting
        finally:
            server.stop()
    assert counted == answered, f"{answered:.0f} redirects, {counted:.0f} events"
    ratios = [one.cost / other.cost for one, other in zip(ours, plain, strict=True)]
    return [
        at_most(f"counted redirect / nginx `return 307`, median of {rounds}", median(ratios), 2, " ×"),
        Figure("the same, each round", spread(ratios)),
        Figure("… / nginx that matches and binds the same two variables", f"{_ratio(ours, matching):.2f} ×"),
        Figure(f"… with {MANY:,} kinds of clients, more than a worker remembers", f"{_ratio(ours_many, plain):.2f} ×"),
        Figure("CPU of a counted redirect", f"{_cost(ours):.1f} µs (many kinds of clients: {_cost(ours_many):.1f} µs)"),
        Figure("CPU of nginx", f"{_cost(plain):.1f} µs (matching: {_cost(matching):.1f} µs)"),
        Figure("requests per second of one worker, of nginx", f"{_rate(ours):,.0f}, {_rate(plain):,.0f}"),
        Figure("CPU of the collector per event, in its own process", f"{collecting / counted * 1e6:.1f} µs"),
    ]


def _drained(server: WaypostServer) -> None:
    """Waits until nothing is left to collect and all is told, so that a round begins as the one before it."""
    time.sleep(1.2)  # the worker tells once a second
    until(
        lambda: server.metric("waypost_stored_total") >= server.metric("waypost_events_total"), 120, "all to be stored"
    )


def _cost(rounds: list[Round]) -> float:
    return median(one.cost for one in rounds)


def _rate(rounds: list[Round]) -> float:
    return median(one.rate for one in rounds)


def _ratio(ours: list[Round], theirs: list[Round]) -> float:
    return median(one.cost / other.cost for one, other in zip(ours, theirs, strict=True))
