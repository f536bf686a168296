"""The spool: where a worker leaves its events for the collector, in append-only segments that survive a crash.

A segment is a file of frames, named MOMENT-WORKER.open while its worker writes it and MOMENT-WORKER.sealed
afterwards. Names are unique for ever, so that a position in a segment means something after any crash.

A frame is 8 bytes of header and the event:

    u32 little-endian: the event's length in the low 24 bits, a check of these in the high 8
    u32 little-endian: CRC-32 of the event
    the event (msgpack)

The length has its own check because it is what tells a torn tail (the writer died while writing: its answers never
left, nobody misses these events) from damage (bytes changed: whatever follows was promised, and is put aside).

One write(2) appends the frames of one tick of the event loop, before the answers of that tick leave.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from waypost.events.event import now_us

MAX_EVENT_BYTES = (1 << 24) - 1
HEADER_BYTES = 8
SIZE_CHECK_SECONDS = 1.0
SEAL_AFTER_SECONDS = 10.0
RETRY_SECONDS = (0.1, 2.0)
_UNSYNCED_SEGMENTS = 16

_HEADER = struct.Struct("<II")
_CHUNK = 1 << 20
_NAME = re.compile(r"(?P<moment>[0-9a-f]{32})-(?P<worker>[A-Za-z0-9_]+)\.(?P<state>open|sealed)")


@lru_cache(4096)
def _marked(length: int) -> int:
    """The length with its check in the high byte: no single changed bit goes unseen."""
    return length | ((length + (length >> 8) + (length >> 16) + 0x57) & 0xFF) << 24


def frame(event: bytes) -> bytes:
    """One event as it stands in a segment."""
    return _HEADER.pack(_marked(len(event)), zlib.crc32(event)) + event


class Spool:
    """One worker's end of the spool. Nothing here raises for a disk that is full, read-only or gone.

    folder         DATA/spool; exists.
    worker         this writer's name, letters and digits; no two living writers share one.
    max_bytes      how much this worker's segments may take together; beyond it events are dropped and counted.
    segment_bytes  a segment is sealed when it has grown to this.

    dropped, dropped_bytes   events that were lost to a full or failing disk
    failures                 calls to the operating system that failed
    """

    def __init__(self, folder: Path, worker: str, max_bytes: int, segment_bytes: int = 8 << 20) -> None:
        if not worker.isalnum():
            raise ValueError(f"a worker's name is letters and digits, not {worker!r}")
        self.dropped = 0
        self.dropped_bytes = 0
        self.failures = 0
        self._folder = folder
        self._worker = worker
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._waiting: list[bytes] = []
        self._fd: int | None = None
        self._path = folder
        self._size = 0
        self._moment = 0
        self._opened = 0.0
        self._others = 0
        self._measured = float("-inf")
        self._retry_at = float("-inf")
        self._retry_after = RETRY_SECONDS[0]
        # Sealed segments whose bytes may not be on the disk yet; sync() closes them.
        self._unsynced: deque[int] = deque()

    def append(self, event: bytes) -> None:
        """Take one encoded event; it is written by the next flush."""
        if len(event) > MAX_EVENT_BYTES:
            self._drop(1, len(event))
            return
        self._waiting.append(event)

    def flush(self) -> None:
        """Write what was appended, in one call. What cannot be written whole is dropped and counted."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        buffer, events = b"".join(map(frame, waiting)), len(waiting)
        now = time.monotonic()
        if now - self._measured >= SIZE_CHECK_SECONDS:
            self._measure(now)
        if (
            now < self._retry_at
            or self._others + self._size + len(buffer) > self._max_bytes
            or (self._fd is None and not self._open(now))
            or not self._write(buffer, now)
        ):
            self._drop(events, len(buffer))
            return
        self._retry_after = RETRY_SECONDS[0]
        if self._size >= self._segment_bytes or now - self._opened >= SEAL_AFTER_SECONDS:
            self._seal()

    def tick(self) -> None:
        """Seal a segment that has been open for long. Call it every few seconds: an idle worker flushes nothing."""
        if self._fd is not None and time.monotonic() - self._opened >= SEAL_AFTER_SECONDS:
            self._seal()

    def sync(self) -> None:
        """fsync what was written so far. May run in a thread, one call at a time."""
        current = self._fd
        with contextlib.suppress(IndexError):
            while True:
                sealed = self._unsynced.popleft()
                self._attempt(os.fsync, sealed)
                os.close(sealed)
        if current is None:
            return
        # If the segment was sealed meanwhile, its descriptor is in the queue or closed: next time is early enough.
        with contextlib.suppress(OSError):
            copy = os.dup(current)
            self._attempt(os.fsync, copy)
            os.close(copy)
        with contextlib.suppress(OSError):
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            self._attempt(os.fsync, folder)
            os.close(folder)

    def close(self) -> None:
        """Write and seal what is left."""
        self.flush()
        if self._fd is not None:
            self._seal()
        self.sync()

    def _open(self, now: float) -> bool:
        # Time first, so that names sort; chance behind it, so that no other writer ever has the same.
        self._moment = max(self._moment + 1, now_us())
        self._path = self._folder / f"{self._moment:016x}{secrets.token_hex(8)}-{self._worker}.open"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
        except OSError:
            self._back_off(now)
            return False
        self._size, self._opened = 0, now
        return True

    def _write(self, buffer: bytes, now: float) -> bool:
        assert self._fd is not None
        try:
            written = os.write(self._fd, buffer)
        except OSError:
            written = -1
        if written == len(buffer):
            self._size += written
            return True
        self._back_off(now)
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            # A torn tail stays behind. The collector takes whole frames only, and cuts the rest.
            self._seal()
        return False

    def _seal(self) -> None:
        assert self._fd is not None
        # If this fails it stays .open: the collector reads it all the same, and recovery seals it at the next start.
        self._attempt(os.rename, self._path, self._path.with_suffix(".sealed"))
        self._unsynced.append(self._fd)
        self._others += self._size
        self._fd, self._size = None, 0
        if len(self._unsynced) > _UNSYNCED_SEGMENTS:  # nobody calls sync(): it is not wanted
            os.close(self._unsynced.popleft())

    def _measure(self, now: float) -> None:
        """How much the other segments of this worker take; the collector deletes what it has stored."""
        self._measured = now
        total = 0
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    match = _NAME.fullmatch(entry.name)
                    if match and match["worker"] == self._worker and entry.name != self._path.name:
                        with contextlib.suppress(FileNotFoundError):
                            total += entry.stat().st_size
        except OSError:
            self.failures += 1
            return
        self._others = total

    def _back_off(self, now: float) -> None:
        self.failures += 1
        self._retry_at = now + self._retry_after
        self._retry_after = min(self._retry_after * 2, RETRY_SECONDS[1])

    def _drop(self, events: int, size: int) -> None:
        self.dropped += events
        self.dropped_bytes += size

    def _attempt(self, call: Callable[..., object], *arguments: object) -> bool:
        try:
            call(*arguments)
        except OSError:
            self.failures += 1
            return False
        return True


class Segment(NamedTuple):
    """A segment in the folder. `name` is the same before and after it is sealed."""

    name: str
    worker: str
    sealed: bool
    path: Path


def segments(folder: Path) -> list[Segment]:
    """Every segment, in the order in which they were begun."""
    found: dict[str, Segment] = {}
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match:
            # One that is being renamed may be listed under both names: sealed is the truth.
            segment = Segment(path.stem, match["worker"], match["state"] == "sealed", path)
            if segment.sealed or segment.name not in found:
                found[segment.name] = segment
    return sorted(found.values())


class Frames(NamedTuple):
    """What was read of a segment.

    events   in the order of writing
    ends     for each of them the offset behind its frame
    end      offset behind the last whole frame
    state    "more": there may be more to read now; "whole": nothing follows;
             "torn": a frame is incomplete; "damaged": what follows is not a frame
    """

    events: list[bytes]
    ends: list[int]
    end: int
    state: str


def read_frames(path: Path, offset: int = 0, limit: int = 1 << 62, limit_bytes: int = 1 << 62) -> Frames:
    """Read from an offset that is the end of a frame, until a limit is reached or passed. Raises OSError.

    In an open segment, "torn" means wait. So does "damaged": a writer may just be cutting a failed write back.
    """
    events: list[bytes] = []
    ends: list[int] = []
    until = offset + limit_bytes
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        start = 0  # of the unread part of data
        while len(events) < limit and offset < until:
            left = len(data) - start
            need = HEADER_BYTES
            if left >= HEADER_BYTES:
                marked, checksum = _HEADER.unpack_from(data, start)
                length = marked & MAX_EVENT_BYTES
                if not length or _marked(length) != marked:
                    return Frames(events, ends, offset, "damaged")
                need += length
                if left >= need:
                    event = data[start + HEADER_BYTES : start + need]
                    if zlib.crc32(event) != checksum:
                        return Frames(events, ends, offset, "damaged")
                    start += need
                    offset += need
                    events.append(event)
                    ends.append(offset)
                    continue
            more = os.pread(fd, max(_CHUNK, need - left), offset + left)
            if not more:
                return Frames(events, ends, offset, "torn" if left else "whole")
            data = data[start:] + more
            start = 0
        return Frames(events, ends, offset, "more")
    finally:
        os.close(fd)


class Recovered(NamedTuple):
    """What recovery did. Torn bytes were never promised to anybody; damaged bytes were, and stand in .damaged files."""

    sealed: int = 0
    torn_bytes: int = 0
    damaged_bytes: int = 0
    failed: int = 0

    def plus(self, other: Recovered) -> Recovered:
        return Recovered(*(a + b for a, b in zip(self, other, strict=True)))


def recover_all(folder: Path) -> Recovered:
    """Seal every segment. At start, before any worker runs."""
    return _recover(segment for segment in segments(folder) if not segment.sealed)


def recover_writer(folder: Path, worker: str) -> Recovered:
    """Seal the segments of a worker that is dead and reaped, before another one takes its name."""
    return _recover(s for s in segments(folder) if not s.sealed and s.worker == worker)


def _recover(found: Iterable[Segment]) -> Recovered:
    total = Recovered()
    for segment in found:
        try:
            total = total.plus(mend(segment.path))
            segment.path.rename(segment.path.with_suffix(".sealed"))
            total = total.plus(Recovered(sealed=1))
        except OSError:
            # A full disk has no room to put damage aside. It stays .open, is read up to there, and waits.
            total = total.plus(Recovered(failed=1))
    return total


def mend(path: Path) -> Recovered:
    """Cut a segment that nobody writes any more behind its last whole frame. Raises OSError.

    A torn tail is dropped. Damage is first copied to NAME.damaged; doing it twice does no harm.
    """
    offset, state = 0, "more"
    while state == "more":
        *_, offset, state = read_frames(path, offset, 10_000, _CHUNK)
    if state == "whole":
        return Recovered()
    with path.open("r+b") as file:
        file.seek(offset)
        rest = file.read()
        # After a machine crash the file system may show zeros where nothing was written yet.
        torn = state == "torn" or not rest.strip(b"\0")
        if not torn:
            with path.with_suffix(".damaged").open("wb") as aside:
                aside.write(rest)
                aside.flush()
                os.fsync(aside.fileno())
        file.truncate(offset)
        os.fsync(file.fileno())
    return Recovered(torn_bytes=len(rest)) if torn else Recovered(damaged_bytes=len(rest))
