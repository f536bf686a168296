"""Promise: one owner. The supervisor's death is its children's, and a dead child is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

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


@pytest.fixture
def server(tmp_path):
    one = WaypostServer(tmp_path, CONFIG, workers=2).start()
    yield one
    one.stop()


def test_children_die_with_their_supervisor_and_the_next_one_serves(server):
    assert len(server.children()) == 3
    server.kill()  # returns only when the children are gone
    server.start()
    assert server.get("get.acme.example", "/1/skates.tgz")[0] == 307


def test_a_killed_worker_and_console_are_started_again(server):
    before = server.children()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(server.children()) == 3 and not set(server.children()) & set(before), what="three new children")
    until(server.ready, what="readiness")
    assert server.get("get.acme.example", "/1/skates.tgz")[0] == 307
    assert b"was killed by SIGKILL; starting it again" in server.log.read_bytes()


def test_no_connection_is_refused_while_the_only_worker_is_started_again(tmp_path):
    server = WaypostServer(tmp_path, CONFIG, workers=1).start()
    try:
        os.kill(server.children()[1], signal.SIGKILL)
        # The supervisor holds the listening socket: this connection waits for the next worker.
        assert server.get("get.acme.example", "/1/skates.tgz")[0] == 307
    finally:
        server.stop()


def test_sigterm_ends_everything_and_stores_what_was_recorded(server):
    children = server.children()
    for number in range(50):
        server.get("get.acme.example", f"/{number}/skates.tgz")
    assert server.stop() == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)
    assert not list(server.data.spool.glob("*"))
    stats = server.command("stats", "--format", "csv", "--by", "package")
    assert stats.splitlines()[1].startswith("skates,50,")


def test_a_second_server_on_the_same_data_is_refused(server):
    command = [
        sys.executable,
        "-m",
        "waypost",
        "serve",
        "--config",
        str(server.config),
        "--data",
        str(server.data.root),
    ]
    second = subprocess.run(
        [*command, "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"], capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 2
    assert "belongs to a Waypost that is running" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_second_server_on_the_same_address_is_refused(server, tmp_path):
    command = [
        sys.executable,
        "-m",
        "waypost",
        "serve",
        "--config",
        str(server.config),
        "--data",
        str(tmp_path / "other"),
    ]
    second = subprocess.run(
        [*command, "--listen", f"127.0.0.1:{server.port}", "--console", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 2
    assert f"cannot listen on 127.0.0.1:{server.port}: Address already in use" in second.stderr
