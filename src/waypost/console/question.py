"""What people ask of the store, as it goes over the wire between commands and the server."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from waypost.stores.store import BY, InUse, Stats, Store

PAGE = 1000  # events in one answer
END = "end"  # instead of a cursor: go on from what is newest now


class Question(Struct, kw_only=True, omit_defaults=True):
    """Arguments of Store.stats. Times in microseconds since 1970, the later one excluded."""

    package: str | None = None
    since_us: int
    until_us: int
    by: str | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        if self.by is not None and self.by not in BY:
            raise ValueError(f"by: found {self.by!r}; expected one of {', '.join(BY)}")

    def ask(self, store: Store) -> Stats:
        return store.stats(
            self.package,
            since_us=self.since_us,
            until_us=self.until_us,
            by=self.by,
            everything=self.everything,
        )


class ImageQuestion(Struct, kw_only=True):
    """Arguments of Store.in_use."""

    package: str
    since_us: int

    def ask(self, store: Store) -> InUse:
        return store.in_use(self.package, since_us=self.since_us)


class Page(Struct):
    """(cursor, event) pairs in the order of storing, and the cursor to go on from."""

    events: list[tuple[int, dict[str, Any]]]
    after: int
