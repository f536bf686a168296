"""The collector: moves facts from the spool to the store, and decides on the way what counts.

Workers write segments; one step reads what is new in all of them, puts it in order, folds it through the law source by
source, and commits rows, changed verdicts and positions in one transaction. Killed before the commit, nothing
happened; killed after it, the position says so. A sealed segment is deleted once its last position is committed.

A fact may still come late: a worker was slow, or was killed and its segment recovered. Then the rows of its source are
read back, the state just before it is rebuilt, and everything from there on is judged again.
"""

from __future__ import annotations

import contextlib
import gc
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import attrgetter
from pathlib import Path

import msgspec
from msgspec import Struct

from waypost.counting.client import Clients, table
from waypost.counting.law import Source, horizon_us
from waypost.counting.pulls import Pull
from waypost.events.event import Event, decode_event, now_us
from waypost.events.spool import Frames, Segment, mend, read_frames, segments
from waypost.stores.store import Change, Row, Store, Stored, StoreError, Verdict

# What one step may take: more events than DuckDB has in a row group, so that a backlog goes past its log into the file.
BATCH = 160_000
# And hardly more than this of the spool, the last event apart: a step at this bound made a process of 0.9 GB.
BATCH_BYTES = 64 << 20
# Workers flush within a tick; after this long their facts of one moment are all in the spool.
HOLD_BACK_US = 200_000
# A clock was set back: facts seem to come from the future, and waiting for it would stop the line.
FUTURE_US = 1_000_000
# For how long a source that was seen keeps its identity after the key was replaced (events/identity.py).
ADOPT_US = 15 * 60 * 1_000_000
SWEEP_US = 10 * 1_000_000

Key = tuple[int, bytes]


class Settings(Struct, frozen=True):
    """[count] of waypost.toml."""

    merge_seconds: float = 10


_time_of: Callable[[Event], int] = attrgetter("time")
_origin_was: Callable[[Event], bytes | None] = attrgetter("origin_was")
key_of: Callable[[Event], Key] = attrgetter("time", "id")


class Chunk(Struct):
    """Facts that were read of one segment and are not committed; `ends` are the offsets behind their frames.

    start   offset before the first of them
    newest  their greatest time
    """

    segment: str
    facts: list[Event]
    ends: list[int]
    start: int
    newest: int

    def ready(self, until_us: int, held: range) -> int:
        """How many facts at the beginning are not after a moment, nor in the span that is held back."""
        if self.newest <= until_us and self.newest < held.start:
            return len(self.facts)
        for number, fact in enumerate(self.facts):
            if fact.time > until_us or fact.time in held:
                return number
        return len(self.facts)

    def after(self, taken: int) -> Chunk:
        """What is left when so many were taken, but not all."""
        start = self.ends[taken - 1] if taken else self.start
        return Chunk(self.segment, self.facts[taken:], self.ends[taken:], start, max(map(_time_of, self.facts[taken:])))


class Lane:
    """One worker's segments in the order of writing: what was read ahead, and up to where. `behind`: there is more."""

    __slots__ = ("behind", "chunks", "reached")

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.reached: dict[str, int] = {}
        self.behind = False

    def __len__(self) -> int:
        return sum(len(chunk.facts) for chunk in self.chunks)

    def size(self) -> int:
        """Bytes that they take in the spool."""
        return sum(chunk.ends[-1] - chunk.start for chunk in self.chunks)

    def newest_us(self) -> int:
        return max(chunk.newest for chunk in self.chunks)


@contextlib.contextmanager
def _no_cycles_sought() -> Iterator[None]:
    """A step makes hundreds of thousands of objects, none in a cycle: looking for cycles took a quarter of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Collector:
    """The one reader of a spool and the one writer of a store. Not thread-safe: one thread calls step().

    stored          events stored so far by this collector
    unreadable      whole frames that are no event that we know; they are put aside in NAME.damaged
    damaged_bytes   bytes that were damaged on the disk, put aside likewise
    backlog         True when the last step left work behind: step again at once
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        settings: Settings,
        *,
        clock: Callable[[], int] = now_us,
        batch: int = BATCH,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self.stored = 0
        self.unreadable = 0
        self.damaged_bytes = 0
        self.backlog = False
        self._folder = folder
        self._store = store
        self._clock = clock
        self._batch = batch
        self._batch_bytes = batch_bytes
        self._merge_us = int(settings.merge_seconds * 1_000_000)
        self._horizon_us = horizon_us(self._merge_us)
        self._client_of = Clients(table()).of
        self._fresh = False

    def step(self) -> int:
        """Store what is there, up to a bounded batch. Returns how many events that were.

        Raises StoreError; then everything is as if the step had not begun, and it may be tried again later.
        """
        try:
            if not self._fresh:
                self._begin()
            with _no_cycles_sought():
                return self._step()
        except BaseException:
            # What we hold in memory may be ahead of the store: read all of it anew.
            self._fresh = False
            raise

    def _begin(self) -> None:
        """Start from what the store says, as after a crash."""
        self._positions = self._store.positions()
        self._forget = [name for name in self._positions if not self._exists(name)]
        self._lanes: dict[str, Lane] = {}
        self._done: set[str] = set()
        self._sources: dict[bytes, Source] = {}
        newest = self._store.newest_us()
        # A source that we do not hold is new to us only from here on; before, the store must be asked.
        self._floor = 0 if newest is None else newest + self._horizon_us + 1
        self._watermark = self._swept = 0
        self._latest: Key = (0, b"")
        self._fresh = True

    def _exists(self, name: str) -> bool:
        # In this order: a segment turns from open to sealed, and never back.
        return (self._folder / f"{name}.open").exists() or (self._folder / f"{name}.sealed").exists()

    def _step(self) -> int:
        found = segments(self._folder)
        by_worker: dict[str, list[Segment]] = {}
        for segment in found:
            by_worker.setdefault(segment.worker, []).append(segment)
        for worker, own in by_worker.items():
            limits = self._batch // len(by_worker), self._batch_bytes // len(by_worker)
            self._read(self._lanes.setdefault(worker, Lane()), own, *limits)
        facts, positions = self._take()
        rows, changes = self._judge(facts) if facts else ([], [])
        if rows or changes or positions or self._forget:
            self._store.commit(rows, changes, positions, self._forget)
            self._positions.update(positions)
            for name in self._forget:
                self._positions.pop(name, None)
            self._forget = []
        self._delete(found)
        self._sweep()
        self.stored += len(rows)
        return len(rows)

    # Reading

    def _read(self, lane: Lane, own: list[Segment], limit: int, limit_bytes: int) -> None:
        """Fill a lane up to a limit; an empty one gets an event at least."""
        lane.behind = False
        for segment in own:
            if segment.name in self._done:
                continue
            room, room_bytes = limit - len(lane), limit_bytes - lane.size()
            if lane.chunks and (room <= 0 or room_bytes <= 0):
                lane.behind = True
                return
            start = lane.reached.get(segment.name, self._positions.get(segment.name, 0))
            frames = self._frames(segment, start, max(room, 1), max(room_bytes, 1))
            if frames is None:
                continue
            facts, ends = self._decoded(frames, segment)
            if facts:
                lane.chunks.append(Chunk(segment.name, facts, ends, start, max(map(_time_of, facts))))
            lane.reached[segment.name] = frames.end
            if frames.state == "more":
                lane.behind = True
                return
            if segment.sealed and (frames.state == "whole" or self._mend(segment)):
                self._done.add(segment.name)

    def _frames(self, segment: Segment, start: int, room: int, room_bytes: int) -> Frames | None:
        try:
            return read_frames(segment.path, start, room, room_bytes)
        except FileNotFoundError:
            return None  # sealed a moment ago: found under its new name by the next step

    def _decoded(self, frames: Frames, segment: Segment) -> tuple[list[Event], list[int]]:
        try:
            return list(map(decode_event, frames.events)), frames.ends
        except msgspec.MsgspecError:
            pass
        facts, ends = [], []
        for event, end in zip(frames.events, frames.ends, strict=True):
            try:
                facts.append(decode_event(event))
                ends.append(end)
            except msgspec.MsgspecError:
                self.unreadable += 1
                with contextlib.suppress(OSError), segment.path.with_suffix(".damaged").open("ab") as aside:
                    aside.write(event)
        return facts, ends

    def _mend(self, segment: Segment) -> bool:
        try:
            self.damaged_bytes += mend(segment.path).damaged_bytes
        except OSError:
            return False  # no room to put it aside: it stays where it is, and we come back
        return True

    def _take(self) -> tuple[list[Event], dict[str, int]]:
        """The next facts in order, and the positions behind them.

        While one lane has more to read, the others wait at the time that it has reached, so that a backlog is worked
        off in order: order is what makes it fast.
        """
        now = self._clock()
        held = range(now - HOLD_BACK_US + 1, now + FUTURE_US + 1)
        behind = [lane for lane in self._lanes.values() if lane.behind]
        until = min((lane.newest_us() for lane in behind), default=1 << 62)
        facts: list[Event] = []
        positions: dict[str, int] = {}
        for lane in self._lanes.values():
            while lane.chunks:
                chunk = lane.chunks[0]
                ready = chunk.ready(until, held)
                if ready:
                    facts += chunk.facts[:ready]
                    positions[chunk.segment] = chunk.ends[ready - 1]
                if ready < len(chunk.facts):
                    lane.chunks[0] = chunk.after(ready)
                    break
                del lane.chunks[0]
        # With nothing ready, all that was read is young: there is no hurry.
        self.backlog = bool(behind and facts)
        facts.sort(key=key_of)
        return facts, positions

    def _delete(self, found: Iterable[Segment]) -> None:
        """Delete segments whose every fact is committed; their positions go with a later commit."""
        pending = {chunk.segment for lane in self._lanes.values() for chunk in lane.chunks}
        for segment in found:
            if segment.sealed and segment.name in self._done and segment.name not in pending:
                with contextlib.suppress(OSError):
                    segment.path.unlink(missing_ok=True)
                    self._done.discard(segment.name)
                    if segment.name in self._positions:
                        self._forget.append(segment.name)
                    for lane in self._lanes.values():
                        lane.reached.pop(segment.name, None)

    # Judging

    def _judge(self, facts: list[Event]) -> tuple[list[Row], list[Change]]:
        self._adopt(facts)
        touched: dict[bytes, Pull] = {}
        again = {origin: _Again(self._merge_us, *found) for origin, found in self._reload(facts).items()}
        sources, merge_us, client_of = self._sources, self._merge_us, self._client_of
        sources |= {origin: one.source for origin, one in again.items()}
        rows = []
        for fact in facts:
            origin = fact.origin_id
            if again and origin in again:
                again[origin].catch_up(key_of(fact))
            source = sources.get(origin) if origin is not None else None
            if source is None:
                source = Source(merge_us)
                if origin is not None:
                    sources[origin] = source
            verdict, pull = source.judge(fact)
            if pull is not None:
                touched[pull.id] = pull
            rows.append(Row(fact, verdict, *client_of(fact.user_agent)))
        self._latest = max(self._latest, key_of(facts[-1]))
        self._watermark = max(self._watermark, min(facts[-1].time, self._clock()))
        return rows, self._changes(facts, again.values(), touched)

    def _changes(self, facts: list[Event], again: Collection[_Again], touched: dict[bytes, Pull]) -> list[Change]:
        """What is another verdict now, of rows that were stored before."""
        changes: dict[bytes, Change] = {}
        for one in again:
            changes.update(one.finish())
        new = {fact.id for fact in facts} if touched else set()
        reloaded = {row.fact.id for one in again for row in one.rows}
        for pull in touched.values():
            if pull.id not in new and pull.id not in reloaded:
                changes[pull.id] = Change(pull.id, pull.time, pull.verdict)
        return list(changes.values())

    def _reload(self, facts: list[Event]) -> dict[bytes, tuple[Key, list[Stored]]]:
        """Read back the sources whose state we lack or are ahead of: origin → (its first new fact, its rows)."""
        if facts[0].time >= self._floor and key_of(facts[0]) > self._latest:
            return {}  # all of it is news: nearly always
        firsts: dict[bytes, Key] = {}
        first_of = {fact.origin_id: fact for fact in reversed(facts)}
        first_of.pop(None, None)
        for origin, fact in first_of.items():
            assert origin is not None
            source = self._sources.get(origin)
            # A source that we do not hold may have been forgotten only if it is older than the floor.
            if fact.time < self._floor if source is None else key_of(fact) < source.last:
                firsts[origin] = key_of(fact)
        if not firsts:
            return {}
        rows = self._store.timeline({origin: key[0] - self._horizon_us for origin, key in firsts.items()})
        return {origin: (key, rows.get(origin, [])) for origin, key in firsts.items()}

    def _adopt(self, facts: list[Event]) -> None:
        """Keep a source that was just seen under its old identity while the key has been replaced.

        Whoever is held in memory under either name stays so; otherwise the store says whether the old name was
        seen. The two names are never stored side by side.
        """
        if not any(map(_origin_was, facts)):
            return
        asked: dict[bytes, int] = {}
        for fact in facts:
            was = fact.origin_was
            if was is not None and was not in self._sources and fact.origin_id not in self._sources:
                asked.setdefault(was, fact.time - ADOPT_US)
        seen = {origin: rows[-1].fact.time for origin, rows in self._store.timeline(asked).items()}
        for fact in facts:
            was = fact.origin_was
            if was is not None:
                source = self._sources.get(was)
                last = max(seen.get(was, -1), source.last[0] if source else -1)
                if last >= fact.time - ADOPT_US:
                    fact.origin_id, fact.endpoint_id = was, fact.endpoint_was
            if fact.origin_id is not None:
                seen[fact.origin_id] = fact.time

    def _sweep(self) -> None:
        """Let go of sources for which a fact from now on finds nothing open."""
        if self._watermark < self._swept + SWEEP_US:
            return
        self._swept = self._watermark
        now = self._watermark - HOLD_BACK_US
        self._sources = {origin: source for origin, source in self._sources.items() if not source.over(now)}
        self._floor = max(self._floor, now)


class _Again:
    """A source that is judged again from its first new fact on, together with the rows that follow it."""

    def __init__(self, merge_us: int, since: Key, rows: list[Stored]) -> None:
        self.rows = rows
        self.source = Source(merge_us)
        self._before = [msgspec.structs.replace(row.verdict) for row in rows]
        self._verdicts: list[Verdict] = []
        self._next = bisect_left(rows, since, key=lambda row: key_of(row.fact))
        for row in rows[: self._next]:
            self.source.restore(row.fact, row.verdict)
            self._verdicts.append(row.verdict)

    def catch_up(self, key: Key | None) -> None:
        """Judge the rows before `key`, or all that are left."""
        while self._next < len(self.rows) and (key is None or key_of(self.rows[self._next].fact) < key):
            self._verdicts.append(self.source.judge(self.rows[self._next].fact)[0])
            self._next += 1

    def finish(self) -> Iterable[tuple[bytes, Change]]:
        """Rows whose verdict is another one now."""
        self.catch_up(None)
        for row, before, verdict in zip(self.rows, self._before, self._verdicts, strict=True):
            if verdict != before:
                yield row.fact.id, Change(row.fact.id, row.fact.time, verdict)


__all__ = ["Collector", "Settings", "StoreError"]
