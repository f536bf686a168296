"""Whatever happens to a segment, what is before the damage is kept and what is behind it is not deleted silently."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.events.spool import HEADER_BYTES, frame, read_frames, recover_all, segments

EVENTS = st.lists(st.binary(min_size=1, max_size=300), max_size=8)
NAME = f"{'0' * 31}1-w0.open"


def recovered(data: bytes) -> tuple[list[bytes], bytes, int, int]:
    """(events, what was put aside, torn bytes, damaged bytes)"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / NAME).write_bytes(data)
        result = recover_all(folder)
        assert result.failed == 0
        (segment,) = segments(folder)
        assert segment.sealed
        frames = read_frames(segment.path)
        assert frames.state == "whole", "recovery leaves nothing to mend"
        aside = segment.path.with_suffix(".damaged")
        damaged = aside.read_bytes() if aside.exists() else b""
        return frames.events, damaged, result.torn_bytes, result.damaged_bytes


@given(EVENTS, st.data())
@settings(max_examples=150, deadline=None)
def test_a_cut_anywhere_keeps_every_whole_frame(events: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(frame, events))
    cut = data.draw(st.integers(0, len(whole)))
    kept, aside, torn, damaged = recovered(whole[:cut])
    assert kept == events[: len(kept)]
    size = sum(HEADER_BYTES + len(event) for event in kept)
    assert size + torn == cut
    assert (aside, damaged) == (b"", 0), "nobody was promised half a frame"
    if len(kept) < len(events):
        assert cut - size < HEADER_BYTES + len(events[len(kept)])


@given(EVENTS.filter(bool), st.data())
@settings(max_examples=300, deadline=None)
def test_a_changed_bit_keeps_what_is_before_and_puts_the_rest_aside(events: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(b"".join(map(frame, events)))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    kept, aside, torn, damaged = recovered(bytes(whole))
    at, before = 0, 0
    for event in events:
        at += HEADER_BYTES + len(event)
        if at > bit // 8:
            break
        before += 1
    assert kept == events[:before]
    size = sum(HEADER_BYTES + len(event) for event in kept)
    assert bytes(whole[size:]) == aside
    assert (torn, damaged) == (0, len(aside))


@given(EVENTS, st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_garbage_behind_whole_frames_never_costs_one(events: list[bytes], garbage: bytes) -> None:
    kept, aside, torn, damaged = recovered(b"".join(map(frame, events)) + garbage)
    assert kept[: len(events)] == events
    extra = sum(HEADER_BYTES + len(event) for event in kept[len(events) :])
    assert extra + torn + damaged == len(garbage)
    assert len(aside) == damaged
