"""From saving waypost.toml to the new answer in every worker."""

from __future__ import annotations

import http.client
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

from tests.support.server import WaypostServer, until

from benchmarks import clients
from benchmarks.measure import Figure, at_most

SAMPLES = 10
WORKERS = 2
TARGET = 1.0  # seconds


def run(quick: bool) -> list[Figure]:
    samples = 3 if quick else SAMPLES
    with tempfile.TemporaryDirectory() as name:
        server = WaypostServer(Path(name), clients.CONFIG, workers=WORKERS).start()
        try:
            connections = _one_to_each(server)
            delays = []
            for number in range(samples):
                target = f"https://dl-{number}.example.net/"
                server.configure(clients.CONFIG.replace("https://dl.example.net/", target))
                start = time.monotonic()
                until(partial(_all_lead_to, target, connections), 20, target)
                delays.append(time.monotonic() - start)
                time.sleep(number * 0.137 % 0.4)  # not in step with anything
        finally:
            for one in connections:
                one.close()
            server.stop()
    return [
        Figure(
            f"from saving to the new answer of all {WORKERS} workers, median of {samples}", f"{median(delays):.2f} s"
        ),
        at_most("… the longest", max(delays), TARGET, " s"),
    ]


def _all_lead_to(target: str, connections: list[http.client.HTTPConnection]) -> bool:
    return all(_location(one).startswith(target) for one in connections)


def _location(connection: http.client.HTTPConnection) -> str:
    connection.request("GET", clients.path(1), headers={"Host": clients.HOST})
    answer = connection.getresponse()
    answer.read()
    return answer.headers["location"]


def _one_to_each(server: WaypostServer) -> list[http.client.HTTPConnection]:
    """A connection to every worker. The kernel chooses who takes one, so we open some until each has got one."""
    connections: list[http.client.HTTPConnection] = []
    busy = 0
    while busy < WORKERS:
        assert len(connections) < 64, "one worker takes all connections"
        one = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        one.connect()
        connections.append(one)
        time.sleep(1.1)  # workers tell how many they have once a second
        text = server.console("/metrics")[1].decode()
        busy = sum(line.startswith("waypost_connections{") and not line.endswith(" 0.0") for line in text.splitlines())
    return connections
