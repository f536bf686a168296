"""One gateway process: requests in, answers out, facts to the spool."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

import uvloop

from waypost.artifacts.snapshot import SnapshotError
from waypost.events import standings
from waypost.events.identity import Identity
from waypost.events.spool import Spool
from waypost.events.standings import Standing
from waypost.events.tally import Tally
from waypost.gateway.address import TrustedProxies
from waypost.gateway.application import Gateway, declared
from waypost.gateway.heap import Departures, give_back, keep_freed
from waypost.gateway.http1 import Server
from waypost.gateway.limits import Limits
from waypost.gateway.manifests import Manifests
from waypost.gateway.pages import Pages
from waypost.gateway.pins import Pins
from waypost.gateway.record import Recorder
from waypost.gateway.reload import CompiledHosts, SnapshotFile
from waypost.gateway.steering import pace, resume, steer
from waypost.tls.contexts import Contexts
from waypost.upstream.client import Client
from waypost.upstream.folder import Folder
from waypost.upstream.health import Health
from waypost.upstream.manifests import ManifestStore
from waypost.upstream.pages import PageStore
from waypost.upstream.probe import Prober
from waypost.upstream.upstreams import Upstreams
from waypost.upstream.watch import Watch, together

if TYPE_CHECKING:
    from waypost.data import DataDirectory

logger = logging.getLogger("waypost")

SNAPSHOT_POLL: Final = 0.2  # seconds
TALLY_EVERY: Final = 1.0
SWEEP_EVERY: Final = 60.0
STANDINGS_EVERY: Final = 0.5
GIVE_BACK_EVERY: Final = 5.0
MANY_GONE: Final = 64  # connections
DISK_THREADS: Final = 2  # for manifests that are read and kept
DRAIN: Final = 10.0
REST: Final = 4.0  # times what it took to load a certificate, before the next one
HANDSHAKE: Final = 10.0  # seconds that a client may take for it
SHUTDOWN: Final = 5.0  # seconds to say goodbye in, as TLS wants it
BACKLOG: Final = 4096  # connections that wait to be accepted, as far as the kernel allows


def writer_name(number: int) -> str:
    """What segments of worker `number` are called after, in whichever life of it."""
    return f"worker{number}"


class Listening(NamedTuple):
    """Where a worker accepts connections: http, and https if that is wanted, with `context`."""

    http: socket.socket
    https: socket.socket | None = None
    context: ssl.SSLContext | None = None


def run(number: int, workers: int, listening: Listening, data: DataDirectory, tally: Tally) -> None:
    """The life of worker `number` of `workers`, until SIGTERM."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(number, workers, listening, data, tally))


async def _serve(number: int, workers: int, listening: Listening, data: DataDirectory, tally: Tally) -> None:
    # Requests leave few cycles behind, and looking for them after every 700 objects costs some percent.
    gc.set_threshold(50_000, 20, 50)
    # While a thread reads a large index, each request would wait five milliseconds for its turn, and more than once.
    sys.setswitchinterval(0.001)
    keep_freed()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)

    file = SnapshotFile(data.snapshot)
    snapshot = file.changed()
    assert snapshot is not None
    # Routes hold no cycles: a garbage collector that looked through millions of them would stop us for seconds.
    hosts = CompiledHosts(snapshot, gc.freeze)
    policy = snapshot.policy
    spool = Spool(data.spool, writer_name(number), policy.spool_max_bytes // workers)
    identity = Identity(data.identity, policy.rotation)
    recorder = Recorder(spool, identity, TrustedProxies(policy.trusted_proxies))
    upstreams = Upstreams(Client(declared(policy)))
    disk = ThreadPoolExecutor(DISK_THREADS, "disk")
    kept = Folder(data.manifests, policy.cache_bytes)
    health = Health(time.monotonic)
    watch = Watch(time.monotonic, pace(policy)) if number == 0 else None  # one that decides is enough
    pins = Pins(time.monotonic)
    resume(pins, watch, data)
    prober = Prober(upstreams.client, health, watch)
    manifests = Manifests(ManifestStore(kept), upstreams, health, disk, policy.tag_ttl)
    pages = Pages(PageStore(kept), upstreams, health, disk)
    gateway = Gateway(hosts, policy, recorder, spool, upstreams, manifests, pages, pins)
    server = Server(gateway, Limits(), loop)
    server.is_proxy = lambda peer: recorder.trusted.trusts(peer)
    acceptors = [await loop.create_server(server.protocol_factory, sock=listening.http, backlog=BACKLOG)]
    if listening.https is not None and listening.context is not None:
        gateway.contexts = contexts = Contexts(listening.context)
        contexts.take(policy.certificates)
        acceptors.append(
            await loop.create_server(
                server.protocol_factory,
                sock=listening.https,
                backlog=BACKLOG,
                ssl=listening.context,
                ssl_handshake_timeout=HANDSHAKE,
                ssl_shutdown_timeout=SHUTDOWN,
            )
        )
    state = _State(tally, server, gateway, recorder, spool, hosts, prober, watch)

    chores = [
        asyncio.create_task(_follow_snapshot(file, gateway, hosts, state, watch)),
        asyncio.create_task(_sync(spool, gateway)),
        asyncio.create_task(_tell(state)),
        asyncio.create_task(prober.run()),
        asyncio.create_task(_tell_standings(health, watch, data, number, disk)),
        asyncio.create_task(steer(pins, watch, data, number, workers, disk)),
        asyncio.create_task(_give_back(server)),
    ]
    if gateway.contexts is not None:
        chores.append(asyncio.create_task(_prepare(gateway.contexts)))
    if number == 0:  # one of all is enough
        chores.append(asyncio.create_task(_sweep(kept, gateway, disk)))
    await stop.wait()
    for acceptor in acceptors:
        acceptor.close()
    await server.drain(DRAIN)
    for chore in chores:
        chore.cancel()
    await asyncio.gather(*chores, return_exceptions=True)
    disk.shutdown()
    await upstreams.close()
    spool.close()
    state.tell()


async def _follow_snapshot(
    file: SnapshotFile, gateway: Gateway, hosts: CompiledHosts, state: _State, watch: Watch | None
) -> None:
    complaint = ""
    while True:
        await asyncio.sleep(SNAPSHOT_POLL)
        try:
            snapshot = file.changed()
        except (OSError, SnapshotError) as error:
            if str(error) != complaint:  # once, not five times a second
                complaint = str(error)
                logger.error("the new snapshot was not taken (%s); the one before keeps serving", complaint)
            continue
        complaint = ""
        if snapshot is not None:
            hosts.swap(snapshot)
            gateway.take(snapshot.policy)
            if watch is not None:
                watch.pace = pace(snapshot.policy)
            state.reloads += 1


async def _sync(spool: Spool, gateway: Gateway) -> None:
    loop = asyncio.get_running_loop()
    # A thread of its own: nothing else should wait for the disk's barrier.
    with ThreadPoolExecutor(1, "fsync") as thread:
        while True:
            await asyncio.sleep(gateway.policy.fsync_ms / 1000)
            await loop.run_in_executor(thread, spool.sync)
            spool.tick()


async def _sweep(kept: Folder, gateway: Gateway, disk: ThreadPoolExecutor) -> None:
    while True:
        await asyncio.sleep(SWEEP_EVERY)
        kept.max_bytes = gateway.policy.cache_bytes
        await asyncio.get_running_loop().run_in_executor(disk, kept.sweep)


async def _prepare(contexts: Contexts) -> None:
    """Certificates that nobody has asked for yet, one at a time: others want to be served meanwhile."""
    while True:
        start = time.monotonic()
        for _ in contexts.prepare():
            await asyncio.sleep(REST * (time.monotonic() - start))
            start = time.monotonic()
        await asyncio.sleep(SNAPSHOT_POLL)


async def _tell(state: _State) -> None:
    while True:
        state.tell()
        await asyncio.sleep(TALLY_EVERY)


async def _tell_standings(
    health: Health, watch: Watch | None, data: DataDirectory, number: int, disk: ThreadPoolExecutor
) -> None:
    loop = asyncio.get_running_loop()
    before = None
    while True:
        found = together(health, watch)
        if found != before:
            # Monotonic moments mean nothing to other processes.
            offset = time.time() - time.monotonic()
            shown = [Standing(one.host, None if one.since is None else one.since + offset, one.why) for one in found]
            if await loop.run_in_executor(disk, standings.tell, data.health, number, shown):
                before = found
        await asyncio.sleep(STANDINGS_EVERY)


async def _give_back(server: Server) -> None:
    """Memory of many clients, once they have gone. What few leave behind is not worth looking for."""
    departures = Departures(MANY_GONE)
    while True:
        await asyncio.sleep(GIVE_BACK_EVERY)
        if departures.are_many(len(server.connections)):
            give_back()


class _State:
    """What this worker tells of itself each second."""

    def __init__(
        self,
        tally: Tally,
        server: Server,
        gateway: Gateway,
        recorder: Recorder,
        spool: Spool,
        hosts: CompiledHosts,
        prober: Prober,
        watch: Watch | None,
    ) -> None:
        self._tally = tally
        self._server = server
        self._gateway = gateway
        self._recorder = recorder
        self._spool = spool
        self._hosts = hosts
        self._prober = prober
        self._watch = watch
        self.reloads = 0
        self._before = tally.counters()

    def tell(self) -> None:
        now = {
            "requests": self._server.counters.requests,
            "redirects": self._gateway.redirects,
            "refused": self._gateway.refused,
            "unparsable": sum(self._server.counters.unacceptable.values()),
            "turned_away": self._server.counters.turned_away,
            "events": self._recorder.recorded - self._spool.dropped,
            "events_dropped": self._spool.dropped,
            "fetches": self._gateway.upstreams.client.asked,
            "fetch_failures": self._gateway.fetch_failures,
            "manifest_hits": self._gateway.manifests.hits,
            "manifest_stale": self._gateway.manifests.stale,
            "page_hits": self._gateway.pages.hits,
            "page_stale": self._gateway.pages.stale,
            "probes": self._prober.asked,
            "reloads": self.reloads,
        }
        self._tally.tell({name: self._before[name] + value for name, value in now.items()})
        self._tally.tell(
            {
                "at_ms": time.time_ns() // 1_000_000,
                "connections": len(self._server.connections),
                "hosts": len(self._hosts),
                "upstreams_down": sum(
                    one.since is not None for one in together(self._gateway.manifests.health, self._watch)
                ),
            }
        )
