"""When a worker gives memory back: gateway/heap.py."""

from __future__ import annotations

import pytest

from waypost.gateway.heap import Departures


@pytest.mark.parametrize(
    ("connections", "many"),
    [
        # All at once, and once more when what they held has been let go of.
        ([200, 0, 0, 0], [False, True, True, False]),
        # The last few are looked after, too, though they are few.
        ([200, 40, 0, 0, 0], [False, True, True, True, False]),
        ([200, 101, 0, 0, 0], [False, True, True, True, False]),
        # Few who come and go are not worth it.
        ([0, 50, 0, 50, 0, 0], [False] * 6),
        ([200, 150, 140, 140], [False, False, False, False]),
        # Many in small groups are many.
        ([200, 150, 100, 100, 100], [False, False, True, True, False]),
        # Those who come meanwhile end it.
        ([200, 0, 100, 100, 0, 0, 0], [False, True, True, False, True, True, False]),
    ],
)
def test_memory_is_given_back_when_many_have_gone_and_once_more(connections: list[int], many: list[bool]) -> None:
    departures = Departures(64)
    assert [departures.are_many(now) for now in connections] == many
