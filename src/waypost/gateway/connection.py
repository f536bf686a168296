"""One connection of an HTTP/1 client: requests in, answers out, and every way in which it may end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import inspect
import logging
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Awaitable
from math import inf
from typing import TYPE_CHECKING, cast

from waypost.gateway.answer import (
    CLOSE,
    INTERNAL,
    KEEP_ALIVE,
    KEEP_ALIVE_1_0,
    Answer,
    refusal,
    render,
    render_stream_head,
    stream_framing,
)
from waypost.gateway.body import ChunkedBody, SizedBody
from waypost.gateway.head import CHUNKED, ClientError, Head, Watch
from waypost.routing.request import Request

if TYPE_CHECKING:
    from waypost.gateway.http1 import Server

logger = logging.getLogger("waypost.gateway")

# Where a connection is: NEW → HEAD → BODY → ANSWERING → IDLE → HEAD …, with steps left out that take no time;
# from anywhere to CLOSING. Plain numbers, since they are compared for every request.
NEW = 0  # nothing received yet
IDLE = 1  # between requests
HEAD = 2  # a part of a head is there
BODY = 3  # a head is there, its body is not whole
ANSWERING = 4  # the application is working, or a body is being streamed
CLOSING = 5  # the last answer is on its way; what still comes in is thrown away

# How many bytes one connection may have ready before it must wait for a flush.
_READY = 256 * 1024
# How many bytes we keep of what a client sends while its last request is being answered.
_AHEAD = 64 * 1024
# How many bytes we throw away after a refusal before we lose patience.
_THROWN_AWAY = 1024 * 1024

_LF = (b"", b"\n")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)
_BUSY = refusal(503, "TOOMANYREQUESTS", "too many connections", (("Retry-After", "10"),))


class Http1(asyncio.Protocol):
    """One connection.

    deadline        when `expire` wants to be called; what for depends on the phase
    stall_deadline  the same for a client that takes nothing of its answer
    task            what waits for the application, or streams its answer
    """

    __slots__ = (
        "_ahead",
        "_body",
        "_eof",
        "_handle",
        "_head",
        "_is_reading",
        "_is_tls",
        "_is_working",
        "_is_writable",
        "_last",
        "_lingers",
        "_out",
        "_out_size",
        "_peer",
        "_phase",
        "_read_head",
        "_room",
        "_server",
        "_skipped",
        "_thrown_away",
        "_transport",
        "_unsent",
        "_watch",
        "deadline",
        "stall_deadline",
        "task",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        # Bound once: these are called for every request.
        self._handle = server.app.handle
        self._read_head = server.heads.read
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._is_tls = False
        self._phase = NEW
        self.deadline = self.stall_deadline = inf
        # What came in and is not used yet, from the first byte of a head or of an unread part of a body.
        self._ahead = b""
        self._is_reading = True
        self._eof = False
        self._skipped = False  # the one empty line that may precede a request
        self._watch: Watch | None = None
        self._head: Head | None = None
        self._body: SizedBody | ChunkedBody | None = None
        self.task: asyncio.Task[None] | None = None
        self._is_working = False  # the task has begun: from now on it hears when it is cancelled
        # What goes out with the next flush.
        self._out: list[bytes] = []
        self._out_size = 0
        self._last = False  # nothing will follow what is in _out
        self._lingers = False  # the client may still be sending when we close
        self._thrown_away = 0
        self._is_writable = True
        self._room: asyncio.Future[None] | None = None
        self._unsent = 0  # what the transport still held when we last looked

    # What the transport tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self._server
        self._transport = cast("asyncio.Transport", transport)
        self._peer = peer_name(transport.get_extra_info("peername"))
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        if server.draining or not server.admit(self, self._peer):
            self._phase = CLOSING
            self._transport.write(_whole(_BUSY, CLOSE, server.date))
            self._transport.close()
            return
        self.deadline = server.loop.time() + server.limits.head_seconds

    def data_received(self, data: bytes) -> None:
        if self._phase == CLOSING:
            self._throw_away(len(data))
            return
        if self._ahead:
            data = self._ahead + data
            self._ahead = b""
        self._consume(data)
        if self._ahead and len(self._ahead) > _AHEAD and self._is_reading and self._is_held():
            self._is_reading = False
            self._open_transport().pause_reading()

    def eof_received(self) -> bool:
        """The client has ended its sending side. What it asked before that is still answered."""
        self._eof = True
        if self._is_tls or self._phase == CLOSING:
            return False  # RFC 8446 section 6.1 knows half-closed connections; asyncio's TLS does not
        if self._phase == ANSWERING:
            self.deadline = self._server.loop.time() + self._server.limits.half_closed_seconds
        self._finish_if_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.dismiss(self, self._peer)
        self._transport = None
        self._phase = CLOSING
        self._out.clear()
        self._ahead = b""
        if self.task is not None and self._is_working:
            self.task.cancel()

    def pause_writing(self) -> None:
        self._is_writable = False
        self._unsent = self._untaken()
        self.stall_deadline = self._server.loop.time() + self._server.limits.stall_seconds

    def resume_writing(self) -> None:
        self._is_writable = True
        self.stall_deadline = inf
        self._go_on()

    # What the server tells us.

    def write_ready(self) -> None:
        """Write what is ready. Called by `Server.flush` alone."""
        transport = self._transport
        out = self._out
        if transport is None or not out:
            return
        transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()
        self._out_size = 0
        if self._last:
            self._close()
        elif self._ahead or self._eof or self._room is not None or not self._is_reading:
            self._go_on()

    def expire(self, now: float) -> None:
        """A deadline has passed."""
        transport = self._open_transport()
        phase = self._phase
        limits = self._server.limits
        if transport.get_write_buffer_size() and (self.stall_deadline <= now or phase in (IDLE, CLOSING)):
            self._expire_writing(now)
            return
        self.stall_deadline = inf
        if self.deadline > now:
            return
        if phase == HEAD:
            self._refuse(_too_slow("head", limits.head_seconds))
        elif phase == BODY:
            self._refuse(_too_slow("body", limits.body_seconds))
        elif phase in (ANSWERING, CLOSING):
            self.abort()
        else:
            self._phase = CLOSING
            transport.close()

    def close_if_idle(self) -> None:
        if self._phase in (NEW, IDLE) and not self._out and not self._ahead:
            self._phase = CLOSING
            self.deadline = self._server.loop.time() + self._server.limits.linger_seconds
            self._open_transport().close()

    def abort(self) -> None:
        """End the connection so that the client notices: with a reset, not as if all were said."""
        self._phase = CLOSING
        self._out.clear()
        transport = self._transport
        if transport is None:
            return
        connection = transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    # Requests.

    def _consume(self, data: bytes) -> None:
        """Read requests from `data`, which is not empty, and keep what must wait."""
        position = 0
        size = len(data)
        try:
            # _is_held, written out: this is asked twice for every request.
            while self._phase < ANSWERING and self._out_size <= _READY and self._is_writable:
                if self._body is not None:
                    position = self._read_body(self._body, data, position)
                    if self._body is not None:
                        break
                elif data[position] == 13 and not self._skipped and data[position + 1 : position + 2] in _LF:
                    # RFC 9112 section 2.2: an empty line before a request is passed over. One.
                    if position + 1 == size:
                        self._begin_head()
                        break
                    self._skipped = True
                    position += 2
                else:
                    end = data.find(b"\r\n\r\n", position)
                    if end < 0:
                        self._watch_head(data[position:])
                        break
                    head = self._read_head(data[position : end + 4])
                    position = end + 4
                    self._skipped = False
                    if head.length:
                        self._begin_body(head, position == size)
                    else:
                        self._answer(head, b"")
                if position == size:
                    return
        except ClientError as fault:
            self._refuse(fault)
            return
        self._ahead = data[position:]
        if self._phase == CLOSING and self._ahead:
            self._lingers = True

    def _is_held(self) -> bool:
        """Whether the next request must wait."""
        return self._phase >= ANSWERING or self._out_size > _READY or not self._is_writable

    def _go_on(self) -> None:
        """Something that held us has gone."""
        if self._is_writable and self._room is not None:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None
        if self._is_held():
            return
        if self._ahead:
            data, self._ahead = self._ahead, b""
            self._consume(data)
        if not self._is_reading and not self._is_held():
            self._is_reading = True
            self._open_transport().resume_reading()
        self._finish_if_eof()

    def _finish_if_eof(self) -> None:
        if not self._eof or self._is_held():
            return
        if self._phase in (HEAD, BODY):
            self._refuse(ClientError(400, "BAD_REQUEST", "the request ends in the middle"))
        elif not self._out:
            self._phase = CLOSING
            self._close()

    def _begin_head(self) -> None:
        if self._phase != HEAD:
            self._phase = HEAD
            self.deadline = self._server.loop.time() + self._server.limits.head_seconds

    def _watch_head(self, block: bytes) -> None:
        """A head that is not whole yet. Raises ClientError where it can never be right."""
        if self._phase != HEAD or self._watch is None:
            self._watch = Watch(self._server.limits)
        self._begin_head()
        fault = self._watch.look(block)
        if fault is not None:
            raise fault

    def _begin_body(self, head: Head, is_awaited: bool) -> None:
        """Raises ClientError for a body that is too long."""
        limits = self._server.limits
        self._body = ChunkedBody(limits.body) if head.length == CHUNKED else SizedBody(head.length, limits.body)
        self._head = head
        self._phase = BODY
        self.deadline = self._server.loop.time() + limits.body_seconds
        # RFC 9110 section 10.1.1: no 100 where the body is already on its way.
        if head.expects and is_awaited:
            self._put(_CONTINUE)

    def _read_body(self, body: SizedBody | ChunkedBody, data: bytes, position: int) -> int:
        position = body.feed(data, position)
        if body.is_whole:
            head = cast("Head", self._head)
            self._head = self._body = None
            self._answer(head, body.content())
        return position

    # Answers.

    def _answer(self, head: Head, body: bytes) -> None:
        server = self._server
        server.counters.requests += 1
        scheme = "https" if self._is_tls else "http"
        request = Request(head.method, head.host, head.path, head.query, head.headers, body, scheme)
        try:
            answer = self._handle(request, self._peer)
        except Exception as error:
            report("the application failed to answer; the client gets 500", error)
            answer = INTERNAL
        if type(answer) is Answer and type(answer.body) is bytes:
            self._send(answer, head)
            return
        self._phase = ANSWERING
        self.deadline = server.loop.time() + server.limits.half_closed_seconds if self._eof else inf
        self._is_working = False
        self.task = server.loop.create_task(self._work(answer, head))

    def _send(self, answer: Answer, head: Head) -> None:
        """Send an answer whose body is whole."""
        server = self._server
        connection = self._connection_line(head)
        is_head = head.method == "HEAD"
        try:
            raw = render(answer, connection, server.date, is_head)
        except ValueError as error:
            report("an answer could not be sent; the client gets 500", error)
            raw = render(INTERNAL, connection, server.date, is_head)
        self._put(raw)
        self._answered(connection)

    def _connection_line(self, head: Head) -> str:
        if head.persistent and not self._server.draining:
            return KEEP_ALIVE_1_0 if head.is_http_1_0 else KEEP_ALIVE
        return CLOSE

    def _answered(self, connection: str) -> None:
        if connection == CLOSE:
            self._last = True
            self._phase = CLOSING
            if not self._out:
                self._close()
        else:
            self._phase = IDLE
            self.deadline = self._server.idle_deadline

    async def _work(self, pending: Answer | Awaitable[Answer], head: Head) -> None:
        """Wait for the answer, and stream its body if it has one."""
        self._is_working = True
        try:
            if self._transport is None:
                await _abandon(pending)
                return
            answer = pending if isinstance(pending, Answer) else await self._awaited(pending)
            if isinstance(answer.body, bytes):
                self._send(answer, head)
            else:
                try:
                    await self._stream(answer, answer.body, head)
                finally:
                    await _close_body(answer.body)
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self.task = None
        if self._transport is not None:
            self._go_on()

    async def _awaited(self, pending: Awaitable[Answer]) -> Answer:
        try:
            return await pending
        except Exception as error:
            report("the application failed to answer; the client gets 500", error)
            return INTERNAL

    async def _stream(self, answer: Answer, body: AsyncIterator[bytes], head: Head) -> None:
        connection = self._connection_line(head)
        try:
            framing, left = stream_framing(answer, head.is_http_1_0, head.method == "HEAD")
            if left is None and head.is_http_1_0:
                connection = CLOSE
            raw = render_stream_head(answer, framing, connection, self._server.date)
        except ValueError as error:
            report("an answer could not be sent; the client gets 500", error)
            self._send(INTERNAL, head)
            return
        is_chunked = left is None and not head.is_http_1_0
        self._put(raw)
        if left == 0:
            self._answered(connection)
            return
        passed = 0  # bytes since others had their turn
        try:
            async for piece in body:
                if left is not None:
                    left -= len(piece)
                    if left < 0:
                        break
                if piece:
                    self._put_piece(piece, is_chunked)
                passed += len(piece)
                if self._out_size > _READY or not self._is_writable:
                    self._room = self._server.loop.create_future()
                    await self._room
                    passed = 0
                elif passed > _READY:
                    # Where body and client are both fast, nothing else here ever waits.
                    await asyncio.sleep(0)
                    passed = 0
        except Exception as error:
            report("a streamed body broke off; so does the connection", error)
            self.abort()
            return
        if left:
            logger.error("a streamed body was not as long as announced; the connection was broken off")
            self.abort()
            return
        if is_chunked:
            self._put(b"0\r\n\r\n")
        self._answered(connection)

    def _put_piece(self, piece: bytes, is_chunked: bool) -> None:
        """One piece of a streamed body.

        Only what must be recorded first waits for a flush, and that is the head. A piece behind it is written at once:
        so the transport says before the next one is asked for whether the client takes them.
        """
        pieces = (b"%x\r\n" % len(piece), piece, b"\r\n") if is_chunked else (piece,)
        if self._out or self._transport is None:
            for one in pieces:
                self._put(one)
        elif is_chunked:
            self._transport.writelines(pieces)
        else:
            self._transport.write(piece)

    def _put(self, raw: bytes) -> None:
        """Have this written with the next flush, after what is there already."""
        if not self._out:
            self._server.schedule(self)
        self._out.append(raw)
        self._out_size += len(raw)

    # Ends.

    def _refuse(self, fault: ClientError) -> None:
        """Tell the client what was wrong, then close: what else it sent cannot be trusted to be a request."""
        counts = self._server.counters.unacceptable
        counts[fault.status] = counts.get(fault.status, 0) + 1
        answer = refusal(fault.status, fault.code, fault.message)
        self._put(_whole(answer, CLOSE, self._server.date))
        self._ahead = b""
        self._head = self._body = self._watch = None
        self._last = self._lingers = True
        self._phase = CLOSING

    def _close(self) -> None:
        """RFC 9112 section 9.6: where the client may still be sending, closing at once would reset the
        connection and could take our answer with it. So we end our side and read on for a while."""
        transport = self._transport
        if transport is None:
            return
        self.deadline = self._server.loop.time() + self._server.limits.linger_seconds
        if self._lingers and not self._eof and transport.can_write_eof():
            transport.write_eof()
            if not self._is_reading:
                self._is_reading = True
                transport.resume_reading()
        else:
            transport.close()

    def _throw_away(self, size: int) -> None:
        self._thrown_away += size
        if self._thrown_away > _THROWN_AWAY:
            self.abort()

    def _untaken(self) -> int:
        """How much of our answers the client has not taken. The kernel's queue counts too: it may hold
        megabytes, and lets us write again only when much of it is gone, which is long for a slow client."""
        transport = self._open_transport()
        queued = bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
        return transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _expire_writing(self, now: float) -> None:
        """The client takes its answer slowly, or not at all."""
        unsent = self._untaken()
        if self.stall_deadline == inf or unsent < self._unsent:
            self._unsent = unsent
            self.stall_deadline = now + self._server.limits.stall_seconds
            if self._phase != ANSWERING:
                self.deadline = self.stall_deadline
            return
        self._server.counters.stalled += 1
        self.abort()

    def _open_transport(self) -> asyncio.Transport:
        assert self._transport is not None  # asyncio calls us between made and lost only
        return self._transport


def _too_slow(part: str, seconds: float) -> ClientError:
    return ClientError(408, "REQUEST_TIMEOUT", f"the {part} of the request did not arrive within {seconds:g} s")


def peer_name(address: object) -> str:
    """The address of a socket's peer as text: without port and zone, IPv4 in IPv6 reduced to IPv4."""
    if not isinstance(address, tuple):
        return ""
    name = str(address[0]).partition("%")[0]
    if name.startswith("::ffff:") and "." in name:
        return name[7:]
    return name


def _whole(answer: Answer, connection: str, date: str) -> bytes:
    return render(answer, connection, date, is_head=False)


async def _close_body(body: AsyncIterator[bytes]) -> None:
    close = getattr(body, "aclose", None)
    if close is not None:
        try:
            await close()
        except Exception as error:
            report("a streamed body could not be closed", error)


async def _abandon(pending: Answer | Awaitable[Answer]) -> None:
    """Nobody waits for this any more, and nobody has begun to."""
    if isinstance(pending, Answer):
        if not isinstance(pending.body, bytes):
            await _close_body(pending.body)
    elif inspect.iscoroutine(pending):
        pending.close()
    elif isinstance(pending, asyncio.Future):
        pending.cancel()


def report(sentence: str, error: Exception) -> None:
    """What failed and where, without the error's own words: they may quote the request."""
    place = "unknown place"
    trace = error.__traceback__
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    logger.error("%s: %s at %s", sentence, type(error).__name__, place)
