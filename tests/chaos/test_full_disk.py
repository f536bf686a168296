"""Promise 2: a full disk never slows or fails a redirect; what is lost is bounded, counted and shown."""

from __future__ import annotations

import os
import subprocess

import pytest
from tests.support.server import WaypostServer, until

CONFIG = """
base_domain = "waypost.example"
[[package]]
type = "file"
name = "skates"
domain = "get.acme.example"
routes = [{ path = "/{version}/skates.tgz", to = "https://dl.example.net/skates-{version}.tgz" }]
"""
HOST = "get.acme.example"


@pytest.fixture
def small_disk(tmp_path):
    """A data directory on a disk of 12 MB. Mounting needs root; without it the test fails rather than passes."""
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "waypost-test", str(data)], check=True)
    yield data
    subprocess.run(["umount", str(data)], check=True)


def test_redirects_go_on_and_losses_are_counted(tmp_path, small_disk):
    server = WaypostServer(tmp_path, CONFIG, workers=1).start()
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        # A long User-Agent fills the disk's pages quickly.
        assert server.get(HOST, f"/{asked}/skates.tgz", headers={"User-Agent": "x" * 900})[0] == 307

    def kept_again() -> bool:
        recorded, dropped = server.metric("waypost_events_total"), server.metric("waypost_events_dropped_total")
        ask()
        until(lambda: server.metric("waypost_requests_total") == asked, what="the tally")
        return (server.metric("waypost_events_total"), server.metric("waypost_events_dropped_total")) == (
            recorded + 1,
            dropped,
        )

    try:
        ask()
        until(lambda: server.metric("waypost_stored_total") == 1, what="the first event to be stored")
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        for _ in range(400):
            ask()
        until(lambda: server.metric("waypost_events_dropped_total") > 0, what="dropped events in the metrics")
        filler.unlink()
        until(kept_again, what="events to be kept again")
        lost = int(server.metric("waypost_events_dropped_total"))
    finally:
        assert server.stop() == 0
    events = server.command("events").splitlines()
    # Whatever was not dropped is there, once.
    assert len(events) == asked - lost
    assert len({line.split('"id":"')[1][:36] for line in events}) == len(events)
    assert os.listdir(server.data.spool) == []
