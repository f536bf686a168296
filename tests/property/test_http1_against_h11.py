"""Our reading of requests against h11's: an implementation that shares nothing with ours."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.gateway.answer import Answer
from waypost.gateway.http1 import Http1, Server
from waypost.gateway.limits import Limits
from waypost.routing.request import Request

CASES = tomllib.loads((Path(__file__).parents[1] / "golden/http1/hostile.toml").read_text("utf-8"))["case"]

# (method, target, host, headers without Host, body)
Seen = tuple[str, str, str, list[tuple[str, str]], bytes]


class Loop:
    """As much of an event loop as a connection without tasks needs."""

    def __init__(self) -> None:
        self.soon: list = []

    def time(self) -> float:
        return 0.0

    def call_later(self, *_: object) -> None:
        return None

    def call_soon(self, callback) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        while self.soon:
            self.soon.pop(0)()


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.ended = False

    def get_extra_info(self, name: str) -> object:
        return ("192.0.2.1", 1) if name == "peername" else None

    def write(self, data: bytes) -> None:
        assert not self.ended
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    close = abort = write_eof


class Application:
    def __init__(self) -> None:
        self.requests: list[Request] = []

    def handle(self, request: Request, peer: str) -> Answer:
        self.requests.append(request)
        return Answer(200)

    def before_write(self) -> None:
        pass


def ours(pieces: list[bytes]) -> tuple[list[Seen], list[int], bool]:
    """What the application was given, the final statuses that the client got, and whether it was cut off."""
    app, loop, transport = Application(), Loop(), Transport()
    connection = Http1(Server(app, Limits(), loop))
    connection.connection_made(transport)
    for piece in pieces:
        connection.data_received(piece)
        loop.turn()
    seen = [
        (r.method, r.target, r.host, [plain(item) for item in r.headers if item[0] != "host"], r.body)
        for r in app.requests
    ]
    statuses = [int(status) for status in re.findall(rb"^HTTP/1.1 (\d+)", transport.written, re.MULTILINE)]
    return seen, [status for status in statuses if status != 100], transport.ended


def plain(header: tuple[str, str]) -> tuple[str, str]:
    """h11 writes the one transfer coding that it knows in lower case."""
    name, value = header
    return (name, value.lower()) if name == "transfer-encoding" else header


def theirs(raw: bytes) -> tuple[list[Seen], str]:
    """The same by h11, and how it ended: refuses, waits, or ends.

    h11 knows no empty line before a request, which RFC 9112 section 2.2 wants passed over: one is taken away
    for it. This is the one thing that we take and h11 does not.
    """
    seen: list[Seen] = []
    while raw := raw.removeprefix(b"\r\n"):
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=256 * 1024)
        connection.receive_data(raw)
        head, body = None, b""
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    return seen, "waits" if connection.trailing_data[0] or head else "ends"
                if isinstance(event, h11.Request):
                    head = event
                else:
                    assert isinstance(event, h11.Data)
                    body += bytes(event.data)
        except h11.RemoteProtocolError:
            return seen, "refuses"
        assert head is not None
        headers = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
        host = next((value for name, value in headers if name == "host"), "")
        rest = [item for item in headers if item[0] != "host"]
        seen.append((head.method.decode(), head.target.decode(), host, rest, body))
        # An answer that takes up no upgrade, so that h11 says whether it would go on.
        connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            break
        raw = connection.trailing_data[0]
    return seen, "ends"


def reduced(seen: Seen) -> Seen:
    """What h11 saw, with an absolute target reduced and the host written as we write it."""
    method, target, host, headers, body = seen
    absolute = re.fullmatch(r"(?i:https?)://([^/?]*)(/?)(.*)", target)
    if absolute:
        host = absolute[1]
        target = "/" + absolute[3]
    host = re.sub(r":[0-9]*$", "", host.lower()).removesuffix(".")
    return method, target, host, headers, body


def bytes_of(case: dict) -> bytes:
    return case["send"].replace("§", "a" * case.get("fill", 0)).encode("latin-1")


def pieces_of(raw: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return [raw[a:b] for a, b in pairwise(bounds) if a < b]


# What we refuse and h11 does not: each with how to recognise it in the stream.
BEYOND_H11 = {
    "obs-fold, in headers and trailers": rb"\r\n[ \t]",
    "bare LF": rb"(?<!\r)\n",
    "bare CR": rb"\r(?!\n)",
    "control bytes": rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]",
    "a second empty line before a request": rb"^(\r\n){2}|\r\n\r\n\r\n",
    "a repeated or listed Content-Length": (rb"(?is)\ncontent-length:.*\ncontent-length:|\ncontent-length:[^\r]*,"),
    "a Content-Length of 20 digits": rb"(?i)content-length:\s*[0-9]{20}",
    "Content-Length with Transfer-Encoding": rb"(?is)(?=.*\ncontent-length:).*\ntransfer-encoding:",
    "Transfer-Encoding in HTTP/1.0": rb"(?is)HTTP/1.0\r\n.*\ntransfer-encoding:",
    "blanks and more than 16 digits in chunk sizes": rb"(?i)\n[0-9a-f]{17}|\n[0-9a-f]+(;[^\r\n]*)?[ \t]+\r\n",
    "versions other than 1.0 and 1.1": rb" HTTP/(?!1\.[01]\r)[0-9]\.[0-9]\r\n",
    "methods other than those of RFC 9110 and PATCH": (
        rb"(?:^|\n|[^A-Z])(?!(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|TRACE|PATCH) )"
        rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+ [^ ]+ HTTP/"
    ),
    "targets that are neither a path nor an http URL with a plain authority": (
        rb" (?!/|(?i:https?)://[A-Za-z0-9._-]+(:[0-9]*)?[/? ]|(?i:https?)://\[)[^ \r\n]* HTTP/"
    ),
    "fragments": rb"#[^ \r\n]* HTTP/",
    "hosts that are no plain name or address": (
        rb"(?i)\nhost:[ \t]*(?!(?:[a-z0-9_-]+\.)*[a-z0-9_-]+\.?(?::[0-9]{0,5})?[ \t]*\r)"
    ),
    "expectations other than 100-continue": rb"(?i)\nexpect:[ \t]*(?!100-continue[ \t]*\r)",
    "repeated expectations": rb"(?is)\nexpect:.*\nexpect:",
    "limits on lines, headers, extensions and bodies": rb"[^\r\n]{1500}",
}

HEADERS = st.sampled_from(
    [
        b"X: y",
        b"X-Empty:",
        b"Accept:  a/b \t",
        b"Accept: c/d",
        b"User-Agent: \xe9\xff",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: x, CLOSE",
        b"Upgrade: h2c",
        b"Proxy-Connection: close",
        b"Expect: 100-continue",
        b"Expect: 200-ok",
        b"Content-Length: 5",
        b"content-length:0",
        b"Content-Length: 05",
        b"Content-Length: 5 ",
        b"Content-Length: 5,5",
        b"Content-Length: +5",
        b"Content-Length: 0x5",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding:\tChunked ",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding : chunked",
        b"Host: b.example",
        b"Host:",
        b"X: a\r\n folded",
        b" X: y",
        b"X: a\x00",
        b"X: a\x01",
        b"X: a\rb",
        b"X: a\nY: b",
        b"no colon",
        b": no name",
        b"X\xe9: y",
        b"X(: y",
    ]
)
HOSTS = st.sampled_from(
    [b"Host: a.example"] * 8
    + [b"host:A.EXAMPLE.:80", b"Host: [::1]:80", b"Host: a@b", b"Host: a:b", b"Host: a/b", b"X-No-Host: 1"]
)
METHODS = st.sampled_from(
    [b"GET"] * 4 + [b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"get", b"FOO", b"G@T", b""]
)
TARGETS = st.sampled_from(
    [b"/"] * 4
    + [b"/a/b?c=d&e", b"//x/..%2f", b"/?", b"*", b"a", b"/a#b", b"/\xe9", b"/a\tb", b'/{|}^"<>\\`', b""]
    + [
        b"http://b.example/x?y",
        b"HTTP://b.example",
        b"http://b.example?q",
        b"http://u@b.example/",
        b"ftp://x/",
        b"b.example:443",
    ]
)
VERSIONS = st.sampled_from(
    [b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1", b""]
)
BODIES = st.sampled_from(
    [b""] * 4
    + [
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"3;x=y\r\nabc\r\n00002\r\nde\r\n0\r\nT: u\r\n\r\n",
        b"0\r\n\r\n",
    ]
    + [
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"g\r\n",
        b"0\r\nT\r\n\r\n",
    ]
    + [b"1;\x00\r\na\r\n0\r\n\r\n", b"0\r\nA: b\r\n c\r\n\r\n", b"\r\n", b"\r\n\r\n"]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    line = b" ".join([draw(METHODS), draw(TARGETS), draw(VERSIONS)])
    lines = [draw(HOSTS), *draw(st.lists(HEADERS, max_size=3))]
    ends = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n"])
    return b"".join(part + draw(ends) for part in [line, *draw(st.permutations(lines)), b""]) + draw(BODIES)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A few requests, good ones and bad ones, now and then with a byte changed."""
    raw = b"".join(draw(st.lists(requests(), min_size=1, max_size=3)))
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + draw(st.binary(max_size=2)) + raw[at + draw(st.integers(0, 1)) :]
    return raw


def agree(raw: bytes) -> None:
    seen, statuses, ended = ours([raw])
    expected, end = theirs(raw)
    assert len(seen) <= len(expected), "we took what h11 refuses"
    assert seen == [reduced(item) for item in expected[: len(seen)]]
    refused = bool(statuses) and statuses[-1] >= 400
    assert statuses == [200] * len(seen) + statuses[len(seen) :]
    assert refused or len(statuses) == len(seen)
    if refused:
        assert ended
        if end != "refuses" or len(expected) > len(seen):
            reasons = [name for name, pattern in BEYOND_H11.items() if re.search(pattern, raw)]
            assert reasons, f"refused with {statuses[-1]}, for no listed reason"
    elif end == "refuses":
        # We have not taken it; then we wait, or have ended the connection earlier than h11 does.
        assert ended or len(expected) == len(seen)


@settings(max_examples=600, deadline=None)
@given(streams())
def test_agrees_with_h11(raw: bytes) -> None:
    agree(raw)


@settings(max_examples=300, deadline=None)
@given(streams(), st.lists(st.integers(0, 2000), max_size=6))
def test_the_same_for_every_split(raw: bytes, cuts: list[int]) -> None:
    whole = ours([raw])
    assert ours(pieces_of(raw, cuts)) == whole
    assert ours([raw[i : i + 1] for i in range(len(raw))]) == whole


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_corpus_against_h11(case: dict) -> None:
    raw = bytes_of(case)
    _, end = theirs(raw)
    if "h11" in case:
        assert end == case["h11"]
        return
    refused = case["answers"][-1] != 200
    assert (end != "refuses" and refused) == ("beyond_h11" in case), end
    agree(raw)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_corpus_the_same_for_every_split(case: dict) -> None:
    raw = bytes_of(case)
    whole = ours([raw])
    assert ours([raw[i : i + 1] for i in range(len(raw))]) == whole
    if len(raw) < 1000:
        for cut in range(1, len(raw)):
            assert ours([raw[:cut], raw[cut:]]) == whole
