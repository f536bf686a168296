"""Where commands get numbers: from the server that owns the store, or from the store itself when none runs."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from waypost.console.question import END, PAGE, ImageQuestion, Page, Question
from waypost.data import DataDirectory, Running
from waypost.stores.duckdb import DuckStore
from waypost.stores.store import InUse, Stats, StoreError

FOLLOW_EVERY = 0.5  # seconds
TIMEOUT = 60.0
T = TypeVar("T")
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NoNumbers(Exception):
    """Nobody can answer: the operator named the wrong folder, or the server is in trouble."""


class Numbers(Protocol):
    """Somebody who can answer. All raise NoNumbers. `follow`: only what is stored from now on, for ever."""

    def stats(self, question: Question) -> Stats: ...

    def events(self, follow: bool) -> Iterator[dict[str, Any]]: ...

    def in_use(self, question: ImageQuestion) -> InUse: ...


def numbers(data: Path) -> Numbers:
    """The running server of a data directory, or its store. Raises NoNumbers."""
    directory = DataDirectory(data)
    running = directory.running()
    if running is not None:
        return Asked(running)
    if not directory.store.exists():
        raise NoNumbers(f"{data} holds no events yet; is --data the folder that `waypost serve` uses?")
    return Opened(directory)


class Asked:
    """Asks the server over its console address, as whoever may read its data directory."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def stats(self, question: Question) -> Stats:
        return self._get("/stats", msgspec.to_builtins(question), Stats)

    def events(self, follow: bool) -> Iterator[dict[str, Any]]:
        for page in self.pages(END if follow else 0):
            yield from page
            if not page and not follow:
                return
            if len(page) < PAGE and follow:
                time.sleep(FOLLOW_EVERY)

    def in_use(self, question: ImageQuestion) -> InUse:
        return self._get("/in-use", msgspec.to_builtins(question), InUse)

    def pages(self, after: int | str) -> Iterator[list[dict[str, Any]]]:
        """Events after a cursor, as many as there are at the moment of asking, for ever."""
        while True:
            page = self._get("/events", {"after": after}, Page)
            after = page.after
            yield [event for _, event in page.events]

    def metrics(self) -> dict[str, list[float]]:
        """Metric → its values, one for each worker where workers have their own."""
        families = text_string_to_metric_families(self._ask("/metrics").decode())
        values: dict[str, list[float]] = {}
        for sample in (sample for family in families for sample in family.samples):
            values.setdefault(sample.name, []).append(sample.value)
        return values

    def _get(self, path: str, query: dict[str, Any], kind: type[T]) -> T:
        try:
            return msgspec.json.decode(self._ask(f"{path}?{urlencode(query)}"), type=kind)
        except msgspec.MsgspecError as error:
            raise NoNumbers(f"the server answers what is no answer; is it of another version? ({error})") from None

    def _ask(self, target: str) -> bytes:
        request = urllib.request.Request(  # noqa: S310  the address is the server's own announcement
            f"{self._running.console}{target}",
            headers={"Authorization": f"Bearer {self._running.token}"},
        )
        try:
            # No proxy of the environment: the console is on this machine.
            with _opener.open(request, timeout=TIMEOUT) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            raise NoNumbers(
                f"the server answers {error.code}: {error.read(500).decode('utf-8', 'replace').strip()}"
            ) from None
        except OSError as error:
            raise NoNumbers(
                f"the server at {self._running.console} does not answer; it stopped, or is busy ({error})"
            ) from None


class Opened:
    """Reads the store, which nobody writes now. What is still in the spool is counted at the next start."""

    def __init__(self, directory: DataDirectory) -> None:
        try:
            self._store = DuckStore(directory.store, directory.temporary, read_only=True)
        except StoreError as error:
            raise NoNumbers(str(error)) from None

    def stats(self, question: Question) -> Stats:
        return question.ask(self._store)

    def in_use(self, question: ImageQuestion) -> InUse:
        return question.ask(self._store)

    def events(self, follow: bool) -> Iterator[dict[str, Any]]:
        if follow:
            raise NoNumbers("--follow needs a running server")
        after = 0
        while page := list(self._store.events(after, limit=PAGE)):
            for after, event in page:  # noqa: B007
                yield event
