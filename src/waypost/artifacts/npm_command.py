"""The line that people type to install an npm package, with any of the clients. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from waypost.artifacts.packument import NAME

_COMMAND = re.compile(
    r"(?:sudo\s+)?(?:npm\s+(?:install|i|add)|yarn\s+(?:global\s+)?add|pnpm\s+(?:install|i|add)|bun\s+(?:install|i|add))\s+"
)
# Options whose value may be the next word. All others have none, or carry it behind "=".
_VALUED = re.compile(r"--(?:registry|(?:@[^:]+):registry|tag|prefix|cache|userconfig|cwd|dir|filter|workspace)|-[CwF]")


class NpmCommandError(Exception):
    """The sentence says what was found, and what to write instead."""


class NpmCommand(NamedTuple):
    """registry: without slash at its end."""

    name: str
    registry: str


def is_command(text: str) -> bool:
    return _COMMAND.match(f"{text} ") is not None


def parse_command(text: str) -> NpmCommand:
    """`npm install @acme/skates --registry https://…` → the package, and the registry that has it.

    A registry of the package's scope (`--@acme:registry`) goes before one of all. Raises NpmCommandError.
    """
    command = _COMMAND.match(f"{text} ")
    if command is None:
        raise NpmCommandError(f"found {text!r}; expected a line such as npm install skates --registry https://…")
    try:
        words = shlex.split(text[command.end() :])
    except ValueError as error:
        raise NpmCommandError(f"found {text!r}, which no shell would read ({error})") from None
    packages: list[str] = []
    registries: dict[str, str] = {}
    for option, value in _options(words):
        if option.endswith("registry"):
            registries[option[2:].rpartition(":")[0]] = value
        elif not option:
            packages.append(value)
    if len(packages) != 1:
        found = ", ".join(packages) or "no package"
        raise NpmCommandError(f"found {found} in {text!r}; expected the name of one package: each has its own entry")
    name = _name(packages[0])
    scope = name.partition("/")[0] if name.startswith("@") else ""
    registry = registries.get(scope) or registries.get("")
    if not registry:
        raise NpmCommandError(f"found no registry in {text!r}; add --registry with the address that has {name}")
    return NpmCommand(name, registry.rstrip("/"))


def _name(specifier: str) -> str:
    """`skates@^1.2`, `mine@npm:skates@1` → `skates`."""
    _, alias, aliased = specifier.partition("@npm:")
    specifier = aliased if alias else specifier
    # The first "@" of a scoped name is part of it.
    name = specifier[:1] + specifier[1:].partition("@")[0]
    if not NAME.match(name):
        raise NpmCommandError(f"found {specifier!r}; expected the name of a package, such as @acme/skates")
    return name


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, its value); ("", value) for what is none."""
    rest = iter(words)
    for word in rest:
        name, mark, value = word.partition("=")
        if not word.startswith("-"):
            yield "", word
        elif mark:
            yield name, value
        else:
            yield word, next(rest, "") if _VALUED.fullmatch(word) else ""
