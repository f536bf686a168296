"""Promise: one owner. The supervisor's death is its children's, and a dead child is started again."""

from __future__ import annotations

import os
import shutil
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


def test_a_worker_that_keeps_dying_is_started_ever_later_and_readiness_says_so(server):
    for _ in range(3):
        (victim,) = until(lambda: server.children()[2:], what="the worker to be there")
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: victim not in server.children(), what="its death to be noticed")
        assert server.console("/readyz") == (503, b"worker 1 has not started\n")
    until(server.ready, what="readiness")
    assert b"starting it again in 0.1 s" in server.log.read_bytes()


def test_a_worker_killed_by_a_signal_without_a_name_is_started_again(server):
    before = server.children()
    os.kill(before[2], signal.SIGRTMIN + 1)
    until(lambda: len(server.children()) == 3 and server.children() != before, what="another worker")
    assert server.get("get.acme.example", "/1/skates.tgz")[0] == 307


HOSTILE = {
    "a folder": lambda path: path.mkdir(),
    "no bottom": lambda path: path.write_text("a = " + "[" * 100_000),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\0"),
    "very large": lambda path: path.write_bytes(b"#" * 20_000_000),
    "nothing": lambda path: None,
    "a pipe that nobody writes to": os.mkfifo,
}


def test_whatever_becomes_of_the_configuration_the_supervisor_goes_on(server):
    log = b""

    def looked_at() -> bool:
        """It has said what it thinks of the file, or has a fourth process that still reads it."""
        return b"the one before keeps serving" in server.log.read_bytes()[len(log) :] or len(server.children()) > 3

    for replace in HOSTILE.values():
        if server.config.is_dir():
            server.config.rmdir()
        else:
            server.config.unlink(missing_ok=True)
        log = server.log.read_bytes()
        replace(server.config)
        until(looked_at, what="the supervisor to look at it")
        worker = server.children()[1]
        os.kill(worker, signal.SIGKILL)
        until(lambda worker=worker: worker not in server.children(), what="the death to be noticed")
        until(server.ready, what="the worker to be started again")
        assert server.get("get.acme.example", "/1/skates.tgz")[0] == 307
    assert server.stop() == 0


def test_an_edit_while_another_is_being_read_is_not_missed(server):
    """The first reading hangs at a manifest that nobody has written yet; the file is edited before it ends."""
    manifest = server.folder / "manifest.json"
    os.mkfifo(manifest)
    server.configure('manifests = ["manifest.json"]\n' + CONFIG)
    until(lambda: len(server.children()) > 3, what="the first reading")
    server.configure('manifests = ["manifest.json"]\n' + CONFIG.replace("dl.example.net", "second.example.net"))
    with manifest.open("w") as file:
        file.write('{"rules": []}')
    manifest.unlink()
    manifest.write_text('{"rules": []}')
    until(
        lambda: "second" in server.get("get.acme.example", "/1/skates.tgz")[1]["Location"], what="the edit in between"
    )


def test_a_data_directory_that_is_gone_stops_neither_redirects_nor_the_supervisor(server):

    def gone() -> bool:
        shutil.rmtree(server.data.root, ignore_errors=True)  # workers write and rename files there meanwhile
        return not server.data.root.exists()

    until(gone, what="the folder to be gone")
    assert server.get("get.acme.example", "/1/skates.tgz")[0] == 307
    os.kill(server.children()[2], signal.SIGKILL)
    until(lambda: b"worker 1 was killed" in server.log.read_bytes(), what="the death to be noticed")
    assert len(server.children()) >= 2
    assert server.console("/healthz")[0] == 200
    assert server.stop() == 0


@pytest.mark.long
def test_a_worker_that_stands_still_takes_no_time_from_the_console(server):
    """Killed in the end; the console still stores what the other one recorded."""
    for number in range(20):
        server.get("get.acme.example", f"/{number}/skates.tgz")
    os.kill(server.children()[2], signal.SIGSTOP)
    assert server.stop(60) == 0
    log = server.log.read_bytes()
    assert b"worker 1 did not end in time" in log
    assert b"console did not end in time" not in log
    assert not list(server.data.spool.glob("*"))


def test_without_standard_streams_nothing_takes_their_place(tmp_path):
    server = WaypostServer(tmp_path, CONFIG, workers=1)
    command = f"exec {sys.executable} -m waypost serve --config {server.config} --data {server.data.root}"
    process = subprocess.Popen(
        f"{command} --workers 1 --listen 127.0.0.1:0 --console 127.0.0.1:0 <&- >&- 2>&-", shell=True
    )
    try:
        until(server.data.running, what="the announcement")
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            pids = [process.pid, *map(int, file.read().split())]
        assert len(pids) == 3
        assert {os.readlink(f"/proc/{pid}/fd/{number}") for pid in pids for number in range(3)} == {"/dev/null"}
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_children_hold_no_socket_but_their_own(server):
    def listening(pid: int) -> set[str]:
        links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        return {f"socket:[{inode}]" for inode in _listening_inodes()} & links

    console, *workers = map(listening, server.children())
    assert [len(held) for held in (console, *workers)] == [1, 1, 1]
    assert len(console.union(*workers)) == 3


def _listening_inodes():
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return {row[9] for row in rows if row[3] == "0A"}  # TCP_LISTEN
