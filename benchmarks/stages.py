"""Where the CPU of a counted redirect goes: each stage on its own, in this process, without a socket."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from time import monotonic

from benchmarks import clients
from benchmarks.measure import Figure, microseconds
from waypost.artifacts.snapshot import Snapshot
from waypost.catalog.compile import compile_file
from waypost.events.event import now_us
from waypost.events.identity import Identity
from waypost.events.spool import Spool
from waypost.gateway.address import TrustedProxies
from waypost.gateway.answer import KEEP_ALIVE, render
from waypost.gateway.application import Gateway
from waypost.gateway.head import HeadReader
from waypost.gateway.http1 import Server
from waypost.gateway.limits import Limits
from waypost.gateway.manifests import Manifests
from waypost.gateway.pages import Pages
from waypost.gateway.pins import Pins
from waypost.gateway.record import Recorder
from waypost.gateway.reload import CompiledHosts
from waypost.routing.request import Request
from waypost.routing.table import Table
from waypost.upstream.client import Client
from waypost.upstream.folder import Folder
from waypost.upstream.health import Health
from waypost.upstream.manifests import ManifestStore
from waypost.upstream.pages import PageStore
from waypost.upstream.upstreams import Upstreams

DATE = "Date: Sun, 22 Nov 2026 08:00:00 GMT\r\n"
PEER = "192.0.2.7"
BATCH = 32  # connections that are ready in one turn of the event loop


class Transport(asyncio.Transport):
    """Takes everything and keeps nothing."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        return (PEER, 50000) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: object) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Stages:
    """Everything between the bytes of a request and those of its answer, as a worker puts it together."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        config = folder / "waypost.toml"
        config.write_text(clients.CONFIG)
        snapshot = Snapshot(compile_file(config, 8080).snapshot)
        hosts = CompiledHosts(snapshot)
        (folder / "spool").mkdir()
        self.spool = Spool(folder / "spool", "worker0", 1 << 33)
        self.identity = Identity(folder / "identity", "month")
        self.recorder = Recorder(self.spool, self.identity, TrustedProxies(()))
        self.table = Table(hosts)
        upstreams = Upstreams(Client({}))
        # Upstreams are part of a worker; no redirect asks one.
        kept = Folder(folder / "manifests", snapshot.policy.cache_bytes)
        health, disk = Health(monotonic), ThreadPoolExecutor(1)
        manifests = Manifests(ManifestStore(kept), upstreams, health, disk, snapshot.policy.tag_ttl)
        pages = Pages(PageStore(kept), upstreams, health, disk)
        self.gateway = Gateway(
            hosts, snapshot.policy, self.recorder, self.spool, upstreams, manifests, pages, Pins(monotonic)
        )
        self.upstreams = upstreams
        self.server = Server(self.gateway, Limits(), loop)
        self.heads = HeadReader(Limits())
        self.raws = [clients.raw(number) for number in range(4000)]
        self.requests = [self._request(raw) for raw in self.raws]

    def _request(self, raw: bytes) -> Request:
        head = self.heads.read(raw)
        return Request(head.method, head.host, head.path, head.query, head.headers)

    def whole(self, raws: Sequence[bytes]) -> Callable[[], None]:
        """Requests in on many connections, answers out, the spool written once in BATCH."""
        connections = [self.server.protocol_factory() for _ in range(BATCH)]
        for one in connections:
            one.connection_made(Transport())

        def run() -> None:
            for start in range(0, len(raws), BATCH):
                for one, data in zip(connections, raws[start : start + BATCH], strict=False):
                    one.data_received(data)
                self.server.flush()

        return run


def run(quick: bool) -> list[Figure]:
    rounds = 3 if quick else 15
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as name:
        stages = loop.run_until_complete(_built(Path(name), loop))
        try:
            return [
                Figure(what, f"{microseconds(function, calls, rounds):.2f} µs")
                for what, function, calls in _functions(stages)
            ]
        finally:
            stages.spool.close()
            loop.run_until_complete(stages.upstreams.close())
            loop.close()


async def _built(folder: Path, loop: asyncio.AbstractEventLoop) -> Stages:
    return Stages(folder, loop)


def _functions(stages: Stages) -> list[tuple[str, Callable[[], object], int]]:
    calls = len(stages.raws)
    new = [clients.raw(number, 1 << 30) for number in range(calls)]
    facts = [stages.table.decide(request).facts for request in stages.requests]  # type: ignore[union-attr]
    answers = [stages.gateway.handle(request, PEER) for request in stages.requests]
    stages.spool.flush()
    time, addresses = now_us(), count()

    def heads(raws: Sequence[bytes]) -> Callable[[], object]:
        def run() -> None:
            for raw in raws:
                stages.heads.read(raw)

        return run

    def decide() -> None:
        for request in stages.requests:
            stages.table.decide(request)

    def record() -> None:
        for request, of in zip(stages.requests, facts, strict=True):
            stages.recorder.record(request, of, 307, PEER)
        stages.spool.flush()

    def identify() -> None:
        for _ in range(calls):
            stages.identity.of(str(next(addresses)), "curl/8.14.1", time)

    def rendered() -> None:
        for answer in answers:
            render(answer, KEEP_ALIVE, DATE, False)  # type: ignore[arg-type]

    return [
        ("the whole, without sockets and event loop", stages.whole(stages.raws), calls),
        ("the whole, header lines never seen before", stages.whole(new), calls),
        ("head: lines seen before", heads(stages.raws), calls),
        ("head: lines never seen before", heads(new), calls),
        ("decide: host, route, variables, location, fact", decide, calls),
        ("record: identity, event, frame (one write for all)", record, calls),
        ("identity of an address never seen before", identify, calls),
        ("render", rendered, calls),
    ]
