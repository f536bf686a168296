"""gateway/answer.py: bodies that are at hand."""

from __future__ import annotations

import asyncio

from waypost.gateway.answer import Answer, whole_answer

LINES = (("Content-Type", "x/y"),)


def test_little_is_sent_as_it_is():
    assert whole_answer(200, LINES, b"abc", False) == Answer(200, LINES, b"abc")


def test_much_is_sent_in_pieces_and_announced():
    body = bytes(range(256)) * 10_000
    answer = whole_answer(200, LINES, body, False)
    assert answer.headers == (*LINES, ("Content-Length", str(len(body))))

    async def pieces():
        return [piece async for piece in answer.body]

    found = asyncio.run(pieces())
    assert b"".join(found) == body
    assert max(map(len, found)) < len(body) / 10


def test_head_has_no_pieces():
    assert isinstance(whole_answer(200, LINES, bytes(10_000_000), True).body, bytes)
