"""Indexes that are none, at a running Waypost: a clear answer, nothing kept, nothing counted."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.clients.pulls import Waypost, upstreams
from tests.support.upstream import RawUpstream, sized

GOOD = {
    "helm": b"apiVersion: v1\nentries: {x: [{name: x, version: 1.0.0, urls: [https://dl.example/x]}]}\n",
    "cargo": b'{"dl": "https://dl.example/"}',
}
INDEX = {"helm": "/index.yaml", "cargo": "/config.json"}
FILE = {"helm": "/-/x-1.0.0.tgz", "cargo": "/api/v1/crates/x/1.0.0/download"}
# One byte more than is read of an index.
HUGE = b" " * (64 * 1024 * 1024 + 1)
BAD = {
    "a web page": sized(b"<!DOCTYPE html><title>Sign in</title>", b"Content-Type: text/html"),
    "nothing": sized(b""),
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nentries: {}",
    "gzip that is cut off": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    "huge": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(HUGE), HUGE),
    "an error": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "in circles": b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
    "elsewhere, to a private address": b"HTTP/1.1 302 Found\r\nLocation: https://10.0.0.1/\r\nContent-Length: 0\r\n\r\n",
}


class Upstream:
    def __init__(self) -> None:
        self.answer = b""
        self.raw = RawUpstream({"/": lambda connection, head: connection.sendall(self.answer)})


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    one = Upstream()
    yield one
    one.raw.close()


@pytest.fixture(scope="module")
def waypost(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Waypost]:
    """A domain for each type and each way to be bad, so that what one does to the next is not what is tested."""
    packages = "".join(
        f'[[package]]\ntype = "{kind}"\nname = "{kind}{number}"\ndomain = "{kind}{number}.example"\n'
        f'upstream = "https://{kind}{number}.upstream.example"\n'
        for kind in INDEX
        for number in range(len(BAD) + 1)
    )
    hosts = {f"{kind}{number}.upstream.example": upstream.raw.url for kind in INDEX for number in range(len(BAD) + 1)}
    config = 'base_domain = "waypost.example"\nowner = "acme"\n' + packages + upstreams(hosts)
    one = Waypost(tmp_path_factory.mktemp("waypost"), config)
    yield one
    one.server.stop()


@pytest.mark.parametrize("kind", INDEX)
@pytest.mark.parametrize("what", BAD)
def test_what_is_no_index_is_no_answer(waypost: Waypost, upstream: Upstream, kind: str, what: str) -> None:
    host = f"{kind}{list(BAD).index(what)}.example"
    upstream.answer = BAD[what]
    for path in (INDEX[kind], FILE[kind]):
        status, _, body = waypost.server.get(host, path)
        assert (status, len(json.loads(body)["errors"])) == (502, 1), body
    upstream.answer = sized(GOOD[kind])
    status, _, _ = waypost.server.get(host, INDEX[kind])
    assert status == 200, "a bad answer was kept"
    (event,) = waypost.take(1)
    assert (event["kind"], event["counted"], event["domain"]) == ("index-fetch", False, host)


@pytest.mark.parametrize("kind", INDEX)
def test_files_are_found_in_the_index_that_is_kept(waypost: Waypost, upstream: Upstream, kind: str) -> None:
    host = f"{kind}{len(BAD)}.example"
    upstream.answer = sized(GOOD[kind])
    waypost.server.get(host, INDEX[kind])
    upstream.answer = BAD["an error"]
    status, headers, _ = waypost.server.get(host, FILE[kind])
    assert (status, headers["location"].partition("/x")[0]) == (307, "https://dl.example")
    waypost.take(2)
