from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from waypost.events import spool as module
from waypost.events.spool import (
    MAX_EVENT_BYTES,
    Recovered,
    Spool,
    frame,
    mend,
    read_frames,
    recover_all,
    recover_writer,
    segments,
)


def stored(folder: Path) -> list[bytes]:
    return [event for segment in segments(folder) for event in read_frames(segment.path).events]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_what_is_flushed_can_be_read_at_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w0", 1 << 20)
    spool.append(b"one")
    spool.append(b"two")
    assert stored(tmp_path) == []
    spool.flush()
    assert stored(tmp_path) == [b"one", b"two"]
    (segment,) = segments(tmp_path)
    assert (segment.worker, segment.sealed) == ("w0", False)
    assert segment.path.stat().st_mode & 0o777 == 0o600
    spool.close()
    assert [s.sealed for s in segments(tmp_path)] == [True]


def test_one_write_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(len(data)) or real(fd, data))
    spool = Spool(tmp_path, "w0", 1 << 20)
    for _ in range(100):
        spool.append(b"event")
    spool.flush()
    spool.flush()
    assert written == [100 * (8 + 5)]
    spool.close()


def test_nothing_is_made_without_events(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w0", 1 << 20)
    spool.flush()
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_segment_is_sealed_when_it_is_large_or_old(tmp_path: Path, clock: list[float]) -> None:
    spool = Spool(tmp_path, "w0", 1 << 20, segment_bytes=100)
    spool.append(b"x" * 100)
    spool.flush()
    assert [s.sealed for s in segments(tmp_path)] == [True]
    spool.append(b"small")
    spool.flush()
    assert [s.sealed for s in segments(tmp_path)] == [True, False]
    clock[0] += module.SEAL_AFTER_SECONDS
    spool.tick()
    assert [s.sealed for s in segments(tmp_path)] == [True, True]
    spool.close()


def test_beyond_its_share_events_are_dropped_and_counted(tmp_path: Path, clock: list[float]) -> None:
    spool = Spool(tmp_path, "w0", 1000, segment_bytes=300)
    other = Spool(tmp_path, "w1", 1000)
    for _ in range(20):
        spool.append(b"x" * 92)
        spool.flush()
        clock[0] += 0.1
    assert len(stored(tmp_path)) == 10
    assert (spool.dropped, spool.dropped_bytes) == (10, 1000)
    other.append(b"mine")
    other.flush()
    assert other.dropped == 0, "each worker has its own share"
    # The collector has stored some of it.
    for segment in segments(tmp_path):
        if segment.worker == "w0" and segment.sealed:
            segment.path.unlink()
    clock[0] += module.SIZE_CHECK_SECONDS
    spool.append(b"again")
    spool.flush()
    assert b"again" in stored(tmp_path)
    spool.close()
    other.close()


@pytest.mark.parametrize("written", ["short", "nothing"])
def test_a_full_disk_loses_the_flush_and_nothing_else(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    spool = Spool(tmp_path, "w0", 1 << 20)
    spool.append(b"before")
    spool.flush()
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if written == "nothing":
            raise OSError(errno.ENOSPC, "full")
        return real(fd, bytes(data)[:20])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        spool.append(b"lost one")
        spool.append(b"lost two")
        spool.flush()
    assert (spool.dropped, spool.failures) == (2, 1)
    assert read_frames(segments(tmp_path)[0].path).state == "whole"
    spool.append(b"too soon")
    spool.flush()
    assert spool.dropped == 3
    clock[0] += module.RETRY_SECONDS[0]
    spool.append(b"after")
    spool.flush()
    assert stored(tmp_path) == [b"before", b"after"]
    spool.close()


def test_if_it_cannot_be_cut_back_the_torn_tail_stays_in_a_segment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    spool = Spool(tmp_path, "w0", 1 << 20)
    spool.append(b"before")
    spool.flush()
    real = os.write

    def refuse(fd: int, size: int) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
        patch.setattr(os, "ftruncate", refuse)
        spool.append(b"lost")
        spool.flush()
    clock[0] += module.RETRY_SECONDS[0]
    spool.append(b"after")
    spool.close()
    assert stored(tmp_path) == [b"before", b"after"]


def test_a_folder_that_is_gone_never_raises(tmp_path: Path, clock: list[float]) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder, "w0", 1 << 20)
    spool.append(b"lost")
    spool.flush()
    assert spool.dropped == 1
    spool.sync()
    folder.mkdir()
    clock[0] += module.RETRY_SECONDS[0]
    spool.append(b"there")
    spool.flush()
    assert stored(folder) == [b"there"]
    spool.close()


def test_sync_flushes_sealed_segments_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or real(fd))
    spool = Spool(tmp_path, "w0", 1 << 20, segment_bytes=1)
    spool.append(b"a")
    spool.flush()
    spool._segment_bytes = 100
    spool.append(b"b")
    spool.flush()
    spool.sync()
    assert sorted(Path(path).suffix for path in synced) == ["", ".open", ".sealed"]
    spool.close()


def test_without_sync_descriptors_do_not_pile_up(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w0", 1 << 20, segment_bytes=1)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        spool.append(b"a")
        spool.flush()
    assert len(os.listdir("/proc/self/fd")) <= before + 16
    spool.close()


def test_an_event_beyond_a_frame_is_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w0", 1 << 30)
    spool.append(b"x" * (MAX_EVENT_BYTES + 1))
    spool.flush()
    assert spool.dropped == 1
    assert list(tmp_path.iterdir()) == []


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "s"
    events = [bytes([n]) * (n * 1000 + 1) for n in range(60)]  # more than one chunk of reading
    path.write_bytes(b"".join(map(frame, events)))
    read, offset = [], 0
    while True:
        frames = read_frames(path, offset, 7)
        read += frames.events
        offset = frames.end
        if frames.state != "more":
            break
    assert read == events
    assert (frames.state, offset) == ("whole", path.stat().st_size)
    assert read_frames(path, offset + 1000).state == "whole", "a position beyond a file that a crash made shorter"


def test_an_incomplete_frame_means_wait(tmp_path: Path) -> None:
    path = tmp_path / "s"
    whole = frame(b"one") + frame(b"two")
    for cut in range(len(frame(b"one")) + 1, len(whole)):
        path.write_bytes(whole[:cut])
        frames = read_frames(path)
        assert (frames.events, frames.state) == ([b"one"], "torn")
        assert frames.end == len(frame(b"one"))
    path.write_bytes(whole)
    assert read_frames(path, frames.end).events == [b"two"]


def test_recovery_of_one_writer_leaves_the_living_alone(tmp_path: Path) -> None:
    dead, living = Spool(tmp_path, "w0", 1 << 20), Spool(tmp_path, "w1", 1 << 20)
    for spool in (dead, living):
        spool.append(b"event")
        spool.flush()
    assert recover_writer(tmp_path, "w0") == Recovered(sealed=1)
    assert {s.worker: s.sealed for s in segments(tmp_path)} == {"w0": True, "w1": False}
    assert recover_all(tmp_path) == Recovered(sealed=1)
    assert [s.sealed for s in segments(tmp_path)] == [True, True]
    living.close()


def test_a_hole_that_a_machine_crash_left_is_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / f"{'0' * 32}-w0.open"
    path.write_bytes(frame(b"one") + b"\0" * 4096)
    assert recover_all(tmp_path) == Recovered(sealed=1, torn_bytes=4096)
    assert stored(tmp_path) == [b"one"]
    assert not list(tmp_path.glob("*.damaged"))


def test_damage_without_room_to_put_it_aside_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"{'0' * 32}-w0.open"
    data = frame(b"one") + b"garbage garbage" + frame(b"two")
    path.write_bytes(data)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert recover_all(tmp_path) == Recovered(failed=1)
    assert path.read_bytes() == data
    assert recover_all(tmp_path).damaged_bytes == len(data) - len(frame(b"one"))
    assert mend(path.with_suffix(".sealed")) == Recovered()


def test_reading_stops_at_a_limit_of_bytes_but_not_before_an_event(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w0", 1 << 20)
    for n in range(5):
        spool.append(b"%d" % n * 92)
    spool.close()
    path = segments(tmp_path)[0].path
    assert read_frames(path, 0, limit_bytes=1)[1:] == ([100], 100, "more")
    frames = read_frames(path, 100, limit_bytes=101)
    assert frames.events == [b"1" * 92, b"2" * 92]
    assert (frames.ends, frames.end) == ([200, 300], 300)
