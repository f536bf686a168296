"""How many events per second one core moves from spool segments into DuckDB, counting them on the way."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import TypeAlias

from benchmarks import clients
from benchmarks.measure import Figure, cores
from waypost.counting.collector import Collector, Settings
from waypost.events.event import Event, encode_event, new_id, now_us
from waypost.events.spool import Spool
from waypost.stores.duckdb import DuckStore

_Mix: TypeAlias = Callable[[int], Iterator[Event]]

EVENTS = 500_000
SOURCES = 50_000
WORKERS = 2
SPAN_US = 600 * 1_000_000  # the time over which the events are spread
TARGET = 100_000
_AGENTS = [dict(kind)["User-Agent"] for kind in clients.KINDS]
_PULL_AGENT = "docker/29.1 go/go1.25 git-commit/abc kernel/6.12 os/linux arch/amd64 UpstreamClient(Docker-Client/29.1)"


def run(quick: bool) -> list[Figure]:
    events = 50_000 if quick else EVENTS
    core, _ = cores()
    figures = []
    for what, mix in (("file downloads", _downloads), ("a third of them container pulls", _with_pulls)):
        # A process of its own, so that DuckDB starts no threads elsewhere and leaves nothing behind.
        with multiprocessing.get_context("spawn").Pool(1, os.sched_setaffinity, (0, {core})) as pool:
            rate, cost, size = pool.apply(_collect, (mix, events))
        figures.append(
            Figure(
                f"{events:,} events, {what}: events per second of CPU", f"{rate:,.0f}", f"≥ {TARGET:,}", rate >= TARGET
            )
        )
        figures.append(Figure("… by the clock; bytes of store per event", f"{cost:,.0f}; {size:.0f}"))
    return figures


def _collect(mix: _Mix, events: int) -> tuple[float, float, float]:
    """Events per second of CPU, per second of wall time, and bytes in the store per event."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spools = [Spool(folder, f"w{number}", 1 << 40) for number in range(WORKERS)]
        for number, event in enumerate(mix(events)):
            spool = spools[number % WORKERS]
            spool.append(encode_event(event))
            if number % 64 < WORKERS:
                spool.flush()
        for spool in spools:
            spool.close()
        store = DuckStore(folder / "events.duckdb")
        collector = Collector(folder, store, Settings())
        wall, cpu = time.monotonic(), time.process_time()
        while collector.step() or collector.backlog:
            pass
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        assert collector.stored == events, collector.stored
        store.close()
        return events / cpu, events / wall, (folder / "events.duckdb").stat().st_size / events


def _downloads(events: int) -> Iterator[Event]:
    """Of many sources, over ten minutes that end a minute ago, in the order of time."""
    random = Random(1)
    start = now_us() - SPAN_US - 60_000_000
    for number in range(events):
        source = random.randrange(SOURCES)
        path = clients.path(random.randrange(4000))
        _, version, platform, _ = path.split("/")
        time_us = start + SPAN_US * number // events
        yield Event(
            id=new_id(time_us),
            time=time_us,
            kind="binary-download",
            package="rocket-skates-cli",
            domain=clients.HOST,
            path=path,
            status=307,
            owner="acme",
            version=version,
            platform=platform,
            variables={"version": version, "platform": platform},
            upstream="dl.example.net",
            user_agent=_AGENTS[source % len(_AGENTS)],
            **_who(source),
        )


def _with_pulls(events: int) -> Iterator[Event]:
    """The same, but every sixth source asks for an index and then for the image that it lists."""
    random = Random(2)
    pending: Event | None = None
    for number, event in enumerate(_downloads(events)):
        if pending is not None:
            pending.time = event.time
            event, pending = pending, None
        elif number % 6 == 0:
            source = random.randrange(SOURCES)
            index, image = _pull(event, f"1.{source % 50}", source)
            event, pending = index, image
        yield event


def _pull(event: Event, tag: str, source: int) -> tuple[Event, Event]:
    digests = {f"sha256:{tag}-{platform}".ljust(71, "0"): f"linux/{platform}" for platform in ("amd64", "arm64")}
    (image, platform), _ = digests.items()

    def fetch(reference: str, **own: object) -> Event:
        return Event(
            id=new_id(event.time),
            time=event.time,
            kind="manifest-fetch",
            package="acme/rocket-skates",
            domain="docker.acme.example",
            path=f"/v2/acme/rocket-skates/manifests/{reference}",
            owner="acme",
            upstream="ghcr.io",
            user_agent=_PULL_AGENT,
            **_who(source),
            **own,  # type: ignore[arg-type]
        )

    digest = f"sha256:{tag}".ljust(71, "0")
    return (
        fetch(tag, tag=tag, digest=digest, artifact="index", lists=digests),
        fetch(image, digest=image, artifact="image", platform=platform),
    )


def _who(source: int) -> dict[str, bytes]:
    return {"origin_id": source.to_bytes(16), "endpoint_id": (source // 4).to_bytes(16)}
