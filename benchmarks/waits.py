"""What others notice: how long plain redirects take while a server does something else."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from statistics import median, quantiles

from tests.support.server import WaypostServer, until

from benchmarks import clients


def waits(server: WaypostServer, work: Callable[[], object]) -> list[float]:
    """How long each plain redirect took while `work` was done, in milliseconds."""
    thread = threading.Thread(target=work)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    found = []
    thread.start()
    number = 0
    while thread.is_alive():
        number += 1
        start = time.perf_counter()
        connection.request("GET", clients.path(number), headers={"Host": clients.HOST, "User-Agent": "curl/8.14.1"})
        connection.getresponse().read()
        found.append((time.perf_counter() - start) * 1000)
        time.sleep(0.001)
    thread.join()
    connection.close()
    return found


def said(found: list[float]) -> str:
    """Median, what 99 % are within, worst."""
    most = quantiles(found, n=100, method="inclusive")[98]
    return f"{median(found):.1f} ms, {most:.1f} ms, {max(found):.1f} ms of {len(found):,}"


def drained(server: WaypostServer) -> None:
    """Waits until nothing is left to collect, so that a round begins as the one before it."""
    time.sleep(1.2)  # the worker tells once a second
    until(
        lambda: server.metric("waypost_stored_total") >= server.metric("waypost_events_total"), 120, "all to be stored"
    )
