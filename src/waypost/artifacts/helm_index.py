"""The index.yaml of a Helm repository: which charts it lists, and where in its text each URL stands.

Read by events, as they come from the parser: an index may have tens of thousands of entries, of which three values are
wanted. All else stays as it was written, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import yaml


class NotAnIndex(Exception):
    """The text is no index of charts, or is written in a way that is not understood here. Says why."""


class Link(NamedTuple):
    """A URL, and where it stands in the text."""

    start: int
    end: int
    url: str


class Chart(NamedTuple):
    name: str
    version: str
    links: tuple[Link, ...]


def read_charts(text: str) -> Iterator[Chart]:
    """The charts in the order of the text. Raises NotAnIndex, at any point."""
    try:
        yield from _Reader(iter(yaml.parse(text, Loader=yaml.CSafeLoader))).charts()
    except yaml.YAMLError as error:
        raise NotAnIndex(f"no YAML: {_brief(error)}") from None


def relinked(text: str, links: Iterator[tuple[Link, str]]) -> str:
    """The text with other URLs: each link, in the order of the text, and what takes its place, in quotes."""
    pieces: list[str] = []
    done = 0
    for link, url in links:
        pieces += text[done : link.start], msgspec.json.encode(url).decode()
        done = link.end
    return "".join([*pieces, text[done:]])


class _Reader:
    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events

    def charts(self) -> Iterator[Chart]:
        for event in self._events:
            if not isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
                break
        else:
            raise NotAnIndex("it is empty")
        found = False
        for key, value in self._pairs(event):
            if key != "entries":
                self._pass(value)
                continue
            found = True
            # `entries: null` is what a repository without charts may say.
            for name, versions in [] if isinstance(value, yaml.ScalarEvent) else self._pairs(value):
                yield from (self._chart(name, entry) for entry in self._items(versions))
        if not found:
            raise NotAnIndex("it has no `entries`")

    def _chart(self, name: str, start: Any) -> Chart:
        version = ""
        links: tuple[Link, ...] = ()
        for key, value in self._pairs(start):
            if key == "name":
                name = self._scalar(value).value
            elif key == "version":
                version = self._scalar(value).value
            elif key == "urls":
                links = tuple(map(self._link, self._items(value)))
            else:
                self._pass(value)
        return Chart(name, version, links)

    def _pairs(self, start: Any) -> Iterator[tuple[str, Any]]:
        """The keys of a mapping, each with the event that its value starts with. Whoever takes one takes it whole."""
        if not isinstance(start, yaml.MappingStartEvent):
            raise NotAnIndex(f"there is no mapping in line {start.start_mark.line + 1}")
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            yield self._scalar(key).value, next(self._events)

    def _items(self, start: Any) -> Iterator[Any]:
        if isinstance(start, yaml.ScalarEvent):
            return  # null
        if not isinstance(start, yaml.SequenceStartEvent):
            raise NotAnIndex(f"there is no list in line {start.start_mark.line + 1}")
        while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
            yield item

    def _scalar(self, event: Any) -> Any:
        if not isinstance(event, yaml.ScalarEvent):
            raise NotAnIndex(f"there is no plain text in line {event.start_mark.line + 1}")
        return event

    def _link(self, event: Any) -> Link:
        self._scalar(event)
        return Link(event.start_mark.index, event.end_mark.index, event.value)

    def _pass(self, event: Any) -> None:
        depth = int(isinstance(event, yaml.CollectionStartEvent))
        while depth:
            event = next(self._events)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)


def _brief(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark is not None else ""
    return f"{getattr(error, 'problem', None) or 'it cannot be read'}{where}"
