"""The time of a decision among 10², 10⁴ and 10⁶ routes: host, route, variables, location and fact.

"hot" asks for the same 100 URLs again and again: everything is in the processor's caches. "cold" asks for random ones
of all routes: with a million of them nearly every look goes to main memory, which is what grows, not the work.
Hosts are compiled before the clock starts, as they are on their first request; the `load` benchmark times that.
"""

from __future__ import annotations

import gc
import multiprocessing

from benchmarks.measure import Figure, at_most, microseconds
from benchmarks.routes import PER_HOST, host_name, requests, snapshot
from waypost.artifacts.snapshot import Snapshot
from waypost.gateway.reload import CompiledHosts
from waypost.routing.decision import Redirect
from waypost.routing.request import Request
from waypost.routing.table import Table

HOT, COLD = 100, 20_000
# Routes → hosts and routes on each.
SIZES = {100: (1, PER_HOST), 10_000: (100, PER_HOST), 1_000_000: (10_000, PER_HOST)}
ONE_HOST = 100_000


def run(quick: bool) -> list[Figure]:
    sizes = {routes: place for routes, place in SIZES.items() if not quick or routes <= 10_000}
    rounds = 5 if quick else 11
    times = {routes: _timed(*place, rounds) for routes, place in sizes.items()}
    figures = [
        Figure(f"{routes:,} routes on {sizes[routes][0]:,} hosts", f"hot {hot:.2f} µs, cold {cold:.2f} µs")
        for routes, (hot, cold) in times.items()
    ]
    (first_hot, first_cold), (last_hot, last_cold) = times[min(sizes)], times[max(sizes)]
    span = f"{max(sizes):,} routes / {min(sizes):,}"
    figures.append(at_most(f"{span}, hot", last_hot / first_hot, 1.5, " ×"))
    figures.append(at_most(f"{span}, cold", last_cold / first_cold, 1.5, " ×"))
    one = 1_000 if quick else ONE_HOST
    hot, cold = _timed(1, one, rounds)
    figures.append(Figure(f"{one:,} routes on one host", f"hot {hot:.2f} µs, cold {cold:.2f} µs"))
    figures.append(Figure(f"… / {min(sizes):,} routes", f"hot {hot / first_hot:.2f} ×, cold {cold / first_cold:.2f} ×"))
    return figures


def _timed(hosts: int, per_host: int, rounds: int) -> tuple[float, float]:
    """Hot and cold microseconds a decision, measured in a process of its own, so that nothing is left behind."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_measure, (hosts, per_host, rounds))


def _measure(hosts: int, per_host: int, rounds: int) -> tuple[float, float]:
    compiled = CompiledHosts(Snapshot(snapshot(hosts, per_host)))
    table = Table(compiled)
    for number in range(hosts):
        compiled(host_name(number))
    gc.collect()
    some, many = requests(HOT, hosts, per_host), requests(COLD, hosts, per_host)
    assert all(isinstance(table.decide(request), Redirect) for request in [*some, *many])
    hot = microseconds(lambda: _decide(table, some, COLD // HOT), COLD, rounds)
    return hot, microseconds(lambda: _decide(table, many, 1), COLD, rounds)


def _decide(table: Table, asked: list[Request], times: int) -> None:
    for _ in range(times):
        for request in asked:
            table.decide(request)
