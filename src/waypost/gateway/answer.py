"""Answers: what goes back to a client, and how it becomes bytes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import cast

import msgspec
from msgspec import Struct

from waypost.routing.decision import Headers

# A body beyond this is not copied as a whole for each who asks for it.
_MUCH = 1024 * 1024
_PIECE = 128 * 1024


class Answer(Struct, frozen=True):
    """An answer before it is framed.

    headers  (name, value), without Content-Length, Date, Connection and Transfer-Encoding: those are the
             server's. A Content-Length is heeded in two places: with a streamed body it announces the
             length, and in an answer to HEAD it stands for the body that a GET would have had.
    body     whole, or an async iterator that is sent piece by piece. If the iterator has `aclose`, it is
             always called, even where no piece was asked for.
    """

    status: int
    headers: Headers = ()
    body: bytes | AsyncIterator[bytes] = b""


def whole_answer(status: int, headers: Headers, body: bytes, is_head: bool) -> Answer:
    """An answer whose body is at hand. Much of it is sent in pieces: all who get it share it, however slow they are."""
    if len(body) <= _MUCH or is_head:
        return Answer(status, headers, body)
    return Answer(status, (*headers, ("Content-Length", str(len(body)))), _pieces(body))


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


class UnsafeAnswerError(ValueError):
    """Ours: a header value that would break out of its line."""


def refusal(status: int, code: str, message: str, headers: Headers = ()) -> Answer:
    """An error in the registries' own format (OCI distribution specification, "Error Codes")."""
    body = msgspec.json.encode({"errors": [{"code": code, "message": message}]}) + b"\n"
    return Answer(status, (("Content-Type", "application/json"), *headers), body)


INTERNAL = refusal(500, "INTERNAL", "the gateway failed while answering")

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n" for s in HTTPStatus}
_UNSAFE = re.compile("[\r\n\0]")

# RFC 9110 section 6.4.1: these end with their headers, whatever the method.
_BODILESS = frozenset({100, 101, 204, 304})
# RFC 9110 section 8.6: these must not carry a Content-Length. A 304 may, if it is that of the 200.
_LENGTHLESS = frozenset({100, 101, 204})

# What an answer says about its connection; chosen once per request.
KEEP_ALIVE = ""
KEEP_ALIVE_1_0 = "Connection: keep-alive\r\n"
CLOSE = "Connection: close\r\n"


# Lines about the connection and the framing: what relays must not pass on (RFC 9110 section 7.6.1).
_OURS = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "date"})


def announced(headers: Headers) -> int | None:
    """The length that an answer says its streamed body has: of a part, that of the part.

    None if it says none, or one that nothing has: the event store holds 63 bits.
    """
    for name, value in headers:
        if len(name) == 14 and name.lower() == "content-length":
            return int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else None
    return None


def render(answer: Answer, connection: str, date: str, is_head: bool) -> bytes:
    """An answer with a whole body as it goes on the wire.

    `date` is a whole Date line. Raises UnsafeAnswerError, and UnicodeEncodeError for values beyond latin-1.
    """
    status = answer.status
    body = cast("bytes", answer.body)
    lines, declared = _field_lines(answer.headers)
    if status in _BODILESS:
        body = b""
        length = "" if declared is None or status in _LENGTHLESS else f"Content-Length: {declared}\r\n"
    elif is_head:
        length = f"Content-Length: {len(body) if declared is None else declared}\r\n"
        body = b""
    else:
        length = f"Content-Length: {len(body)}\r\n"
    status_line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
    return f"{status_line}{date}{lines}{connection}{length}\r\n".encode("latin-1") + body


def stream_framing(answer: Answer, is_http_1_0: bool, is_head: bool) -> tuple[str, int | None]:
    """How a streamed body is framed: its header line, and the length that must be kept (None: unknown).

    RFC 9112 section 6.3. Towards HTTP/1.0 a body of unknown length ends with the connection: no line at all.
    Raises UnsafeAnswerError for a Content-Length that is no number.
    """
    declared = next((value for name, value in answer.headers if name.lower() == "content-length"), None)
    if declared is not None and not (declared.isascii() and declared.isdigit()):
        raise UnsafeAnswerError("Content-Length")
    if answer.status in _LENGTHLESS:
        return "", 0
    if answer.status in _BODILESS or is_head:
        return ("" if declared is None else f"Content-Length: {declared}\r\n"), 0
    if declared is not None:
        return f"Content-Length: {declared}\r\n", int(declared)
    return ("" if is_http_1_0 else "Transfer-Encoding: chunked\r\n"), None


def render_stream_head(answer: Answer, framing: str, connection: str, date: str) -> bytes:
    """The head of an answer whose body follows; for `framing` see `stream_framing`. Raises as `render`."""
    relayed = tuple((name, value) for name, value in answer.headers if name.lower() not in _OURS)
    lines, _ = _field_lines(relayed)
    status_line = _STATUS_LINES.get(answer.status) or f"HTTP/1.1 {answer.status} \r\n"
    return f"{status_line}{date}{lines}{connection}{framing}\r\n".encode("latin-1")


def _field_lines(headers: Headers) -> tuple[str, str | None]:
    """All lines but Content-Length, and its value."""
    lines = ""
    declared = None
    for name, value in headers:
        if not value.isprintable() and _UNSAFE.search(value):
            raise UnsafeAnswerError(name)
        if len(name) == 14 and name.lower() == "content-length":
            declared = value
        else:
            lines += f"{name}: {value}\r\n"
    return lines, declared
