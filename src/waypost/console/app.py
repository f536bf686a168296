"""What the console's address answers: health, metrics, and numbers for `waypost stats` and `waypost events`."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from waypost.console.question import END, PAGE, ImageQuestion, Page, Question
from waypost.events.standings import told
from waypost.events.tally import COUNTERS, Tally
from waypost.stores.store import Store, StoreError

if TYPE_CHECKING:
    from waypost.data import DataDirectory

STALE = 5.0  # seconds after which a worker that said nothing is not ready


class Collecting(Protocol):
    """What the collecting thread tells of itself."""

    stored: int
    failures: int
    last_success: float


def application(
    store: Store, collecting: Collecting, data: DataDirectory, token: str, tallies: Sequence[Tally]
) -> Starlette:
    """`token` opens the numbers; health and metrics are open to whoever reaches the address."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Exposition(collecting, data, tallies))

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        missing = list(not_ready(tallies))
        return PlainTextResponse("\n".join([*missing, ""]) or "ready\n", 503 if missing else 200)

    async def metrics(request: Request) -> Response:
        text = await run_in_threadpool(generate_latest, registry)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def asking(kind: type[Question | ImageQuestion]) -> Callable[[Request], Awaitable[Response]]:
        async def ask(request: Request) -> Response:
            if not _may_ask(request, token):
                return _forbidden()
            try:
                question = msgspec.convert(dict(request.query_params), kind, strict=False)
            except msgspec.ValidationError as error:
                return PlainTextResponse(f"{error}\n", 422)
            return await _numbers(lambda: question.ask(store))

        return ask

    async def events(request: Request) -> Response:
        if not _may_ask(request, token):
            return _forbidden()
        after = request.query_params.get("after", "0")
        if after != END and not (after.isascii() and after.isdigit()):
            return PlainTextResponse("after: expected a whole number, a cursor from the page before, or end\n", 422)
        return await _numbers(lambda: _page(store, after))

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/stats", asking(Question)),
            Route("/events", events),
            Route("/in-use", asking(ImageQuestion)),
        ]
    )


def _may_ask(request: Request, token: str) -> bool:
    return hmac.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {token}".encode())


def _forbidden() -> Response:
    return PlainTextResponse(
        "numbers are for `waypost stats` and other commands on the machine of the server\n",
        401,
        {"WWW-Authenticate": "Bearer"},
    )


def not_ready(tallies: Sequence[Tally]) -> Iterator[str]:
    """Sentences about workers that do not serve."""
    for number, tally in enumerate(tallies):
        silent = time.time() - tally["at_ms"] / 1000
        if not tally["at_ms"]:
            yield f"worker {number} has not started"
        elif silent > STALE:
            yield f"worker {number} has said nothing for {silent:.0f} s"


def _page(store: Store, after: str) -> Page:
    if after == END:
        return Page([], store.last_cursor())
    found = list(store.events(int(after), limit=PAGE))
    return Page(found, found[-1][0] if found else int(after))


async def _numbers(ask: Callable[[], Any]) -> Response:
    try:
        answer = await run_in_threadpool(ask)
    except StoreError as error:
        return PlainTextResponse(f"{error}\n", 503)
    return Response(msgspec.json.encode(answer), media_type="application/json")


# Of what workers tell of their state, what is shown for each: name → help text.
GAUGES = {
    "connections": "Open client connections.",
    "upstreams_down": "Upstreams that are asked last now, since they fail.",
}


class Exposition:
    """Prometheus metrics, gathered when they are asked for."""

    def __init__(self, collecting: Collecting, data: DataDirectory, tallies: Sequence[Tally]) -> None:
        self._collecting = collecting
        self._data = data
        self._tallies = tallies

    def collect(self) -> Iterable[Metric]:
        for name, help_text in COUNTERS.items():
            counter = CounterMetricFamily(f"waypost_{name}", help_text, labels=["worker"])
            for number, tally in enumerate(self._tallies):
                counter.add_metric([str(number)], tally[name])
            yield counter
        for name, help_text in GAUGES.items():
            gauge = GaugeMetricFamily(f"waypost_{name}", help_text, labels=["worker"])
            for number, tally in enumerate(self._tallies):
                gauge.add_metric([str(number)], tally[name])
            yield gauge
        up = GaugeMetricFamily(
            "waypost_upstream_up", "Whether an upstream is up (1) or asked last (0).", labels=["worker", "host"]
        )
        for number, standings in told(self._data.health).items():
            for one in standings:
                up.add_metric([str(number), one.host], int(one.down_since is None))
        yield up
        hosts = max(tally["hosts"] for tally in self._tallies)
        yield GaugeMetricFamily("waypost_hosts", "Hosts of the snapshot in use.", hosts)
        waiting = 0
        for segment in self._data.spool.glob("*"):
            try:
                waiting += segment.stat().st_size
            except FileNotFoundError:
                continue  # collected in between
        yield GaugeMetricFamily(
            "waypost_spool_bytes", "Bytes of segments in the spool, stored ones not yet removed included.", waiting
        )
        yield CounterMetricFamily(
            "waypost_stored", "Events stored since the console process started.", self._collecting.stored
        )
        yield CounterMetricFamily(
            "waypost_store_failures", "Times that storing failed and was put off.", self._collecting.failures
        )
        yield GaugeMetricFamily(
            "waypost_store_age_seconds",
            "Seconds since the collector last worked without failing.",
            time.time() - self._collecting.last_success,
        )
