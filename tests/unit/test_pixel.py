from __future__ import annotations

import struct
import zlib

from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.pixel import PNG, PixelRow, PixelSite
from waypost.routing.request import Request

SITE = PixelSite([PixelRow()], HostPolicy("http://static.waypost.example"))


def ask(query, method="GET"):
    return SITE.decide(Request(method, "static.waypost.example", "/a.png", query))


def test_a_view_is_recorded_with_its_variables():
    reply = ask("x-pxid=123&page=%2Fdocs")
    assert (reply.status, reply.body) == (200, PNG)
    assert ("cache-control", "no-cache, no-store, must-revalidate") in reply.headers
    assert ("content-type", "image/png") in reply.headers
    (fact,) = reply.facts
    assert (fact.kind, fact.package, fact.variables) == ("pixel-fetch", "123", {"page": "/docs"})


def test_no_id_and_head_are_served_without_a_view():
    for reply in (ask(None), ask("page=x"), ask("x-pxid="), ask("x-pxid=1", "HEAD")):
        assert (reply.status, reply.facts) == (200, ())


def test_others_are_told_or_left_alone():
    assert ask("x-pxid=1", "POST").status == 405
    assert SITE.decide(Request("GET", "static.waypost.example", "/b.png")) is None


def test_the_image_is_a_transparent_pixel():
    position, chunks = 8, {}
    while position < len(PNG):
        length, name = struct.unpack(">I4s", PNG[position : position + 8])
        data = PNG[position + 8 : position + 8 + length]
        assert struct.unpack(">I", PNG[position + 8 + length : position + 12 + length])[0] == zlib.crc32(name + data)
        chunks[name] = data
        position += 12 + length
    assert chunks[b"IHDR"] == struct.pack(">IIBBBBB", 1, 1, 8, 6, 0, 0, 0)
    assert zlib.decompress(chunks[b"IDAT"]) == b"\0" + b"\0\0\0\0"  # filter, then red, green, blue, alpha
