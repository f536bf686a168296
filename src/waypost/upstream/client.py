"""Talks HTTP to upstreams: pooled, streamed, and never cleverer than it was told to be.

No redirect is followed, no cookie kept, no body decoded, no header added but Host and our User-Agent: what
goes out is what the decision says, and what comes back is what the upstream said.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import aiohttp
from aiohttp.abc import AbstractResolver
from msgspec import Struct
from multidict import CIMultiDict
from yarl import URL

from waypost import __version__
from waypost.routing.decision import Headers
from waypost.upstream.declared import Declared
from waypost.upstream.failure import (
    UpstreamForbidden,
    UpstreamMisbehaved,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from waypost.upstream.guard import Guarded, check_literal

USER_AGENT = f"waypost/{__version__}"

# Signed storage URLs in Location pass 2 KiB easily; nothing sane passes this.
_LONGEST_FIELD = 16_384
# aiohttp stops reading at twice this. A read brings up to 256 KB, so less would change nothing; its default
# doubles what a stream holds for a client that takes nothing (measured: 0.9 instead of 1.6 MB).
_READ_AHEAD = 16 * 1024
_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type")
# RFC 9110 section 5.5: no control bytes but HTAB. aiohttp is lenient about most of them.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Timeouts(Struct, frozen=True):
    """In seconds. `head` runs from the sending of the request to the end of the answer's head, connecting
    included; `read` is the longest silence between two pieces of a body; `whole` is for a body that somebody
    waits for to be whole, which the other two would let drip for ever."""

    connect: float = 5
    head: float = 15
    read: float = 30
    whole: float = 60


class Target(Struct, frozen=True):
    """Where a URL is really fetched from. `host` is the upstream as the operator knows it."""

    url: URL
    host: str
    declared: bool


class Response:
    """What an upstream answered; its body is still on its way. Whoever has it closes it.

    Header values are latin-1, as those of requests are, so that any byte goes out again as it came in.
    Iterating raises UpstreamError if the upstream breaks off. What has arrived so far is then not the whole.
    """

    __slots__ = ("_host", "_response", "_whole", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, host: str, whole: float) -> None:
        """`whole`: seconds that `read` takes at most."""
        self._response = response
        self._host = host
        self._whole = whole
        self.status = response.status
        self.headers: Headers = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.raw_headers
        )

    def header_all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamError: also if it is longer than `limit` bytes, or long in coming."""
        pieces, size = [], 0
        with _blamed(self._host):
            async with asyncio.timeout(self._whole):
                async for piece in self:
                    size += len(piece)
                    if size > limit:
                        raise UpstreamMisbehaved(self._host, f"answered with more than {limit} bytes")
                    pieces.append(piece)
        return b"".join(pieces)

    def __aiter__(self) -> Response:
        """The body in pieces, as they come. One read beyond 32 KiB waits here at most while nobody asks for more."""
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._response.content.readany()
        except Exception:
            # Entered only now: a body has many pieces, and mostly nobody to blame.
            with _blamed(self._host):
                raise
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Gives the connection back if the body has been read to its end; else cuts it. Idempotent."""
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            # To close TLS politely (RFC 8446 section 6.1) would mean to receive a body that nobody wants, for up to
            # 30 seconds, until the other side has ended, too.
            connection.transport.abort()
        self._response.release()


class Client:
    """One per worker. `declared` says where hosts are really fetched from; it may be replaced at any time,
    and requests under way are not touched by that. `asked` counts the requests that were sent."""

    def __init__(
        self,
        declared: Mapping[str, Declared],
        timeouts: Timeouts | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """To be called inside a running event loop. `resolver` is for tests; the guard stands before any."""
        self.declared = declared
        self.asked = 0
        self._timeouts = timeouts or Timeouts()
        # Two pools: no connection made for a declared upstream may serve a URL that the guard must judge.
        self._guarded = self._session(Guarded(resolver or aiohttp.ThreadedResolver()))
        self._trusted = self._session(resolver)

    def _session(self, resolver: AbstractResolver | None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver, limit=0, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_READ_AHEAD,
            headers={"User-Agent": USER_AGENT},
            skip_auto_headers=_AUTOMATIC,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._timeouts.connect, sock_read=self._timeouts.read
            ),
            max_line_size=_LONGEST_FIELD,
            max_field_size=_LONGEST_FIELD,
        )

    def target(self, url: str) -> Target:
        """Where `url` leads now. Raises UpstreamMisbehaved if it is nothing that we would ever send."""
        try:
            parsed = URL(url, encoded=True)
            host = authority(parsed)
        except ValueError:
            raise UpstreamMisbehaved(url[:100], "not a URL") from None
        fits = parsed.scheme in ("http", "https") and host and parsed.user is None and _visible(url)
        if not fits:
            raise UpstreamMisbehaved(host or url[:100], "not an absolute http(s) URL in ASCII, without userinfo")
        declared = self.declared.get(host)
        if declared is None or declared.connect is None:
            return Target(parsed, host, False)
        base = URL(declared.connect)
        real = parsed.with_scheme(base.scheme).with_host(base.host or "").with_port(base.explicit_port)
        return Target(real, host, True)

    async def open(self, method: str, url: str, headers: Headers = (), body: bytes = b"") -> Response:
        """Sends a request and waits for the head of the answer. Raises UpstreamError."""
        target = self.target(url)
        lines = CIMultiDict(headers)
        if target.declared:
            lines["Host"] = target.host
        else:
            _check(target)
        session = self._trusted if target.declared else self._guarded
        self.asked += 1
        with _blamed(target.host):
            async with asyncio.timeout(self._timeouts.head):
                response = await session.request(
                    method, target.url, headers=lines, data=body or None, allow_redirects=False
                )
        answer = Response(response, target.host, self._timeouts.whole)
        if any(map(_CONTROL.search, (value for _, value in response.raw_headers))):
            await answer.aclose()
            raise UpstreamMisbehaved(target.host, "its answer has a header line with control bytes")
        return answer

    async def close(self) -> None:
        """Ends all connections. Requests under way fail."""
        await self._guarded.close()
        await self._trusted.close()


def authority(url: URL) -> str:
    """Host in lower case, with :PORT unless it is the scheme's own; the key of a declared upstream."""
    return (url.host_port_subcomponent or "").lower()


def _visible(text: str) -> bool:
    """Whether it can stand in a request line without ending it or splitting it."""
    return text.isascii() and text.isprintable() and " " not in text


def _check(target: Target) -> None:
    try:
        check_literal(target.url.raw_host or "")
    except UpstreamForbidden as forbidden:
        raise UpstreamForbidden(target.host, forbidden.why) from None


@contextmanager
def _blamed(host: str) -> Iterator[None]:
    """Turns what aiohttp raises into whose fault it is. The order matters: its classes overlap."""
    try:
        yield
    except UpstreamForbidden as error:
        # The guard knows the name that it resolved; people know the upstream.
        raise UpstreamForbidden(host, error.why) from None
    except aiohttp.ClientConnectorDNSError as error:
        raise UpstreamUnreachable(host, "its name does not resolve") from error
    except aiohttp.ClientSSLError as error:
        raise UpstreamUnreachable(host, "its certificate or TLS is not acceptable") from error
    except aiohttp.ConnectionTimeoutError as error:
        raise UpstreamUnreachable(host, "no connection in time") from error
    except TimeoutError as error:
        raise UpstreamTimeout(host, "no answer in time") from error
    except aiohttp.ClientConnectorError as error:
        raise UpstreamUnreachable(host, "no connection") from error
    except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError, aiohttp.InvalidURL) as error:
        raise UpstreamMisbehaved(host, "its answer is broken off or is not HTTP") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamUnreachable(host, "the connection broke") from error
