"""The head of a request: from bytes to what it means. Pure; no sockets, no clock.

llhttp reads the header lines and is strict about them. Everything that decides where a request ends and whom
it is for is decided here again, since two readers who disagree about that are a smuggler's tools.

A head is only read once it is whole, so that the same bytes mean the same however the network splits them.
What must be refused before it is whole (endless lines, bytes that no head may have) is what `Watch` finds.
"""

from __future__ import annotations

import ipaddress
import re

import httptools

from waypost.gateway.limits import Limits


class ClientError(Exception):
    """The client's: a request that we do not take. It is told why, and the connection ends."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def malformed(message: str) -> ClientError:
    return ClientError(400, "BAD_REQUEST", message)


class Head:
    """What the head of a request says.

    host        lower case, without port and trailing dot; "" where HTTP/1.0 named none
    headers     (name, value); names in lower case, values as latin-1. Other heads may share the list
    length      of the body, in bytes; CHUNKED where the body is chunked; 0 where there is none
    persistent  whether the client wants the connection kept
    expects     whether it waits for 100 (Continue)
    """

    __slots__ = (
        "expects",
        "headers",
        "host",
        "is_http_1_0",
        "length",
        "method",
        "path",
        "persistent",
        "query",
    )

    def __init__(self, method: str, is_http_1_0: bool, headers: list[tuple[str, str]]) -> None:
        self.method = method
        self.is_http_1_0 = is_http_1_0
        self.headers = headers
        self.host = ""
        self.path = "/"
        self.query: str | None = None
        self.length = 0
        self.persistent = not is_http_1_0
        self.expects = False


CHUNKED = -1

# llhttp knows more methods, among them those of RTSP; we know those of RFC 9110 and RFC 5789.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"})

_VERSION = re.compile(r"HTTP/[0-9]\.[0-9]")
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
# RFC 9112 section 3.2.2, with the two schemes that we are reached by.
_ABSOLUTE = re.compile(r"(?:http|https)://([^/?#]*)(/[^?]*)?(?:\?(.*))?", re.IGNORECASE)
# RFC 3986 section 3.2.2 lets a reg-name hold sub-delims and escapes; no name that resolves has them.
_AUTHORITY = re.compile(r"(?:([A-Za-z0-9._-]+)|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?")

# The names that say something about framing or connection; all others are only kept.
_MEANT = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"})
# RFC 9112 section 3.2 forbids a second Host. RFC 9110 section 8.6 would let equal lengths pass; we do not.
_ONCE = frozenset({"host", "content-length", "transfer-encoding", "expect"})

# What is remembered of earlier requests, by number and size; when full, it is forgotten and begun anew.
_HOSTS_KEPT = 4096
_BLOCKS_KEPT = 1024
_LINES_KEPT = 1024
_PERSONAL = frozenset({"authorization", "cookie", "forwarded", "proxy-authorization", "x-forwarded-for", "x-real-ip"})


class HeadReader:
    """Reads whole heads. One serves all connections of a worker, since reading never waits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._headers: list[tuple[str, str]] = []
        self._callbacks = _Callbacks(self._headers)
        self._hosts: dict[str, str] = {}
        self._remembered: dict[bytes, tuple[list[tuple[str, str]], str, bool]] = {}

    def read(self, block: bytes) -> Head:
        """The head in `block`, which ends with the first empty line. Raises ClientError.

        Where several things are wrong, what `Watch` would have found byte by byte comes first.
        """
        try:
            return self._read(block)
        except ClientError as fault:
            raise Watch(self._limits).look(block[:-1]) or fault from None

    def _read(self, block: bytes) -> Head:
        line_end = block.find(b"\r\n")
        if line_end > self._limits.request_line:
            raise _line_too_long(self._limits)
        method, target, is_http_1_0 = _request_line(block[:line_end])
        lines = block[line_end:]
        remembered = self._remembered.get(lines)
        if remembered is None or is_http_1_0:
            head = Head(method, is_http_1_0, self._lines(lines))
            self._interpret(head)
            self._remember(lines, head)
        else:
            headers, host, persistent = remembered
            head = Head(method, is_http_1_0, headers)
            head.host = host
            head.persistent = persistent
        if target[0] == "/":
            head.path, mark, query = target.partition("?")
            if mark:
                head.query = query
        else:
            self._absolute(head, target)
        return head

    def _lines(self, lines: bytes) -> list[tuple[str, str]]:
        """All header lines, names in lower case, values without surrounding blanks."""
        if len(lines) - 2 > self._limits.headers:
            raise _headers_too_large(self._limits)
        self._headers.clear()
        # A fresh llhttp for each head: what it makes of Proxy-Connection or Upgrade in one request must not
        # decide how it reads the next, which may be another client's. The request line is read by us alone.
        try:
            httptools.HttpRequestParser(self._callbacks).feed_data(b"GET / HTTP/1.1" + lines)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise malformed(f"not a request: {error}") from None
        if len(self._headers) > self._limits.header_lines:
            raise _too_many_lines(self._limits)
        return self._headers.copy()

    def _remember(self, lines: bytes, head: Head) -> None:
        """Clients of one kind send the same lines again and again, from everywhere: reading them costs as
        much as all the rest. Lines that belong to one person are not kept."""
        if len(lines) > _LINES_KEPT or head.length or head.expects or head.is_http_1_0:
            return
        if any(name in _PERSONAL for name, _ in head.headers):
            return
        if len(self._remembered) >= _BLOCKS_KEPT:
            self._remembered.clear()
        self._remembered[lines] = (head.headers, head.host, head.persistent)

    def _interpret(self, head: Head) -> None:
        """What the lines say about host, connection and body."""
        meant: dict[str, str] = {}
        for name, value in head.headers:
            if name in _MEANT:
                if name not in meant:
                    meant[name] = value
                elif name in _ONCE:
                    raise malformed(f"more than one {name}")
                else:
                    meant[name] += f",{value}"
        host = meant.pop("host", None)
        if host is not None:
            head.host = self._hosts.get(host) or self._host(host)
        elif not head.is_http_1_0:
            raise malformed("no Host")
        if meant:
            _connection(head, meant)
            _framing(head, meant)

    def _host(self, authority: str) -> str:
        host = parse_authority(authority)
        if len(self._hosts) >= _HOSTS_KEPT:
            self._hosts.clear()
        self._hosts[authority] = host
        return host

    def _absolute(self, head: Head, target: str) -> None:
        """RFC 9112 section 3.2.2. The asterisk of section 3.2.4 is refused: nothing here has options."""
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise malformed("the request target is neither a path nor an http URL")
        # The authority of the target wins over Host, which had to be valid all the same.
        authority, path, head.query = absolute.groups()
        head.host = self._hosts.get(authority) or self._host(authority)
        head.path = path or "/"


class _Callbacks:
    """What llhttp calls for each header line."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        append = headers.append
        known = _KNOWN_NAMES.get

        def on_header(name: bytes, value: bytes) -> None:
            append((known(name) or name.decode("ascii").lower(), value.decode("latin-1").strip(" \t")))

        self.on_header = on_header


def parse_authority(authority: str) -> str:
    """The host of an authority: lower case, without port and trailing dot. Raises ClientError."""
    match = _AUTHORITY.fullmatch(authority) if len(authority) <= 262 else None
    if match is None:
        raise malformed("the host is not valid")
    name, literal, port = match.groups()
    if port and int(port) > 65535:
        raise malformed("the port is not valid")
    if literal is not None:
        try:
            ipaddress.IPv6Address(literal)
        except ValueError:
            raise malformed("the host is not valid") from None
        return f"[{literal.lower()}]"
    host = str(name).lower().removesuffix(".")
    if not host or host.startswith(".") or ".." in host or host.endswith("."):
        raise malformed("the host is not valid")
    return host


def _request_line(line: bytes) -> tuple[str, str, bool]:
    """Method, target, and whether this is HTTP/1.0. RFC 9112 section 3, with single spaces only."""
    try:
        text = line.decode("ascii")
        method, target, version = text.split(" ")
    except ValueError:
        raise malformed("not a request line") from None
    # RFC 3986 section 3.5: a fragment is never sent.
    if not target or "#" in target or not text.isprintable():
        raise malformed("the request target is not valid")
    if version != "HTTP/1.1" and version != "HTTP/1.0":
        if _VERSION.fullmatch(version):
            raise ClientError(505, "UNSUPPORTED", "only HTTP/1.0 and HTTP/1.1 are spoken here")
        raise malformed("not a request line")
    if method not in METHODS:
        if not _TOKEN.fullmatch(method):
            raise malformed("not a method")
        # RFC 9110 section 9.1: 501 for a method that is not implemented for any resource. CONNECT is one
        # of them: 405 would say that another target might take it.
        raise ClientError(501, "UNSUPPORTED", "this method is not implemented")
    return method, target, version == "HTTP/1.0"


def _connection(head: Head, meant: dict[str, str]) -> None:
    options = meant.get("connection")
    if options is not None:
        # RFC 9112 section 9.3: close wins; HTTP/1.0 asks to be kept.
        names = [option.strip(" \t") for option in options.lower().split(",")]
        head.persistent = "close" not in names and (head.persistent or "keep-alive" in names)
    if "upgrade" in meant:
        # An upgrade is not taken (RFC 9110 section 7.8 lets us), and what follows is not ours to guess.
        head.persistent = False
    expected = meant.get("expect")
    # RFC 9110 section 10.1.1: expectations of HTTP/1.0 are ignored.
    if expected is not None and not head.is_http_1_0:
        if expected.lower() != "100-continue":
            raise ClientError(417, "UNSUPPORTED", "only 100-continue can be expected")
        head.expects = True


def _framing(head: Head, meant: dict[str, str]) -> None:
    """RFC 9112 section 6.3, without its allowances."""
    length = meant.get("content-length")
    coding = meant.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise malformed("both Content-Length and Transfer-Encoding")
        if head.is_http_1_0:
            raise malformed("Transfer-Encoding in HTTP/1.0")
        if coding.lower() != "chunked":
            raise malformed("a Transfer-Encoding other than chunked")
        head.length = CHUNKED
    elif length is not None:
        if not (length.isascii() and length.isdigit() and len(length) <= 19):
            raise malformed("the Content-Length is not a number")
        head.length = int(length)


def _line_too_long(limits: Limits) -> ClientError:
    return ClientError(414, "URI_TOO_LONG", f"the request line exceeds {limits.request_line} bytes")


def _headers_too_large(limits: Limits) -> ClientError:
    return ClientError(431, "HEADERS_TOO_LARGE", f"the header lines exceed {limits.headers} bytes")


def _too_many_lines(limits: Limits) -> ClientError:
    return ClientError(431, "HEADERS_TOO_LARGE", f"more than {limits.header_lines} header lines")


class Watch:
    """Looks at a head that is still arriving, each byte once, and tells its first fault by position."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seen = 0
        self._line_end = -1
        self._lines = 0

    def look(self, block: bytes) -> ClientError | None:
        """`block` is the head from its first byte, as far as it is there; it does not end yet."""
        limits = self._limits
        seen, self._seen = self._seen, len(block)
        found: list[tuple[int, ClientError]] = []
        if block.startswith((b"\r", b"\n")):
            found.append((0, malformed("more than one empty line before the request")))
        bad = _NEVER_IN_A_HEAD.search(block, max(0, seen - 1))
        if bad:
            found.append((bad.end() - 1, malformed("a byte that no request head may have")))
        if self._line_end < 0:
            self._line_end = block.find(b"\r\n", max(0, seen - 1))
        line_end = self._line_end
        longest = limits.request_line
        if (line_end < 0 or line_end > longest) and len(block) > longest + 1:
            found.append((longest + 1, _line_too_long(limits)))
        if line_end >= 0:
            self._look_at_headers(block, max(seen, line_end + 2), found)
        return min(found, key=lambda item: item[0])[1] if found else None

    def _look_at_headers(self, block: bytes, start: int, found: list[tuple[int, ClientError]]) -> None:
        limits = self._limits
        largest = self._line_end + 2 + limits.headers
        if len(block) > largest:
            found.append((largest, _headers_too_large(limits)))
        before = self._lines
        self._lines += block.count(b"\n", start)
        if self._lines > limits.header_lines:
            at = start - 1
            for _ in range(limits.header_lines + 1 - before):
                at = block.index(b"\n", at + 1)
            found.append((at, _too_many_lines(limits)))


# RFC 9110 section 5.5 and RFC 9112 section 2.2: no control bytes but HTAB, no CR or LF on its own.
_NEVER_IN_A_HEAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|(?<!\r)\n")

# Names as clients write them, so that most need no decoding.
_NAMES = """
    accept accept-encoding accept-language authorization cache-control connection content-length content-type
    cookie dnt docker-distribution-api-version expect forwarded host if-match if-modified-since if-none-match
    if-range origin pragma range referer sec-gpc te transfer-encoding upgrade upgrade-insecure-requests
    user-agent via x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip
"""
_KNOWN_NAMES = {spelling.encode(): name for name in _NAMES.split() for spelling in (name, name.title())}
