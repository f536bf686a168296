"""A million routes: how long until they are served, how much memory a worker takes, and what a change costs."""

from __future__ import annotations

import http.client
import os
import signal
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.support.server import WaypostServer, until

from benchmarks.measure import Figure, at_most, memory
from benchmarks.routes import PER_HOST, host_name, path, snapshot, write_manifest
from waypost.artifacts.snapshot import Snapshot
from waypost.gateway.reload import CompiledHosts

HOSTS, FEW_HOSTS = 10_000, 1_000
CONFIG = """
base_domain = "waypost.example"
manifests = ["manifest.json"]
"""
GB = 1 << 30


def run(quick: bool) -> list[Figure]:
    hosts, few = (100, 10) if quick else (HOSTS, FEW_HOSTS)
    routes = f"{hosts * PER_HOST:,} routes"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = folder / "manifest.json"
        write_manifest(manifest, 1)
        server = WaypostServer(folder, CONFIG, workers=1).start()
        try:
            write_manifest(manifest, hosts)
            start = time.monotonic()
            until(lambda: server.metric("waypost_hosts") > hosts, 600, "the manifest to be served")
            figures = [at_most(f"{routes} from a manifest until served", time.monotonic() - start, 10, " s")]
            supervisor = _peak(server.pid)
            figures.append(at_most("… from the snapshot until a new worker serves", _restarted(server), 10, " s"))
            worker = server.children()[-1]
            figures.append(Figure("memory of a worker that has served no host", _said(worker)))
            for count in (few, hosts):
                mean, worst = _touch(server, range(count))
                figures.append(
                    Figure(
                        f"first request of each of {count:,} hosts, {PER_HOST} routes each",
                        f"{mean * 1000:.1f} ms on average, {worst * 1000:.0f} ms at worst",
                    )
                )
                figures.append(Figure(f"memory of a worker that has served {count:,} hosts", _said(worker)))
            figures.append(at_most("… the last of these", memory(worker)["Anonymous"] / GB, 1, " GB"))
            figures.append(Figure("supervisor, largest size while compiling the manifest", f"{supervisor / GB:.2f} GB"))
        finally:
            server.stop()
    figures.append(_changed(few))
    return figures


def _restarted(server: WaypostServer) -> float:
    """Seconds from the death of the worker to the next answer."""
    old = server.children()[-1]
    start = time.monotonic()
    os.kill(old, signal.SIGKILL)
    until(lambda: _answers(server), 60, "a new worker")
    return time.monotonic() - start


def _answers(server: WaypostServer) -> bool:
    try:
        return server.get(host_name(0), path(0, 0, 1))[0] == 307
    except OSError:
        return False


def _touch(server: WaypostServer, hosts: Iterable[int]) -> tuple[float, float]:
    """Asks each host once, on one connection; mean and worst seconds of an answer."""
    times = []
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for host in hosts:
        start = time.perf_counter()
        connection.request("GET", path(host, host % PER_HOST, 1), headers={"Host": host_name(host)})
        answer = connection.getresponse()
        answer.read()
        times.append(time.perf_counter() - start)
        assert answer.status == 307, answer.status
    connection.close()
    return sum(times) / len(times), max(times)


def _said(worker: int) -> str:
    sizes = memory(worker)
    return f"{sizes['Anonymous'] / GB:.2f} GB of its own, {sizes['Rss'] / GB:.2f} GB with the mapped snapshot"


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _changed(hosts: int) -> Figure:
    """One route of one host is changed: which hosts a worker compiles again."""
    names = [host_name(number) for number in range(hosts)]
    compiled = CompiledHosts(Snapshot(snapshot(hosts)))
    before = [compiled(name) for name in names]
    compiled.swap(Snapshot(snapshot(hosts, changed=7)))
    start = time.process_time()
    again = sum(compiled(name) is not old for name, old in zip(names, before, strict=True))
    taken = (time.process_time() - start) * 1000
    return Figure(
        f"one changed package among {hosts:,} compiled hosts",
        f"{again} host compiled again; {taken:.0f} ms to take over all of them",
        "1",
        again == 1,
    )
