"""CPU per counted redirect, against nginx answering `return 307` with a buffered JSON access log.

One worker and nginx take turns on one core, wrk drives them from the other one, all in one run. What is compared is
CPU time as the kernel accounts it, so neither wrk's speed nor other work on the machine is in it. The collector may
only use time that wrk leaves; its CPU is told apart.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.support.server import WaypostServer, free_port, until

from benchmarks import clients
from benchmarks.measure import Figure, at_most, cores, cpu_seconds, pin, spread

CONNECTIONS = 32
REQUESTS = 4000  # different ones that wrk goes through
# As many kinds of clients as a worker remembers the header lines of, and more than it remembers.
FEW, MANY = len(clients.KINDS), 4000

_NGINX = r"""
daemon off; worker_processes 1; error_log {folder}/error.log; pid {folder}/pid;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    log_format event escape=json '{{"time":"$msec","id":"$request_id","host":"$host","method":"$request_method",'
        '"path":"$uri","status":$status,"user_agent":"$http_user_agent","referer":"$http_referer",'
        '"address":"$remote_addr"}}';
    access_log {folder}/access.log event buffer=64k flush=1s;
    keepalive_requests 1000000000;
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
}}
"""
_WRK = """
local requests = {{}}
for line in io.lines("{requests}") do
    requests[#requests + 1] = (line:gsub("|", "\\r\\n"))
end
local next = 0
request = function()
    next = next % #requests + 1
    return requests[next]
end
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format("TOTAL %d %d\\n", summary.requests,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class Round(NamedTuple):
    """microseconds of CPU per request, and requests per second of wall time."""

    cost: float
    rate: float


class Wrk:
    """Drives a port with one set of requests."""

    def __init__(self, folder: Path, kinds: int, core: int) -> None:
        requests = folder / f"requests-{kinds}.txt"
        # wrk's script reads them line by line; "|" stands for the ends of their own lines.
        texts = (clients.raw(number, kinds).decode().replace("\r\n", "|") for number in range(REQUESTS))
        requests.write_text("\n".join(texts))
        self._script = folder / f"requests-{kinds}.lua"
        self._script.write_text(_WRK.format(requests=requests))
        self._core = core

    def round(self, port: int, pid: int, seconds: int) -> Round:
        """Raises if any answer was not as it should be."""
        command = ["taskset", "-c", str(self._core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
        before, start = cpu_seconds(pid), time.monotonic()
        done = subprocess.run(
            [*command, "-s", str(self._script), f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True
        )
        wall, cpu = time.monotonic() - start, cpu_seconds(pid) - before
        total = re.search(r"^TOTAL (\d+) (\d+)$", done.stdout, re.MULTILINE)
        assert total is not None, done.stdout
        assert total[2] == "0", done.stdout
        return Round(cpu / int(total[1]) * 1e6, int(total[1]) / wall)


@contextmanager
def nginx(folder: Path, core: int) -> Iterator[tuple[int, int, int]]:
    """Process id of its worker, the port that answers plainly, and the port that matches and binds variables."""
    folder.mkdir()
    # Whom root's nginx runs its workers as must be able to write here.
    folder.chmod(0o777)
    port, matching_port = free_port(), free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, host=clients.HOST, port=port, matching_port=matching_port))
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert program is not None, "nginx is not installed"
    process = subprocess.Popen(["taskset", "-c", str(core), program, "-p", str(folder), "-c", str(config)])
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        worker = until(lambda: children.read_text().split(), what="nginx to start")
        assert isinstance(worker, list)
        yield int(worker[0]), port, matching_port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def run(quick: bool) -> list[Figure]:
    seconds, rounds = (1, 2) if quick else (3, 7)
    core, other = cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        few, many = Wrk(folder, FEW, other), Wrk(folder, MANY, other)
        server = WaypostServer(folder, clients.CONFIG, workers=1).start()
        try:
            console, worker = server.children()
            pin(server.pid, other)
            pin(worker, core)
            pin(console, other, idle=True)
            with nginx(folder / "nginx", core) as (nginx_worker, port, matching_port):
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
