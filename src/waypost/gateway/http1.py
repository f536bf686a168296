"""The HTTP/1 server: connections, their order of events, and the one way out.

Every answer leaves by `Server.flush`, which runs at most once per turn of the event loop: it lets the
application write what must be safe first (its spool), then writes what each connection has ready. So an
answer never leaves before its record, and a thousand answers cost one write of each.

A connection handles one request after the other. A pipelined request is read when the one before it is
answered, which keeps answers in order and what one client can queue small.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Protocol

from waypost.gateway.answer import Answer
from waypost.gateway.connection import Http1, report
from waypost.gateway.head import HeadReader
from waypost.gateway.limits import Limits
from waypost.routing.request import Request

__all__ = ["Application", "Counters", "Http1", "Server"]

# How often, in seconds, draining looks for connections that have become idle.
_DRAIN_STEP = 0.05


class Application(Protocol):
    """What answers requests."""

    def handle(self, request: Request, peer: str) -> Answer | Awaitable[Answer]:
        """The answer, at once where it can be. Should not raise: if it does, the client gets 500."""
        ...

    def before_write(self) -> None:
        """Called before answers leave: once for all answers of a turn of the event loop."""
        ...


class Counters:
    """What has happened since the worker started."""

    __slots__ = ("accepted", "requests", "stalled", "turned_away", "unacceptable")

    def __init__(self) -> None:
        self.accepted = 0  # connections
        self.turned_away = 0  # connections beyond a limit
        self.requests = 0  # whole requests, given to the application
        self.unacceptable: dict[int, int] = {}  # requests refused here, by status
        self.stalled = 0  # connections aborted because the client took nothing


class Server:
    """All connections of one worker. Listening is the caller's: give `protocol_factory` to the loop."""

    def __init__(self, app: Application, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.limits = limits
        self.loop = loop
        self.counters = Counters()
        self.connections: set[Http1] = set()
        self.draining = False
        self.heads = HeadReader(limits)
        # A proxy that we trust brings many clients; only the bound on all connections holds for it.
        self.is_proxy: Callable[[str], bool] = lambda peer: False
        self._per_peer: dict[str, int] = {}
        self._ready: list[Http1] = []
        self._sweep()

    def protocol_factory(self) -> Http1:
        return Http1(self)

    async def drain(self, seconds: float) -> None:
        """Let requests under way finish, with `Connection: close`; abort what is left after `seconds`."""
        self.draining = True
        deadline = self.loop.time() + seconds
        while self.connections and self.loop.time() < deadline:
            for connection in list(self.connections):
                connection.close_if_idle()
            await asyncio.sleep(_DRAIN_STEP)
        tasks = [connection.task for connection in self.connections if connection.task is not None]
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)  # those aborted hear of it in the next turn
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        self._timer.cancel()

    def admit(self, connection: Http1, peer: str) -> bool:
        """Whether there is room for one more connection; counts it if so."""
        key = _peer_key(peer)
        count = self._per_peer.get(key, 0)
        limits = self.limits
        crowded = count >= limits.connections_per_peer and not self.is_proxy(peer)
        if crowded or len(self.connections) >= limits.connections:
            self.counters.turned_away += 1
            return False
        self._per_peer[key] = count + 1
        self.connections.add(connection)
        self.counters.accepted += 1
        return True

    def dismiss(self, connection: Http1, peer: str) -> None:
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        key = _peer_key(peer)
        count = self._per_peer.pop(key) - 1
        if count:
            self._per_peer[key] = count

    def schedule(self, connection: Http1) -> None:
        """Have this connection written with the others of this turn."""
        if not self._ready:
            self.loop.call_soon(self.flush)
        self._ready.append(connection)

    def flush(self) -> None:
        ready, self._ready = self._ready, []
        try:
            self.app.before_write()
        except Exception as error:
            # What the application could not keep must not keep clients from their answers.
            report("the application failed before a write", error)
        for connection in ready:
            connection.write_ready()

    def _sweep(self) -> None:
        """The one timer: Date, and the deadlines of all connections."""
        self._timer = self.loop.call_later(self.limits.sweep_seconds, self._sweep)
        now = self.loop.time()
        self.date = f"Date: {formatdate(time.time(), usegmt=True)}\r\n"
        self.idle_deadline = now + self.limits.idle_seconds
        for connection in list(self.connections):
            if connection.deadline <= now or connection.stall_deadline <= now:
                connection.expire(now)


def _peer_key(peer: str) -> str:
    """Whom a connection is counted for. Whoever has one IPv6 address has its whole /64."""
    if ":" not in peer:
        return peer
    return str(ipaddress.IPv6Network((peer, 64), strict=False).network_address)
