"""One gateway process: requests in, answers out, facts to the spool."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import uvloop

from waypost.artifacts.snapshot import Policy, SnapshotError
from waypost.events.identity import Identity
from waypost.events.spool import Spool
from waypost.events.tally import Tally
from waypost.gateway.address import TrustedProxies
from waypost.gateway.answer import Answer, refusal
from waypost.gateway.fetch import Upstreams, carry_out
from waypost.gateway.http1 import Server
from waypost.gateway.limits import Limits
from waypost.gateway.record import Recorder
from waypost.gateway.reload import CompiledHosts, SnapshotFile
from waypost.routing.decision import Fetch, Redirect, Refuse, Relay, Reply
from waypost.routing.request import Request
from waypost.routing.table import Table
from waypost.upstream.client import Client
from waypost.upstream.declared import Declared, by_host

if TYPE_CHECKING:
    from waypost.data import DataDirectory

logger = logging.getLogger("waypost")

SNAPSHOT_POLL: Final = 0.2  # seconds
TALLY_EVERY: Final = 1.0
DRAIN: Final = 10.0
BACKLOG: Final = 4096  # connections that wait to be accepted, as far as the kernel allows


class Gateway:
    """The application behind the protocol: decides, carries out, records. One per worker."""

    def __init__(
        self, hosts: CompiledHosts, policy: Policy, recorder: Recorder, spool: Spool, upstreams: Upstreams
    ) -> None:
        self._table = Table(hosts)
        self._recorder = recorder
        self._spool = spool
        self._upstreams = upstreams
        self.policy = policy
        self.redirects = 0
        self.refused = 0
        self.fetches = 0
        self.fetch_failures = 0

    def handle(self, request: Request, peer: str) -> Answer | Awaitable[Answer]:
        decision = self._table.decide(request)
        kind = type(decision)
        if kind is Redirect:
            return self._redirect(request, decision, peer)  # type: ignore[arg-type]
        if kind is Fetch:
            return self._fetch(request, decision, peer)  # type: ignore[arg-type]
        if kind is Reply:
            return self._reply(request, decision, peer)  # type: ignore[arg-type]
        self.refused += 1
        return _refuse(decision)  # type: ignore[arg-type]

    def before_write(self) -> None:
        self._spool.flush()

    def _redirect(self, request: Request, decision: Redirect, peer: str) -> Answer:
        self.redirects += 1
        if decision.facts:
            self._recorder.record(request, decision.facts, decision.status, peer)
        location = decision.location
        # RFC 9110 section 15.4: a short note with a link, for people who forgot `curl -L`.
        note = f"See {location}\nWith curl, add -L to follow.\n".encode("ascii")
        return Answer(
            decision.status, (("location", location), ("content-type", "text/plain"), *decision.headers), note
        )

    def _reply(self, request: Request, decision: Reply, peer: str) -> Answer:
        if decision.facts and decision.status < 400:
            self._recorder.record(request, decision.facts, decision.status, peer)
        return Answer(decision.status, decision.headers, decision.body)

    async def _fetch(self, request: Request, fetch: Fetch, peer: str) -> Answer:
        self.fetches += 1
        final, body = await carry_out(fetch, self._upstreams)
        if isinstance(final, Redirect):
            return self._redirect(request, final, peer)
        if isinstance(final, Reply):
            return self._reply(request, final, peer)
        if isinstance(final, Relay):
            if final.facts and final.status < 400:
                self._recorder.record(request, final.facts, final.status, peer)
            return Answer(final.status, final.headers, body)
        self.refused += 1
        if final.status >= 500:
            self.fetch_failures += 1
        return _refuse(final)

    def take(self, hosts: CompiledHosts, policy: Policy) -> None:
        """Another snapshot: routes at the next request, everything else likewise."""
        self._table = Table(hosts)
        self._recorder.trusted = TrustedProxies(policy.trusted_proxies)
        self._upstreams.declare(_declared(policy))
        self.policy = policy


def _refuse(decision: Refuse) -> Answer:
    return refusal(decision.status, decision.code, decision.message, decision.headers)


def _declared(policy: Policy) -> dict[str, Declared]:
    return by_host(Declared(host=row.host, connect=row.connect) for row in policy.upstreams)


def writer_name(number: int) -> str:
    """What segments of worker `number` are called after, in whichever life of it."""
    return f"worker{number}"


def run(number: int, workers: int, listening: socket.socket, data: DataDirectory, tally: Tally) -> None:
    """The life of worker `number` of `workers`, until SIGTERM."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(number, workers, listening, data, tally))


async def _serve(number: int, workers: int, listening: socket.socket, data: DataDirectory, tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)

    file = SnapshotFile(data.snapshot)
    snapshot = file.changed()
    assert snapshot is not None
    hosts = CompiledHosts(snapshot)
    policy = snapshot.policy
    spool = Spool(data.spool, writer_name(number), policy.spool_max_bytes // workers)
    identity = Identity(data.identity, policy.rotation)
    recorder = Recorder(spool, identity, TrustedProxies(policy.trusted_proxies))
    upstreams = Upstreams(Client(_declared(policy)))
    gateway = Gateway(hosts, policy, recorder, spool, upstreams)
    server = Server(gateway, Limits(), loop)
    server.is_proxy = lambda peer: recorder.trusted.trusts(peer)
    acceptor = await loop.create_server(server.protocol_factory, sock=listening, backlog=BACKLOG)
    state = _State(tally, server, gateway, recorder, spool, hosts)

    with ThreadPoolExecutor(1, "fsync") as disk:
        chores = [
            asyncio.create_task(_follow_snapshot(file, gateway, hosts, state)),
            asyncio.create_task(_sync(spool, gateway, disk)),
            asyncio.create_task(_tell(state)),
        ]
        await stop.wait()
        acceptor.close()
        await server.drain(DRAIN)
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
    await upstreams.close()
    spool.close()
    state.tell()


async def _follow_snapshot(file: SnapshotFile, gateway: Gateway, hosts: CompiledHosts, state: _State) -> None:
    while True:
        await asyncio.sleep(SNAPSHOT_POLL)
        try:
            snapshot = file.changed()
        except (OSError, SnapshotError) as error:
            logger.error("the new snapshot was not taken (%s); the one before keeps serving", error)
            continue
        if snapshot is not None:
            hosts.swap(snapshot)
            gateway.take(hosts, snapshot.policy)
            state.reloads += 1


async def _sync(spool: Spool, gateway: Gateway, disk: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(gateway.policy.fsync_ms / 1000)
        await loop.run_in_executor(disk, spool.sync)
        spool.tick()


async def _tell(state: _State) -> None:
    while True:
        state.tell()
        await asyncio.sleep(TALLY_EVERY)


class _State:
    """What this worker tells of itself each second."""

    def __init__(
        self, tally: Tally, server: Server, gateway: Gateway, recorder: Recorder, spool: Spool, hosts: CompiledHosts
    ) -> None:
        self._tally = tally
        self._server = server
        self._gateway = gateway
        self._recorder = recorder
        self._spool = spool
        self._hosts = hosts
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
            "fetches": self._gateway.fetches,
            "fetch_failures": self._gateway.fetch_failures,
            "reloads": self.reloads,
        }
        self._tally.tell({name: self._before[name] + value for name, value in now.items()})
        self._tally.tell(
            {
                "at_ms": time.time_ns() // 1_000_000,
                "connections": len(self._server.connections),
                "hosts": len(self._hosts),
            }
        )
