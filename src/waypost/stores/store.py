"""The event store: what every engine promises. tests/unit/test_store.py is this contract as a test.

A store has one owner, the collector's process; others may open the file read-only when no server runs. `commit` is
one transaction: rows, changed verdicts and positions are all there after a crash, or none of them is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from waypost.events.event import Event


class StoreError(Exception):
    """The store cannot do what it was asked to. Base of the errors below; itself: ours."""


class StoreBusyError(StoreError):
    """Another process owns the store; the operator asks that one, or stops it."""


class StoreMissingError(StoreError):
    """There is no store yet; the operator named another folder, or nothing was served so far."""


class StoreVersionError(StoreError):
    """A newer Waypost wrote this store; the operator runs that one. Or an earlier one did, and it may only be read."""


class StoreFailedError(StoreError):
    """The engine failed, mostly for want of disk or memory: the operator's machine. Nothing was committed, or all."""


class Verdict(Struct, gc=False):
    """What the collector decided about a fact.

    counted    whether it is a download (or a view, or a telemetry event)
    rule       which rule of docs/what-we-count.md left it out; None if counted
    part_of    id of the first fetch that it merged into (C6), or of the opener of the pull it belongs to (C7)
    version, tag, platform   as rules C8 and C7 resolve them; else as the fact says
    """

    counted: bool
    rule: str | None = None
    part_of: bytes | None = None
    version: str | None = None
    tag: str | None = None
    platform: str | None = None


class Row(Struct, gc=False):
    """A fact with everything that was decided about it, to be stored. `class_` is C12's."""

    fact: Event
    verdict: Verdict
    client: str | None
    client_version: str | None
    class_: str


class Stored(Struct, gc=False):
    """A fact and its verdict, as read back. The fact has what the law needs; the rest of it is at its default."""

    fact: Event
    verdict: Verdict


class Change(Struct, gc=False):
    """A stored row has another verdict now. `time` is the row's own: engines find it sooner."""

    id: bytes
    time: int
    verdict: Verdict


COUNTED_CLASSES = ("person-or-machine",)
LEFT_OUT_CLASSES = ("ci", "mirror", "bot")

BY = (
    "version",
    "country",
    "client",
    "day",
    "package",
    "platform",
    "domain",
    "kind",
    "class",
    "tag",
    "owner",
    "artifact",
    "upstream",
)


class Line(Struct):
    """One line of a statistic.

    key        the value it stands for; None where the events do not say. Days are "2026-11-21", UTC.
    downloads  that counted
    sources    distinct origin_id among them: exact within one rotation of the identity key
    views      pixel fetches
    telemetry  telemetry events
    merged     fetches that C6 merged into one of the downloads
    """

    key: str | None
    downloads: int
    sources: int
    views: int
    telemetry: int
    merged: int


class Stats(Struct):
    """An answer to `stats`. `left_out`: class → downloads, views and telemetry that the lines do not show (C12)."""

    by: str | None
    since_us: int
    until_us: int
    lines: list[Line]
    total: Line
    left_out: dict[str, int]


class Used(Struct, frozen=True):
    """A tag of an image, or a digest where no tag was named, as it was asked for.

    digest  what it was when it was asked for last; None where no registry said
    pulls   that counted
    times   that it was asked for by itself, not as a part of a pull: HEADs and what is no pull included
    """

    reference: str
    digest: str | None
    pulls: int
    times: int


class InUse(Struct):
    """An answer to `in_use`: the most pulled first. `indexes`: digest of an index → what it lists."""

    used: list[Used]
    indexes: dict[str, list[str]]


class Store(Protocol):
    def positions(self) -> dict[str, int]:
        """Segment name → offset up to which its events are stored."""
        ...

    def newest_us(self) -> int | None:
        """The greatest time of any row; None when there is none."""
        ...

    def commit(
        self,
        rows: Sequence[Row],
        changes: Sequence[Change],
        positions: Mapping[str, int],
        forget: Sequence[str] = (),
    ) -> None:
        """Store all of it, or raise StoreError. After an error only `positions` says whether it happened."""
        ...

    def timeline(self, since_us: Mapping[bytes, int]) -> dict[bytes, list[Stored]]:
        """origin_id → its rows from that moment on, sorted by (time, id). Sources without rows are absent."""
        ...

    def stats(
        self,
        package: str | None = None,
        *,
        since_us: int,
        until_us: int,
        by: str | None = None,
        everything: bool = False,
    ) -> Stats:
        """Count. Without `everything`, classes ci, mirror and bot are left out, and the answer says how many."""
        ...

    def events(
        self, after: int = 0, *, limit: int = 1000, since_us: int | None = None, package: str | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """(cursor, event as JSON has it) in the order of storing; pass the last cursor as `after` to go on.

        A verdict may still change after its event was given out, while facts arrive out of order.
        """
        ...

    def in_use(self, package: str, *, since_us: int) -> InUse:
        """What of an image people ask for, whoever they are: ci, mirrors and bots would miss it as well."""
        ...

    def last_cursor(self) -> int:
        """The cursor of the newest event; 0 when there is none."""
        ...

    def close(self) -> None: ...
