"""What the console's address answers, without a socket."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest

from waypost.console.app import STALE, application, not_ready
from waypost.data import DataDirectory
from waypost.events.standings import Standing, tell
from waypost.events.tally import Tally
from waypost.stores.store import InUse, Line, Stats, StoreError, Used


class Answering:
    """A store that notes what it is asked."""

    def __init__(self):
        self.asked = []
        self.error = None

    def stats(self, package, **question):
        self.asked.append((package, question))
        if self.error:
            raise self.error
        return Stats(question["by"], question["since_us"], question["until_us"], [], Line(None, 0, 0, 0, 0, 0), {})

    def in_use(self, package, *, since_us):
        self.asked.append((package, since_us))
        return InUse([Used("1.0", "sha256:a", 2, 3)], {"sha256:a": ["sha256:b"]})

    def last_cursor(self):
        return 42

    def events(self, after, limit):
        yield from [(after + 1, {"id": "a"}), (after + 2, {"id": "b"})][:limit]


class Console:
    def __init__(self, tmp_path):
        self.store = Answering()
        self.tallies = [Tally(), Tally()]
        data = self.data = DataDirectory(tmp_path)
        data.create()
        (data.spool / "segment").write_bytes(b"x" * 10)
        collecting = SimpleNamespace(stored=5, failures=1, last_success=time.time())
        self.app = application(self.store, collecting, data, "secret", self.tallies)

    def get(self, path, token="secret", **query):
        return asyncio.run(self._get(path, token, query))

    async def _get(self, path, token, query):
        sent = []
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "http",
            "query_string": urlencode(query).encode(), "http_version": "1.1", "server": ("127.0.0.1", 8081), "client": None,
            "headers": [(b"authorization", f"Bearer {token}".encode())] if token is not None else [],
        }  # fmt: skip

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        await self.app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


@pytest.fixture
def console(tmp_path):
    return Console(tmp_path)


QUESTION = {"since_us": 1, "until_us": 2}


def test_health(console):
    assert console.get("/healthz", token=None) == (200, "ok\n")


def test_ready_when_every_worker_tells(console):
    assert console.get("/readyz", token=None) == (503, "worker 0 has not started\nworker 1 has not started\n")
    for tally in console.tallies:
        tally.tell({"at_ms": time.time_ns() // 1_000_000})
    assert console.get("/readyz", token=None) == (200, "ready\n")
    console.tallies[1].tell({"at_ms": int((time.time() - STALE - 60) * 1000)})
    (sentence,) = not_ready(console.tallies)
    assert sentence.startswith("worker 1 has said nothing for 6")


def test_metrics_are_open_and_add_up(console):
    for number, tally in enumerate(console.tallies):
        tally.tell({"requests": 3 + number, "hosts": 7})
    status, text = console.get("/metrics", token=None)
    assert status == 200
    lines = text.splitlines()
    for line in (
        'waypost_requests_total{worker="0"} 3.0',
        'waypost_requests_total{worker="1"} 4.0',
        "waypost_hosts 7.0",
        "waypost_spool_bytes 10.0",
        "waypost_stored_total 5.0",
        "waypost_store_failures_total 1.0",
    ):
        assert line in lines


def test_metrics_show_upstreams_as_each_worker_has_found_them(console):
    folder = console.data.health
    tell(folder, 0, [Standing("ghcr.io"), Standing("quay.io", 1.0, "why")])
    tell(folder, 1, [Standing("quay.io")])
    lines = console.get("/metrics", token=None)[1].splitlines()
    assert [line for line in lines if line.startswith("waypost_upstream_up")] == [
        'waypost_upstream_up{host="ghcr.io",worker="0"} 1.0',
        'waypost_upstream_up{host="quay.io",worker="0"} 0.0',
        'waypost_upstream_up{host="quay.io",worker="1"} 1.0',
    ]


@pytest.mark.parametrize("path", ["/stats", "/events", "/in-use"])
@pytest.mark.parametrize("token", [None, "", "Secret", "secret ", "secretsecret", "sécret"])
def test_numbers_need_the_token(console, path, token):
    status, text = console.get(path, token, **QUESTION)
    assert (status, text.count("\n")) == (401, 1)
    assert console.store.asked == []


def test_stats_asks_the_store_what_was_asked(console):
    status, text = console.get("/stats", package="skates", by="version", everything="true", **QUESTION)
    assert (status, json.loads(text)["by"]) == (200, "version")
    assert console.store.asked == [("skates", {"since_us": 1, "until_us": 2, "by": "version", "everything": True})]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({}, "since_us"),
        ({"since_us": "x", "until_us": 2}, "since_us"),
        ({**QUESTION, "by": "colour"}, "by: found 'colour'; expected one of version"),
        ({**QUESTION, "everything": "perhaps"}, "everything"),
    ],
)
def test_questions_that_are_none(console, query, says):
    status, text = console.get("/stats", **query)
    assert status == 422
    assert says in text


def test_what_of_an_image_is_in_use(console):
    status, text = console.get("/in-use", package="acme/x", since_us=7)
    assert (status, json.loads(text)) == (
        200,
        {
            "used": [{"reference": "1.0", "digest": "sha256:a", "pulls": 2, "times": 3}],
            "indexes": {"sha256:a": ["sha256:b"]},
        },
    )
    assert console.store.asked == [("acme/x", 7)]
    assert console.get("/in-use", package="acme/x")[0] == 422


def test_a_store_in_trouble_is_said_to_be(console):
    console.store.error = StoreError("the disk is full")
    assert console.get("/stats", **QUESTION) == (503, "the disk is full\n")


def test_events_come_in_pages_with_cursors(console):
    status, text = console.get("/events", after="40")
    assert (status, json.loads(text)) == (200, {"events": [[41, {"id": "a"}], [42, {"id": "b"}]], "after": 42})
    assert console.get("/events", after="x")[0] == 422
    assert console.get("/events", after="-1")[0] == 422
    status, text = console.get("/events", after="end")
    assert (status, json.loads(text)) == (200, {"events": [], "after": 42})


def test_nothing_else_is_there(console):
    assert console.get("/")[0] == 404
    assert console.get("/docs")[0] == 404
