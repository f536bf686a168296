"""Conditional requests: what a client has already is not sent again (RFC 9110 section 13.1.2). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from waypost.routing.decision import Reply
from waypost.routing.request import Request

# RFC 9110 sections 5.6.1 and 8.8.3: an entity tag of a list, with the empty elements before it. It may hold commas.
_ELEMENT = re.compile(r'[ \t,]*(?:W/)?("[!#-~\x80-\xff]*")[ \t]*(?:,|\Z)')


def is_known(lines: Iterable[str], etag: str) -> bool:
    """Whether If-None-Match, in one line or several, names an answer with this ETag. Tags are compared weakly.

    What is no such list names nothing from there on, so that the answer is sent.
    """
    value = ", ".join(lines)
    if value.strip(" \t") == "*":
        return True
    opaque = etag.removeprefix("W/")
    position = 0
    while found := _ELEMENT.match(value, position):
        if found[1] == opaque:
            return True
        position = found.end()
    return False


def unless_known(request: Request, reply: Reply) -> Reply:
    """The reply; or, if the client has it already, 304 and no fact: nothing was fetched (C1).

    Only of replies that have an ETag: of all others nobody can say that they are the same.
    """
    if reply.status != 200 or request.method not in ("GET", "HEAD"):
        return reply
    lines = request.header_all("if-none-match")
    if not lines:
        return reply
    etag = next((value for name, value in reply.headers if name.lower() == "etag"), None)
    if etag is None or not is_known(lines, etag):
        return reply
    # RFC 9110 section 15.4.5: what says something of the content stays away with it.
    return Reply(304, tuple(pair for pair in reply.headers if not pair[0].lower().startswith("content-")))
