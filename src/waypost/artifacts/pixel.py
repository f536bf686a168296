"""Pixels: a transparent image whose fetch counts as a view."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from urllib.parse import parse_qsl

from msgspec import Struct

from waypost.artifacts.kind import HostPolicy, Kind, nowhere
from waypost.routing.decision import Decision, Fact, Refuse, Reply
from waypost.routing.request import Request


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


# One transparent pixel, 8-bit RGBA. PNG specification, third edition, section 11.2.
PNG = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 6, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(bytes(5), 9))
    + _chunk(b"IEND", b"")
)
_HEADERS = (("content-type", "image/png"), ("cache-control", "no-cache, no-store, must-revalidate"))


class PixelRow(Struct, frozen=True, array_like=True, tag="pixel"):
    """Marks a host that serves pixels."""


class PixelSite:
    """`/a.png?x-pxid=ID`. Without an ID the image is served all the same and nothing is recorded."""

    def __init__(self, rows: Sequence[PixelRow], policy: HostPolicy) -> None:
        pass

    def decide(self, request: Request) -> Decision | None:
        if request.path != "/a.png":
            return None
        if request.method not in ("GET", "HEAD"):
            return Refuse(405, "UNSUPPORTED", "A pixel is fetched with GET.", (("allow", "GET, HEAD"),))
        variables = dict(parse_qsl(request.query or "", keep_blank_values=True, errors="replace"))
        pixel = variables.pop("x-pxid", "")
        if not pixel or request.method == "HEAD":
            return Reply(200, _HEADERS, PNG)
        return Reply(200, _HEADERS, PNG, (Fact(kind="pixel-fetch", package=pixel, variables=variables or None),))

    def explain(self, request: Request) -> list[str]:
        return ["pixel: a view of the pixel that x-pxid names"] if request.path == "/a.png" else []


KIND = Kind(name="pixel", order=5, row=PixelRow, site=PixelSite, reach=nowhere)
