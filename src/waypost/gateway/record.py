"""From an answer that went well to an event in the spool. Here the client's address ends."""

from __future__ import annotations

from waypost.events.event import encode_event, new_id, now_us
from waypost.events.identity import Identity
from waypost.events.spool import Spool
from waypost.gateway.address import TrustedProxies
from waypost.routing.decision import Fact
from waypost.routing.request import Request

# Longer values say nothing more about a client, and would let it fill the disk.
MAX_TEXT = 1024
# The header lines that say something here. All others are passed over.
_READ = frozenset({"user-agent", "referer", "range", "x-forwarded-for", "dnt", "sec-gpc"})


class Recorder:
    """Writes the facts of an answer, unless its sender asked not to be counted."""

    def __init__(self, spool: Spool, identity: Identity, trusted: TrustedProxies) -> None:
        self._spool = spool
        self.identity = identity
        self.trusted = trusted
        self.recorded = 0

    def record(
        self, request: Request, facts: tuple[Fact, ...], status: int, peer: str, size: int | None = None
    ) -> None:
        """`status` and `size` are those of our answer; `peer` the address that the connection came from."""
        user_agent = referer = requested_range = None
        forwarded: list[str] = []
        for name, value in request.headers:
            if name not in _READ:
                continue
            if name == "user-agent":
                user_agent = value[:MAX_TEXT]
            elif name == "referer":
                referer = value[:MAX_TEXT]
            elif name == "range":
                requested_range = value
            elif name == "x-forwarded-for":
                forwarded.append(value)
            elif value == "1":
                return  # C5: no event, no lookup, no hash.
        address = self.trusted.client(peer, forwarded) if self.trusted else peer
        time = now_us()
        who = self.identity.of(address, user_agent, time)
        partial = is_partial(requested_range)
        for fact in facts:
            # The fields of an Event in their order: a tuple is made in half the time.
            event = encode_event(
                (
                    new_id(time),
                    time,
                    fact.kind,
                    fact.package,
                    request.host,
                    request.method,
                    request.path,
                    status,
                    partial,
                    fact.owner,
                    fact.version,
                    fact.tag,
                    fact.digest,
                    fact.platform,
                    fact.artifact,
                    fact.variables,
                    fact.upstream,
                    fact.lists,
                    user_agent,
                    referer,
                    *who,
                    None,  # country and network are not looked up yet
                    None,
                    size,
                )
            )
            self._spool.append(event)
            self.recorded += 1


def is_partial(requested_range: str | None) -> bool:
    """C4: whether a request is for a part that does not begin with the file."""
    return requested_range is not None and not starts_at_zero(requested_range)


def starts_at_zero(requested: str) -> bool:
    """Does a Range header ask for byte 0 first? What is no byte range is ignored, so it asks for everything.

    RFC 9110 section 14.2: a server ignores a Range whose unit or syntax it does not understand.
    """
    unit, equals, ranges = requested.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return True
    first = ranges.partition(",")[0].strip().partition("-")[0]
    if first.isascii() and first.isdigit():
        return int(first[:32]) == 0
    return not ranges.strip().startswith("-")  # "-500" is the last 500 bytes; anything else is no range
