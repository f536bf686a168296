"""The one line: `upstream` of a [[package]] in the text of waypost.toml, and nothing else of it.

Functions of text. Comments, order and spelling of everything else stay, to the byte.
"""

from __future__ import annotations

import tomllib
from typing import Any

import tomlkit
from msgspec import Struct
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array

from waypost.artifacts.reference import ImageName, ImageNameError, as_written, parse_upstream
from waypost.routing.pattern import Pattern, PatternError
from waypost.settings import key_lines

Value = str | list[str]


class MoveError(Exception):
    """The operator asked for a move that cannot be done; the message says what to do. Nothing was changed."""


class Change(Struct, frozen=True):
    """What a move does to the file: its `upstream` becomes `now`, and leads to `new` where it led to `old`.

    text  the whole file afterwards
    was   the value before, as it is spelled there: TOML, with the comments inside it
    """

    text: str
    was: str
    now: Value
    old: ImageName
    new: ImageName


def moved(text: str, name: str, to: str, leaving: str | None = None, keep_old: bool = False) -> Change:
    """`name` is the package's; `to` the new upstream, `leaving` the one that is left, if not the first.

    keep_old  the one that is left stays, behind the new one

    Raises MoveError.
    """
    new = _image(to, "the new upstream")
    if "/" not in to and "." in to:
        raise MoveError(f"{to!r} names a registry; expected the image there too, such as {to}/{name}")
    index, was = _find(text, name)
    before = [was] if isinstance(was, str) else was
    images = [_image(one, f"upstream of {name}") for one in before]
    at = 0 if leaving is None else _place(name, images, before, leaving)
    old = images[at]
    spelled = before[images.index(new)] if new in images else as_written(to)[0]
    now: list[str] = []
    for one, image in zip(before, images, strict=True):
        if image in (old, new) and spelled not in now:
            now.append(spelled)
        if image not in (old, new) or (image == old and keep_old):
            now.append(one)
    if old == new or now == before:
        others = [one for one, image in zip(before, images, strict=True) if image != new]
        hint = f"; to leave {others[0]}, say --from {others[0]}" if others and not keep_old else ""
        raise MoveError(f"{name} is at {spelled} already{hint}")
    after: Value = now[0] if isinstance(was, str) and len(now) == 1 else now
    source, changed = _edited(text, index, after)
    return Change(changed, source, after, old, new)


def restored(text: str, name: str, was: str, now: Value) -> str:
    """The file before a move that made `now` of `was`. Raises MoveError if it says something else meanwhile."""
    index, found = _find(text, name)
    before = read(was)
    if found == before:
        raise MoveError(f"nothing to undo: upstream of {name} is {show(found)} already, as before the move")
    if found != now:
        raise MoveError(
            f"upstream of {name} is {show(found)} meanwhile; the move had made it {show(now)}. Change it by hand; "
            f"before the move it was {show(before)}"
        )
    return _edited(text, index, before, was)[1]


def read(spelled: str) -> Value:
    """A value as it stands in the file → what it means."""
    value: Value = tomllib.loads(f"upstream = {spelled}")["upstream"]
    return value


def show(value: Value) -> str:
    """A value on one line, as the file could have it."""
    return f'"{value}"' if isinstance(value, str) else f"[{', '.join(map(show, value))}]"


def _image(text: str, what: str) -> ImageName:
    try:
        return parse_upstream(text)
    except ImageNameError as error:
        raise MoveError(f"{what}: {error}") from None


def _place(name: str, images: list[ImageName], before: list[str], leaving: str) -> int:
    try:
        return images.index(_image(leaving, "--from"))
    except ValueError:
        raise MoveError(f"--from: found {leaving!r}; {name} is at {', '.join(before)}") from None


def _find(text: str, name: str) -> tuple[int, Value]:
    """(place among [[package]], its upstream) of a declared image."""
    document = tomllib.loads(text.removeprefix("\ufeff"))
    images = [
        (index, package) for index, package in enumerate(document.get("package", [])) if package["type"] == "container"
    ]
    found = [(index, package) for index, package in images if package["name"] == name]
    if not found:
        raise MoveError(_unknown(document, name, [package["name"] for _, package in images]))
    if len(found) > 1:
        raise MoveError(f"{name} is declared {len(found)} times, for several owners; change its upstream by hand")
    index, package = found[0]
    return index, package["upstream"]


def _unknown(document: dict[str, Any], name: str, images: list[str]) -> str:
    for collection in document.get("collection", []):
        if _matches(collection["pattern"], name):
            return (
                f"{name} is no [[package]] of its own: it comes from the [[collection]] {collection['pattern']}. "
                "Change the collection's upstream, which moves all of its images; or give this one a [[package]] of "
                "its own, which wins over the pattern, and move that"
            )
    if any(package["name"] == name for package in document.get("package", [])):
        return f"{name} is no image; only packages of type container can be moved so far"
    if not images:
        return f"{name} is not declared; the file has no [[package]] of type container"
    also = ". What manifests declare is changed there" if document.get("manifests") else ""
    return f"{name} is not declared; the images of the file are {', '.join(sorted(images))}{also}"


def _matches(pattern: str, name: str) -> bool:
    try:
        return Pattern.parse(pattern).match(name) is not None
    except PatternError:
        return False


def _edited(text: str, index: int, now: Value, spelled: str = "") -> tuple[str, str]:
    """(upstream of the `index`-th package as it was spelled, the text with another one). `spelled`: how to write it.

    Only these lines go through tomlkit, which keeps the comments in them but not the order of tables that are
    declared by turns. Raises MoveError if the file would not say just this then.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    lines = text.removeprefix(mark).splitlines(keepends=True)
    at = key_lines(text.removeprefix(mark)).get(f"package[{index}].upstream", 0) - 1
    by_hand = f"write upstream = {show(now)} by hand"
    for end in range(at + 1, len(lines) + 1) if at >= 0 else ():
        try:
            fragment: Any = tomlkit.parse("".join(lines[at:end]))
        except TOMLKitError:
            continue  # the value goes on in the next line
        was, after = _respelled(fragment, now, spelled)
        changed = "".join([*lines[:at], after, *lines[end:]])
        expected: Any = tomllib.loads("".join(lines))
        expected["package"][index]["upstream"] = now
        if _means(changed) != expected:
            break
        return was, mark + changed
    raise MoveError(f"found no line `upstream = …` of its own that could be changed; {by_hand}")


def _respelled(fragment: Any, now: Value, spelled: str) -> tuple[str, str]:
    """(the value of `upstream = …` as it was spelled, the line or lines with another one)."""
    held = fragment.get("upstream")
    if held is None:
        return "", fragment.as_string()
    was = held.as_string()
    if spelled:
        fragment["upstream"] = tomlkit.parse(f"upstream = {spelled}")["upstream"]
    elif isinstance(held, Array) and isinstance(now, list):
        _amend(held, now)
    else:
        fragment["upstream"] = now
    return was, fragment.as_string()


def _means(text: str) -> object:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _amend(array: Array, now: list[str]) -> None:
    """Item by item, so that comments between them stay where they are."""
    held = list(array.unwrap())
    for at in reversed(range(len(held))):
        if len(held) > len(now) and held[at] not in now:
            del array[at], held[at]
    for at, one in enumerate(now):
        if len(held) < len(now) and one not in held[at : at + 1]:
            array.insert(at, one)
            held.insert(at, one)
        elif held[at] != one:
            array[at] = one
