"""What answers of an upstream say about how it serves others."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.support.server import free_port
from tests.support.upstream import RawUpstream, says, sized

from waypost.upstream.client import Client
from waypost.upstream.declared import Declared, by_host
from waypost.upstream.health import FAILURES, Health
from waypost.upstream.probe import Prober
from waypost.upstream.watch import Pace, Watch

HOST = "deb.example"
URL = f"https://{HOST}/debian/"


def probed(connect: str | None, url: str = URL, host: str = HOST) -> Any:
    """What is known of an upstream after it was asked as often as it takes. None: nothing."""

    async def look() -> Any:
        watch = Watch(time.monotonic, Pace(every=0.0), lambda: 0.0)
        declared = [] if connect is None else [Declared(host=HOST, connect=connect)]
        client = Client(by_host(declared))
        prober = Prober(client, Health(time.monotonic), watch)
        watch.want({host: url})
        for _ in range(FAILURES):
            await prober.look()
        await client.close()
        assert prober.asked == FAILURES
        standings = watch.standings()
        return None if not standings else "up" if standings[0].since is None else standings[0].why

    return asyncio.run(look())


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (b"200 OK", "up"),
        (b"301 Moved Permanently", "up"),
        (b"403 Forbidden", "up"),
        (b"404 Not Found", "up"),
        (b"405 Method Not Allowed", "up"),
        (b"429 Too Many Requests", None),
        (b"500 Internal Server Error", "answers 500."),
        (b"503 Service Unavailable", "answers 503."),
    ],
)
def test_what_is_no_failure_of_a_client_is_none_of_a_probe(status: bytes, found: str | None) -> None:
    upstream = RawUpstream({"/": says(sized(b"", b"Location: /", status=status))})
    try:
        assert probed(upstream.url) == found
        # HEAD of the root, and nothing of anybody in it.
        assert {head.split(b"\r\n")[0] for head in upstream.heads} == {b"HEAD /debian/ HTTP/1.1"}
        assert {b"Host: deb.example" in head for head in upstream.heads} == {True}
    finally:
        upstream.close()


def test_nobody_there() -> None:
    assert probed(f"http://127.0.0.1:{free_port()}") == "no connection."


def test_an_address_that_we_never_visit_says_nothing() -> None:
    assert probed(None, "https://127.0.0.1/debian/", "127.0.0.1") is None
