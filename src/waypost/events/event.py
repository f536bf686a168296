"""The event: one thing that happened and may be counted, as gateways write it and the collector reads it."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct


class Event(Struct, array_like=True, kw_only=True, gc=False):
    """A recorded fact. Encoded as a msgpack array: fields are only ever added, at the end, with a default.

    id          UUIDv7, 16 bytes, made by the gateway: the key by which an event is stored once
    time        microseconds since 1970 UTC
    kind        see routing.decision.Fact
    method      GET, HEAD or POST
    path        of the request, as it came, without query: with package and source, what rule C6 calls a file
    status      of our answer
    partial     a Range that does not start at byte 0 (C4)
    origin_id   keyed hash of address and User-Agent; 16 bytes
    endpoint_id keyed hash of the address; 16 bytes
    origin_was, endpoint_was
                for 15 minutes after the key rotated: the same under the key before, so that the collector
                can keep a source it has just seen under its old identity. Never stored.
    size        bytes of the body that we offered; how many arrived is not known. None for HEAD, where the client was
                sent elsewhere, and where an upstream did not say
    The rest: routing.decision.Fact and the request's own headers, raw. None where unknown.
    """

    id: bytes
    time: int
    kind: str
    package: str
    domain: str
    method: str = "GET"
    path: str = ""
    status: int = 200
    partial: bool = False
    owner: str | None = None
    version: str | None = None
    tag: str | None = None
    digest: str | None = None
    platform: str | None = None
    artifact: str | None = None
    variables: dict[str, str] | None = None
    upstream: str | None = None
    lists: dict[str, str] | None = None
    user_agent: str | None = None
    referer: str | None = None
    origin_id: bytes | None = None
    endpoint_id: bytes | None = None
    origin_was: bytes | None = None
    endpoint_was: bytes | None = None
    country: str | None = None
    network: str | None = None
    size: int | None = None


# From a tuple of its fields, in their order, an event is the same bytes; those left out at the end have their defaults.
encode_event: Callable[[Event | tuple[object, ...]], bytes] = msgspec.msgpack.Encoder().encode
decode_event = msgspec.msgpack.Decoder(Event).decode


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


_HALVES = struct.Struct(">QQ").pack


def new_id(at_us: int) -> bytes:
    """A UUIDv7 (RFC 9562 section 5.7) for a moment in microseconds.

    rand_a holds the microsecond (section 6.2, method 3, without its scaling), so that 62 random bits need only
    be unique within one. Order means nothing here.
    """
    return _HALVES(at_us // 1000 << 16 | 0x7000 | at_us % 1000, 1 << 63 | random.getrandbits(62))
