"""Upstreams that lie, stop, or never end. The client gets an error that names them, or sees the connection break."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from tests.support.server import WaypostServer, until
from tests.support.upstream import RawUpstream, Script, says, sized

MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + "a" * 64, "size": 2},
        "layers": [],
    }
).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
TYPE = b"Content-Type: application/vnd.oci.image.manifest.v1+json"
OK = b"HTTP/1.1 200 OK\r\n"
MIB = 1024 * 1024


def reset(connection: socket.socket, head: bytes) -> None:
    connection.sendall(OK + b"Content-Length: 1000000\r\n\r\nabc")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def endless(start: bytes, piece: bytes) -> Script:
    """Goes on until we have enough of it."""

    def script(connection: socket.socket, head: bytes) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)

    return script


def redirect(location: bytes) -> Script:
    return says(sized(b"", b"Location: " + location, status=b"307 Temporary Redirect"))


def realm(url: bytes) -> Script:
    return says(sized(b"", b'WWW-Authenticate: Bearer realm="%s",service="s"' % url, status=b"401 Unauthorized"))


# What is answered when a manifest is asked for by tag; all of it ends in 502.
LIES: dict[str, Script] = {
    "shorter-than-it-said": says(OK + b"Content-Length: 100000\r\n\r\n" + MANIFEST),
    "longer-than-it-said": says(OK + b"Content-Length: 10\r\n\r\n" + MANIFEST),
    "two-lengths": says(OK + b"Content-Length: %d\r\nContent-Length: 5\r\n\r\n" % len(MANIFEST) + MANIFEST),
    "chunks-of-garbage": says(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nfoo"),
    "chunks-cut-off": says(OK + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n'),
    "reset": reset,
    "silence": lambda connection, head: None,
    "no-http": says(MANIFEST),
    "endless-headers": endless(OK, b"X-Y: z\r\n" * 1000),
    "endless-body": endless(OK + TYPE + b"\r\n\r\n", b" " * MIB),
    "html": says(sized(b"<html>log in</html>", b"Content-Type: text/html")),
    "nothing": says(sized(b"", TYPE)),
    "no-object": says(sized(b"[]", TYPE)),
    "no-bottom": says(sized(b"[" * MIB, TYPE)),
    "zipped": says(sized(gzip.compress(MANIFEST), TYPE, b"Content-Encoding: gzip")),
    "other-digest": says(sized(MANIFEST, TYPE, b"Docker-Content-Digest: sha256:" + b"0" * 64)),
    "a-part": says(sized(MANIFEST[:50], TYPE, b"Content-Range: bytes 0-49/300", status=b"206 Partial Content")),
    "not-modified": says(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "no-content": says(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "switching": says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + MANIFEST),
    "status-999": says(sized(MANIFEST, TYPE, status=b"999 Odd")),
    "control-bytes": says(sized(MANIFEST, TYPE, b'ETag: "a\x0bb"')),
    "bare-cr": says(sized(MANIFEST, TYPE, b'ETag: "a\rX-Evil: b"')),
    "circles": redirect(b"/v2/acme/circles/manifests/1"),
    "inwards": redirect(b"http://169.254.169.254/v2/acme/x/manifests/1"),
    "inwards-by-name": redirect(b"https://localhost/v2/acme/x/manifests/1"),
    "inwards-as-number": redirect(b"https://2130706433/v2/acme/x/manifests/1"),
    "inwards-as-hex": redirect(b"https://0x7f.1/v2/acme/x/manifests/1"),
    "inwards-mapped": redirect(b"https://[::ffff:127.0.0.1]/v2/acme/x/manifests/1"),
    "elsewhere-as-somebody": redirect(b"https://user:word@quay.example/v2/acme/x/manifests/1"),
    "realm-inwards": realm(b"https://10.0.0.1/token"),
    "realm-by-name": realm(b"https://localhost/token"),
    "realm-that-is-none": realm(b"file:///etc/passwd"),
}
# Odd, but whole and right: served, and nothing of it that is not ours to pass on.
TRUTHS: dict[str, Script] = {
    "plain": says(sized(MANIFEST, TYPE)),
    "no-length": says(OK + TYPE + b"\r\n\r\n" + MANIFEST),
    "cookies": says(sized(MANIFEST, TYPE, b"Set-Cookie: a=b", b"Keep-Alive: timeout=9", b"X-Foo: 1", b"Via: x")),
    "utf-8": says(sized(MANIFEST, TYPE, 'ETag: "ü☃"'.encode())),
    "folded": says(sized(MANIFEST, TYPE, b'ETag: "a\r\n X-Evil: b"')),
}
# Bodies that break off in the middle of a blob.
BROKEN: dict[str, Script] = {
    "blob-reset": reset,
    "blob-short": says(OK + b"Content-Length: 1000000\r\n\r\n" + b"a" * 5000),
    "blob-cut-off": says(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\naaaaa\r\n"),
}
BLOB = 256 * MIB


class Flood:
    """A large blob, made as it is sent; `sent` is how much of it left."""

    def __init__(self) -> None:
        self.sent = 0
        self.cut = threading.Event()

    def __call__(self, connection: socket.socket, head: bytes) -> bool:
        connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % BLOB)
        if head.startswith(b"HEAD "):
            return True
        self.sent = 0
        self.cut.clear()
        try:
            for _ in range(BLOB // 65536):
                connection.sendall(b"x" * 65536)
                self.sent += 65536
        except OSError:
            self.cut.set()
        return not self.cut.is_set()


FLOOD = Flood()


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    scripts = {**LIES, **TRUTHS, **BROKEN, "flood": FLOOD}
    one = RawUpstream({f"/v2/acme/{name}/": script for name, script in scripts.items()})
    yield one
    one.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: RawUpstream) -> Iterator[WaypostServer]:
    packages = "".join(
        f'[[package]]\ntype = "container"\nname = "acme/{name}"\ndomain = "d.example"\nupstream = "raw.example/acme/{name}"\n'
        for name in (*LIES, *TRUTHS, *BROKEN, "flood")
    )
    config = (
        f'base_domain = "waypost.example"\n[[upstream]]\nhost = "raw.example"\nconnect = "{upstream.url}"\n{packages}'
    )
    one = WaypostServer(tmp_path_factory.mktemp("waypost"), config, workers=1).start()
    yield one
    one.stop()


@pytest.fixture(autouse=True)
def health(server: WaypostServer, upstream: RawUpstream) -> Iterator[None]:
    """Whatever happened: the same worker serves on, and holds no connection to the upstream that has not ended well."""
    before = server.children()
    yield
    assert server.get("d.example", "/v2/acme/plain/tags/list")[0] == 200  # lists are never kept
    until(lambda: not upstream.open, what="connections to the upstream to be closed")
    assert server.children() == before


def asks(server: WaypostServer, name: str, method: str = "GET") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.sendall(f"{method} /v2/acme/{name}/blobs/{DIGEST} HTTP/1.1\r\nHost: d.example\r\n\r\n".encode())
    return client


def memory(server: WaypostServer) -> int:
    """The worker's largest resident set, in bytes."""
    with open(f"/proc/{server.children()[1]}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_a_502_that_names_the_upstream(server: WaypostServer, upstream: RawUpstream, name: str) -> None:
    status, headers, body = server.get("d.example", f"/v2/acme/{name}/manifests/1")
    (error,) = json.loads(body)["errors"]
    assert (status, headers["Content-Type"]) == (502, "application/json")
    assert error["code"].startswith("UPSTREAM_")
    assert error["message"].startswith("The upstream ")
    assert upstream.url.removeprefix("http://") not in error["message"]


@pytest.mark.parametrize("name", TRUTHS)
def test_an_odd_truth_is_served_without_what_is_not_ours_to_pass_on(server: WaypostServer, name: str) -> None:
    status, headers, body = server.get("d.example", f"/v2/acme/{name}/manifests/1")
    assert (status, body) == (200, MANIFEST)
    assert {line.lower() for line in headers} <= {
        "date", "content-type", "content-length", "docker-content-digest", "etag", "age", "cache-status",
    }  # fmt: skip


def test_only_truths_are_recorded(server: WaypostServer) -> None:
    for name in (*LIES, *TRUTHS):
        if name not in ("endless-body", "circles"):
            server.get("d.example", f"/v2/acme/{name}/manifests/1", headers={"User-Agent": "census"})

    def recorded() -> set[str]:
        events = map(json.loads, server.command("events").splitlines())
        return {event["package"].removeprefix("acme/") for event in events if event["user_agent"] == "census"}

    until(lambda: recorded() >= set(TRUTHS), what="the events")
    assert recorded() == set(TRUTHS)


@pytest.mark.parametrize("name", BROKEN)
def test_a_blob_that_breaks_off_breaks_the_clients_connection(server: WaypostServer, name: str) -> None:
    with asks(server, name) as client, pytest.raises(ConnectionResetError):
        while client.recv(65536):
            pass


def test_nothing_about_the_client_reaches_an_upstream(server: WaypostServer, upstream: RawUpstream) -> None:
    marked = dict.fromkeys(("Authorization", "Proxy-Authorization", "Cookie", "X-Forwarded-For", "Forwarded", "X-Real-IP", "Referer", "User-Agent", "X-Registry-Auth", "Origin"), "marked")  # fmt: skip
    upstream.heads.clear()
    for what in ("manifests/never-asked-before", "tags/list", f"blobs/{DIGEST}", f"referrers/{DIGEST}"):
        server.get("d.example", f"/v2/acme/plain/{what}", headers=marked)
    assert len(upstream.heads) == 5  # the config of the image, too
    assert not [head for head in upstream.heads if b"marked" in head]


def test_a_large_blob_passes_without_being_kept(server: WaypostServer) -> None:
    with asks(server, "flood", "HEAD") as client:
        assert b"Content-Length: %d\r\n" % BLOB in client.recv(4096)
    before = memory(server)
    with asks(server, "flood") as client:
        got = 0
        while got < BLOB:
            got += len(client.recv(MIB))
    assert memory(server) - before < 32 * MIB


def test_a_slow_client_holds_its_upstream_back_and_a_lost_one_lets_it_go(server: WaypostServer) -> None:
    before = memory(server)
    with asks(server, "flood") as client:
        for _ in range(20):
            assert client.recv(65536)
        seen = -1

        def stands_still() -> bool:
            nonlocal seen
            same, seen = seen == FLOOD.sent, FLOOD.sent
            threading.Event().wait(0.3)
            return same

        until(stands_still, what="the upstream to be held back")
        assert FLOOD.sent < BLOB / 4
    assert FLOOD.cut.wait(10)
    assert memory(server) - before < 32 * MIB


def test_streams_end_with_the_drain_and_everything_is_gone(tmp_path, upstream: RawUpstream) -> None:
    """SIGTERM while a hundred clients stand in the middle of a blob: they hear of it, and nobody is left behind."""
    config = f"""
        base_domain = "waypost.example"
        [[upstream]]
        host = "raw.example"
        connect = "{upstream.url}"
        [[package]]
        type = "container"
        name = "acme/flood"
        domain = "d.example"
        upstream = "raw.example/acme/flood"
    """
    other = WaypostServer(tmp_path, config, workers=2).start()
    children = other.children()
    with contextlib.ExitStack() as open_ones:
        clients = [open_ones.enter_context(asks(other, "flood")) for _ in range(100)]
        for client in clients:
            assert client.recv(4096).startswith(OK)
        # A reload in between touches none of them.
        other.configure(config + "\n# edited\n")
        until(lambda: other.metric("waypost_reloads_total") >= 2, what="the reload")
        stopping = threading.Thread(target=other.stop)
        stopping.start()
        with pytest.raises(ConnectionError):  # not: to wait in a queue that nobody will ever serve
            while True:
                socket.create_connection(("127.0.0.1", other.port), timeout=20).close()
        assert clients[0].recv(MIB)
        stopping.join(30)
        for client in clients:
            with pytest.raises(ConnectionResetError):
                while client.recv(MIB):
                    pass
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)
    assert b"did not end in time" not in other.log.read_bytes()
