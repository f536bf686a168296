"""Python indexes that lie, stop, or never end: a declared project is then 503, and nothing is kept or counted."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest
from tests.support.server import WaypostServer
from tests.support.upstream import RawUpstream, Script, says, sized

OK = b"HTTP/1.1 200 OK\r\n"
HTML = b"Content-Type: text/html"
JSON = b"Content-Type: application/vnd.pypi.simple.v1+json"
PAGE = b'<html><body><a href="/files/skates-1.0.tar.gz#sha256=ab">skates-1.0.tar.gz</a></body></html>'
TOLD = json.dumps({"meta": {"api-version": "1.0"}, "name": "x", "files": []}).encode()


def moved(location: bytes) -> Script:
    return says(sized(b"", b"Location: " + location, status=b"302 Found"))


LIES: dict[str, Script] = {
    "error-page": says(sized(b"<html><body>Sorry. <a href='/'>Home</a></body></html>", HTML)),
    "nothing": says(sized(b"", HTML)),
    "shorter-than-it-said": says(OK + HTML + b"\r\nContent-Length: 100000\r\n\r\n" + PAGE),
    "chunks-cut-off": says(OK + HTML + b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<html\r\n"),
    "gzip-cut-off": says(sized(gzip.compress(PAGE)[:-9], HTML, b"Content-Encoding: gzip")),
    "gzip-that-is-none": says(sized(PAGE, HTML, b"Content-Encoding: gzip")),
    "gzip-that-grows": says(sized(gzip.compress(bytes(64 << 20)), HTML, b"Content-Encoding: gzip")),
    "coded": says(sized(PAGE, HTML, b"Content-Encoding: br")),
    "too-much": says(sized(PAGE * (50 * 1024 * 1024 // len(PAGE)), HTML)),
    "half-a-tag": says(sized(b"<a " * 1_000_000, HTML)),
    "half-a-comment": says(sized(b"<!-- " * 1_000_000, HTML)),
    "no-bottom": says(sized(b'{"meta":' + b"[" * 1_000_000, JSON)),
    "half-json": says(sized(TOLD[:-1], JSON)),
    "another-api": says(sized(TOLD.replace(b'"1.0"', b'"2.0"'), JSON)),
    "html-as-json": says(sized(PAGE, JSON)),
    "a-part": says(sized(PAGE[:50], HTML, b"Content-Range: bytes 0-49/90", status=b"206 Partial Content")),
    "no-content": says(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "not-modified": says(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "forbidden": says(sized(PAGE, HTML, status=b"403 Forbidden")),
    "broken": says(sized(PAGE, HTML, status=b"500 Oops")),
    "circles": moved(b"/circles/"),
    "inwards": moved(b"http://169.254.169.254/simple/x/"),
    "as-somebody": moved(b"https://user:word@pypi.example/simple/x/"),
}
FINE: dict[str, Script] = {
    "fine": says(sized(PAGE, HTML)),
    "zipped": says(sized(gzip.compress(PAGE), HTML, b"Content-Encoding: gzip")),
    "moved": moved(b"/fine/"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WaypostServer]:
    upstream = RawUpstream({f"/{name}/": script for name, script in (LIES | FINE).items()})
    config = 'base_domain = "waypost.example"\nowner = "acme"\n'
    for name in LIES | FINE:
        # Each is an upstream of its own, since two failures in a row close one.
        host = f"{name}.example"
        config += f'[[package]]\ntype = "python"\nname = "{name}"\nupstream = "http://{host}/"\n'
        config += f'[[upstream]]\nhost = "{host}"\nconnect = "{upstream.url}"\n'
    one = WaypostServer(tmp_path_factory.mktemp("indexes"), config, workers=1)
    try:
        yield one.start()
    finally:
        one.stop()
        upstream.close()


def get(server: WaypostServer, path: str) -> tuple[int, dict[str, str], bytes]:
    status, headers, body = server.get("acme.gateway.waypost.example", path)
    return status, {name.lower(): value for name, value in headers.items()}, body


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_a_503_and_is_not_kept(server: WaypostServer, name: str) -> None:
    for path in ("", "skates-1.0.tar.gz", "skates-1.0.tar.gz.metadata"):
        status, headers, body = get(server, f"/simple/{name}/{path}")
        assert (status, headers["content-type"]) == (503, "application/json"), body
        assert json.loads(body)["errors"][0]["message"]
    assert server.metric("waypost_page_hits_total") == 0


@pytest.mark.parametrize("name", FINE)
def test_the_truth_is_served(server: WaypostServer, name: str) -> None:
    status, _, body = get(server, f"/simple/{name}/")
    assert (status, f"/simple/{name}/skates-1.0.tar.gz#sha256=ab".encode() in body) == (200, True)
    status, headers, _ = get(server, f"/simple/{name}/skates-1.0.tar.gz")
    assert (status, headers["location"]) == (307, f"http://{name}.example/files/skates-1.0.tar.gz")


def test_only_the_truth_is_recorded(server: WaypostServer) -> None:
    server.stop()
    said = {line.split(",")[0] for line in server.command("stats", "--format", "csv").splitlines()[1:]}
    assert said == set(FINE)
