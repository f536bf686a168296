"""With what: client, version and class, out of a User-Agent.

The rows of clients.toml each describe one client by a regular expression; no two of them match the same User-Agent, so
their order means nothing. What no `client` row knows is tried on the `stranger` rows (words that give crawlers
away), and otherwise called by its first product token.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import msgspec
from msgspec import Struct

PERSON_OR_MACHINE, CI, MIRROR, BOT = "person-or-machine", "ci", "mirror", "bot"
CACHE_ENTRIES = 32_768
# Longer ones are cut before anything looks at them: no regular expression below is slow, and none needs more.
_LONGEST = 2048


class Client(NamedTuple):
    """name and version are None where the User-Agent does not say. class_ is one of C12's."""

    name: str | None
    version: str | None
    class_: str


class Pattern(Struct, forbid_unknown_fields=True, rename={"class_": "class"}):
    """A row of clients.toml. `ci`: an expression that, found anywhere, says that a CI system runs it."""

    name: str
    pattern: str
    class_: str = PERSON_OR_MACHINE
    ci: str | None = None


class Table(Struct, forbid_unknown_fields=True):
    client: list[Pattern]
    stranger: list[Pattern]


class _Parser(NamedTuple):
    name: str
    match: re.Pattern[str]
    class_: str
    ci: re.Pattern[str] | None


def table() -> Table:
    """clients.toml."""
    text = resources.files(__package__).joinpath("clients.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), Table)


class Clients:
    """The rows, compiled. `of` is cached; the order of the rows has no effect."""

    def __init__(self, rows: Table) -> None:
        self._clients = _compiled(rows.client)
        self._strangers = _compiled(rows.stranger)
        self.of = lru_cache(CACHE_ENTRIES)(self._of)

    def matches(self, user_agent: str) -> list[str]:
        """The names of all `client` rows that match; for the test that they exclude each other."""
        return [parser.name for parser in self._clients if parser.match.match(user_agent)]

    def _of(self, user_agent: str | None) -> Client:
        if not user_agent:
            return Client(None, None, PERSON_OR_MACHINE)
        text = user_agent[:_LONGEST]
        return _first(self._clients, text) or _first(self._strangers, text) or _token(text)


def _compiled(rows: Sequence[Pattern]) -> list[_Parser]:
    return [
        _Parser(row.name, re.compile(row.pattern), row.class_, re.compile(row.ci) if row.ci else None) for row in rows
    ]


def _first(parsers: Sequence[_Parser], text: str) -> Client | None:
    for parser in parsers:
        match = parser.match.match(text)
        if match:
            groups = match.groupdict()
            is_ci = parser.ci is not None and parser.ci.search(text) is not None
            return Client(parser.name, groups.get("version"), CI if is_ci else parser.class_)
    return None


# RFC 9110 section 10.1.5: product = token ["/" product-version]
_PRODUCT = re.compile(r"(?P<name>[A-Za-z][\w.+-]{0,39})(?:/v?(?P<version>[0-9][\w.+~-]{0,39}))?(?=[\s;(,]|$)")


def _token(text: str) -> Client:
    match = _PRODUCT.match(text)
    if match is None:
        return Client(None, None, PERSON_OR_MACHINE)
    return Client(match["name"].lower(), match["version"], PERSON_OR_MACHINE)
