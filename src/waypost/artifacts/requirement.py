"""What people write to say where a Python project is: the line that they type, or the address of an index. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from waypost.routing.expression import TemplateError
from waypost.routing.outgoing import Outgoing

EXAMPLE = "https://pypi.example/simple/"

# PEP 508: the name, then extras, then versions or a marker.
_REQUIREMENT = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*(?:[=<>!~;].*)?")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
# What comes before the requirement, in any of the ways to call pip and uv.
_COMMAND = re.compile(
    r"(?:sudo\s+)?(?:(?:python|py)[0-9.]*\s+-m\s+)?(?:pip[0-9.]*\s+(?:install|download)|uv\s+pip\s+install|uv\s+add)\s+"
)
# The index that pip and uv ask first, and those that they ask, too.
_FIRST = {"--index-url", "-i", "--default-index", "--pypi-url"}
_BESIDE = {"--extra-index-url", "--index"}
_NO_VALUE = re.compile(r"-(?:[UqvI]+|-(?:upgrade|user|pre|quiet|verbose|no-\S+|require-hashes|force-reinstall))")


class RequirementError(Exception):
    """The sentence says what was found, and what to write instead."""


class Requirement(NamedTuple):
    """project as written; upstream is the URL of a simple index, with a slash at its end."""

    project: str
    upstream: str


def is_command(text: str) -> bool:
    return _COMMAND.match(f"{text} ") is not None


def is_project(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def parse_command(text: str) -> Requirement:
    """`pip install skates --extra-index-url https://…/simple/` → the project, and the index that has it.

    Raises RequirementError.
    """
    command = _COMMAND.match(f"{text} ")
    if command is None:
        raise RequirementError(f"found {text!r}; expected a line such as pip install skates --index-url https://…")
    try:
        words = shlex.split(text[command.end() :])
    except ValueError as error:
        raise RequirementError(f"found {text!r}, which no shell would read ({error})") from None
    projects: list[str] = []
    first: list[str] = []
    beside: list[str] = []
    for option, value in _options(words):
        if option in _FIRST:
            first.append(value)
        elif option in _BESIDE:
            beside.append(value)
        elif not option:
            projects.append(value)
    if len(projects) != 1 or (named := _REQUIREMENT.fullmatch(projects[0])) is None:
        found = ", ".join(projects) or "no project"
        raise RequirementError(f"found {found} in {text!r}; expected the name of one project: each is its own package")
    # With both, the one that is named beside the other is where the project is: the other one is for its needs.
    indexes = beside or first
    if not indexes:
        raise RequirementError(f"found no index in {text!r}; add --index-url with the address that has {named[1]}")
    if len(indexes) != 1:
        raise RequirementError(f"found {len(indexes)} indexes in {text!r}; expected the one that has {named[1]}")
    return Requirement(named[1], parse_index(indexes[0]))


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, its value); ("", value) for what is none."""
    rest = iter(words)
    for word in rest:
        name, mark, value = word.partition("=")
        if not word.startswith("-"):
            yield "", word
        elif word.startswith("--") and mark:
            yield name, value
        elif word.startswith("-i") and len(word) > 2:
            yield "-i", word[2:]
        elif _NO_VALUE.fullmatch(word) is None:
            yield word, next(rest, "")


def parse_index(text: str) -> str:
    """The URL of a simple index, with a slash at its end. Raises RequirementError."""
    index = text.rstrip("/") + "/"
    try:
        parts = urlsplit(text)
        fit = not parts.query and not parts.fragment and "@" not in parts.netloc and "{" not in text
        Outgoing.parse(f"{index}{{+path}}", ("path",))
    except (ValueError, TemplateError):
        fit = False
    if not fit or not text.isascii() or not text.isprintable() or " " in text:
        raise RequirementError(
            f"found {text!r}; expected the URL of a simple index, without password, such as {EXAMPLE}"
        )
    return index
