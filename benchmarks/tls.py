"""CPU of handshakes and of redirects over TLS, against nginx with the same certificate, version and tickets.

One worker and nginx take turns on one core; clients in processes of their own drive them from the other one. Both speak
TLS 1.3 with the same certificate (ECDSA P-256), choose the same suite, hand out two tickets with each whole handshake,
and keep no sessions themselves. What is compared is CPU time as the kernel accounts it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.support.certificate import Authority
from tests.support.server import WaypostServer, free_port, until

from benchmarks import clients
from benchmarks.measure import Figure, at_most, cores, cpu_seconds, pin, spread
from benchmarks.nginx import nginx
from benchmarks.wrk import Round, Wrk

CLIENTS = 8  # processes
CONNECTIONS = 32  # of wrk
REQUESTS = 4000

_CONFIG = """
[tls]
mode = "files"
certificates = [{{ domain = "{host}", certificate = "{chain}", key = "{key}" }}]
"""
_SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name {host};
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_tickets on;
        ssl_session_cache none;
        location / {{ return 307 https://dl.example.net$uri; }}
    }}
"""


class Place(NamedTuple):
    """Where one of both listens, and the process whose CPU it takes."""

    port: int
    pid: int


class Handshakes:
    """Drives a port with a new connection for each request."""

    def __init__(self, authority: Path, request: Path, core: int) -> None:
        self._end = [clients.HOST, str(authority), str(request)]
        self._core = core

    def round(self, place: Place, seconds: float, resume: bool) -> Round:
        """Raises if an answer was not as it should be, or came on a session of the wrong kind."""
        command = ["taskset", "-c", str(self._core), sys.executable, "-m", "benchmarks.tls_client", str(place.port)]
        command += [*self._end, f"--seconds={seconds}", *(["--resume"] if resume else [])]
        before, start = cpu_seconds(place.pid), time.monotonic()
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(CLIENTS)]
        said = [one.communicate()[0].strip().split("|") for one in running]
        wall, cpu = time.monotonic() - start, cpu_seconds(place.pid) - before
        assert all(one.returncode == 0 for one in running)
        assert {one[2] for one in said} == {"TLSv1.3 TLS_AES_256_GCM_SHA384"}, said
        answers, resumed = (sum(int(one[field]) for one in said) for field in (0, 1))
        assert resumed == (answers - CLIENTS if resume else 0), said
        return Round(answers, 0, cpu, wall)


def run(quick: bool) -> list[Figure]:
    seconds, rounds = (1, 2) if quick else (3, 7)
    core, other = cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        authority = Authority(folder)
        chain, key = authority.issue(clients.HOST)
        request = folder / "request"
        request.write_bytes(clients.raw(0))
        handshakes = Handshakes(authority.file, request, other)
        wrk = Wrk(
            folder / "kept.lua", (clients.raw(one) for one in range(REQUESTS)), other, CONNECTIONS, scheme="https"
        )
        port = free_port()
        server = WaypostServer(folder, config(chain, key), workers=1, tls=True).start()
        try:
            console, worker = server.children()
            pin(server.pid, other)
            pin(worker, core)
            pin(console, other, idle=True)
            nginx_server = _SERVER.format(host=clients.HOST, port=port, chain=chain, key=key)
            with nginx(folder / "nginx", core, nginx_server) as nginx_worker:
                ours, theirs = Place(server.tls_port, worker), Place(port, nginx_worker)
                found: dict[str, tuple[list[Round], list[Round]]] = {}
                for place in (ours, theirs):
                    wrk.round(place.port, place.pid, 1)
                answered = server.metric("waypost_redirects_total")
                counted = server.metric("waypost_events_total")
                for _ in range(rounds):
                    for kind in ("whole", "resumed", "kept"):
                        pair = found.setdefault(kind, ([], []))
                        for place, into in zip((ours, theirs), pair, strict=True):
                            if kind == "kept":
                                into.append(wrk.round(place.port, place.pid, seconds))
                            else:
                                into.append(handshakes.round(place, seconds, kind == "resumed"))
                            _drained(server)
                answered = server.metric("waypost_redirects_total") - answered
                counted = server.metric("waypost_events_total") - counted
        finally:
            server.stop()
    assert counted == answered, f"{answered:.0f} redirects, {counted:.0f} events"
    whole, resumed, kept = (found[kind] for kind in ("whole", "resumed", "kept"))
    return [
        at_most(f"whole handshake and redirect / nginx, median of {rounds}", _ratio(*whole), 1.6, " ×"),
        Figure("the same, each round", _each(*whole)),
        at_most("resumed handshake and redirect / nginx", _ratio(*resumed), 2, " ×"),
        Figure("the same, each round", _each(*resumed)),
        at_most("redirect on a connection that stays / nginx", _ratio(*kept), 1.5, " ×"),
        Figure("the same, each round", _each(*kept)),
        *(
            Figure(f"CPU of {what}, of nginx", f"{_cost(pair[0]):.0f} µs, {_cost(pair[1]):.0f} µs")
            for what, pair in (("a whole handshake", whole), ("a resumed one", resumed), ("a redirect", kept))
        ),
    ]


def config(chain: Path, key: Path) -> str:
    """That of the other benchmarks, with a certificate."""
    return clients.CONFIG + _CONFIG.format(host=clients.HOST, chain=chain, key=key)


def _drained(server: WaypostServer) -> None:
    """Waits until nothing is left to collect, so that a round begins as the one before it."""
    time.sleep(1.2)  # the worker tells once a second
    until(
        lambda: server.metric("waypost_stored_total") >= server.metric("waypost_events_total"), 120, "all to be stored"
    )


def _cost(rounds: list[Round]) -> float:
    return median(one.cost for one in rounds)


def _ratios(ours: list[Round], theirs: list[Round]) -> list[float]:
    return [one.cost / other.cost for one, other in zip(ours, theirs, strict=True)]


def _ratio(ours: list[Round], theirs: list[Round]) -> float:
    return median(_ratios(ours, theirs))


def _each(ours: list[Round], theirs: list[Round]) -> str:
    return spread(_ratios(ours, theirs))
