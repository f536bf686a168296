"""Promise 1: received by a client ⊆ stored ⊆ sent by a client, each once, whatever is killed at any moment."""

from __future__ import annotations

import http.client
import os
import random
import signal
import threading
import time
from collections import Counter

import pytest
from tests.support.server import Background, WaypostServer, until

from waypost.stores.duckdb import DuckStore

CONFIG = """
base_domain = "waypost.example"
[[package]]
type = "file"
name = "skates"
domain = "get.acme.example"
routes = [{ path = "/{version}/skates.tgz", to = "https://dl.example.net/skates-{version}.tgz" }]
"""


class Ledger:
    """What clients sent, and what they know to have received."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self.sent: set[str] = set()
        self.received: set[str] = set()

    def new(self) -> str:
        with self._lock:
            self._next += 1
            version = f"{self._next}"
            self.sent.add(version)
            return version

    def got(self, version: str) -> None:
        with self._lock:
            self.received.add(version)


def client(server: WaypostServer, ledger: Ledger) -> None:
    """One connection, kept alive for as long as it lives."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        for _ in range(200):
            version = ledger.new()
            connection.request(
                "GET", f"/{version}/skates.tgz", headers={"Host": "get.acme.example", "User-Agent": version}
            )
            answer = connection.getresponse()
            answer.read()
            if answer.status == 307:
                ledger.got(version)
            time.sleep(0.002)
    except (OSError, http.client.HTTPException):
        time.sleep(0.01)  # killed, or not up again yet: whether the last one arrived is for the ledger to bear
    finally:
        connection.close()


def hit(server: WaypostServer, chance: random.Random) -> str:
    """Kills one process. Mostly workers and the collector; now and then the supervisor with all of them."""
    children = server.children()
    victim = chance.choices(["worker", "console", "supervisor"], [5, 4, 1])[0]
    if victim == "supervisor":
        server.kill()
        server.start()
        return victim
    candidates = children[:1] if victim == "console" else children[1:]
    if candidates:
        try:
            os.kill(chance.choice(candidates), signal.SIGKILL)
        except ProcessLookupError:
            return "nobody"
    return victim


@pytest.mark.timeout(600)
def test_every_download_is_stored_once_whatever_is_killed(tmp_path, kills):
    chance = random.Random()
    seed = chance.randrange(1 << 32)
    chance.seed(seed)
    print(f"seed {seed}")
    server = WaypostServer(tmp_path, CONFIG, workers=2).start()
    ledger = Ledger()
    load = Background(lambda number: client(server, ledger), threads=4)
    hits: Counter[str] = Counter()
    try:
        while sum(hits.values()) - hits["nobody"] < kills:
            time.sleep(chance.uniform(0.0, 0.25))
            hits[hit(server, chance)] += 1
        load.join()
        until(server.ready, what="the last restart")
        assert server.stop() == 0
    finally:
        load.stopping.set()
        if server.children():
            server.stop()

    store = DuckStore(server.data.store, server.data.temporary, read_only=True)
    stored: list[str] = []
    after = 0
    while page := list(store.events(after, limit=10_000)):
        for after, event in page:  # noqa: B007
            stored.append(event["version"])
    store.close()
    times = Counter(stored)
    assert not ledger.received - set(times), "received but not stored"
    assert not set(times) - ledger.sent, "stored but never sent"
    assert not [version for version, count in times.items() if count > 1], "stored more than once"
    assert len(ledger.received) > 10 * kills, f"too little load to mean anything: {len(ledger.received)}"
    assert min(hits[victim] for victim in ("worker", "console", "supervisor")) > 0, hits
