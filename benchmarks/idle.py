"""Memory of 20,000 connections by https that say nothing, over two workers.

Each has asked once and been answered, as those of clients that keep their connections have. A worker takes 1,024 from
one address, so they come from many. Memory is that of the workers, without what the kernel keeps for sockets.
"""

from __future__ import annotations

import multiprocessing
import resource
import socket
import ssl
import tempfile
import time
from collections import deque
from multiprocessing.synchronize import Event, Semaphore
from pathlib import Path

from tests.support.certificate import Authority
from tests.support.server import WaypostServer, until

from benchmarks import clients, tls
from benchmarks.measure import Figure, at_most, memory

WORKERS = 2
PROCESSES = 4  # of clients
FROM_ONE = 500  # connections from one address
AGAIN = 30.0  # seconds after which a connection asks again, while others are still being opened
GB = 1e9


def run(quick: bool) -> list[Figure]:
    connections = 1000 if quick else 20_000
    # Ours is that of the processes that we start.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority(folder)
        chain, key = authority.issue(clients.HOST)
        server = WaypostServer(folder, tls.config(chain, key), workers=WORKERS, tls=True).start()
        spawn = multiprocessing.get_context("spawn")
        leave, held = spawn.Event(), spawn.Semaphore(0)
        share = connections // PROCESSES
        holders = [
            spawn.Process(target=hold, args=(server.tls_port, authority.file, number, share, held, leave), daemon=True)
            for number in range(PROCESSES)
        ]
        try:
            workers = server.children()[1:]
            before = _own(workers)
            start = time.monotonic()
            for holder in holders:
                holder.start()
            for _ in holders:
                assert held.acquire(timeout=300), "a client has failed, or is too slow"
            took = time.monotonic() - start
            time.sleep(1.5)  # a worker tells once a second
            assert _open(server) == connections, "some have gone already"
            grown = _own(workers) - before
            leave.set()
            until(lambda: server.metric("waypost_connections") == 0, 60, "all to have left")
            time.sleep(6)  # freed memory is given back every five seconds
            after = _own(workers) - before
        finally:
            leave.set()
            for holder in holders:
                holder.join(60)
            server.stop()
    what = f"{connections:,} idle connections by https, over {WORKERS} workers"
    return [
        at_most(f"memory of {what}", grown / GB, 1.5, " GB"),
        Figure("… of one of them", f"{grown / connections / 1000:.1f} KB"),
        Figure("… that is left when they have gone", f"{after / GB:.2f} GB"),
        Figure("seconds until all were there, their clients on the same cores", f"{took:.0f} s"),
    ]


def _own(workers: list[int]) -> int:
    return sum(memory(worker)["Anonymous"] for worker in workers)


def _open(server: WaypostServer) -> float:
    return server.metric("waypost_connections")


def hold(port: int, authority: Path, number: int, many: int, held: Semaphore, leave: Event) -> None:
    """Opens connections, asks on each, says when all are there, and keeps them until told to leave."""
    context = ssl.create_default_context(cafile=str(authority))
    request = clients.raw(number)
    kept: deque[tuple[float, ssl.SSLSocket]] = deque()

    def ask(one: ssl.SSLSocket) -> None:
        one.sendall(request)
        assert one.recv(65536).startswith(b"HTTP/1.1 307 ")
        kept.append((time.monotonic(), one))

    for index in range(many):
        source = f"127.{number + 1}.0.{index // FROM_ONE + 1}"
        plain = socket.create_connection(("127.0.0.1", port), 60, (source, 0))
        ask(context.wrap_socket(plain, server_hostname=clients.HOST))
        # Whoever is idle for too long is closed, and others are still to come.
        while kept[0][0] < time.monotonic() - AGAIN:
            ask(kept.popleft()[1])
    held.release()
    leave.wait()
