"""Finds routes that can match the same request and of which none goes before the other.

Exact, but for one thing: a variable that occurs twice is taken for two. So two templates that never meet
only because of what is repeated in them are reported, and no clash is missed.

To stay near-linear with many routes, templates of equal precedence are sorted by what they fix where: a
literal segment fixes all of it, `skates-{v}.zip` its prefix and suffix, `{v}` nothing. Of two such shapes,
what both fix is a key, and only templates with equal keys are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from waypost.routing.template import Piece, Template

# What a piece fixes: None for all of it, or the lengths of its prefix and suffix.
_Fixed: TypeAlias = tuple[int, int] | None
# Number of segments (None with a {+x}), pieces of the head, of the query by name, prefix of the stretch,
# and how much of the path's end is fixed.
_Shape: TypeAlias = tuple[int | None, tuple[_Fixed, ...], tuple[tuple[str, _Fixed], ...], int, int]


def clashes(templates: Sequence[Template], most: int = 100) -> list[tuple[int, int]]:
    """Pairs of indices, the smaller first, in no particular order; the first `most` that are found."""
    found: list[tuple[int, int]] = []
    groups: dict[tuple[int, int], list[int]] = {}
    for index, template in enumerate(templates):
        groups.setdefault((template.literal, template.variables), []).append(index)
    for group in groups.values():
        for one, other in _candidates(templates, group):
            if meet(templates[one], templates[other]):
                found.append((min(one, other), max(one, other)))
                if len(found) == most:
                    return found
    return found


# Templates in which every character outside of braces stands for itself, however a path is spelled.
_PLAIN = re.compile(r"(?:[A-Za-z0-9._~/-]|\{[A-Za-z0-9_+]+\})*")


def neighbours(texts: Sequence[str]) -> list[list[int]]:
    """Groups of indices of templates that may meet, each of two at least; told from their text, without parsing.

    Most of a million templates differ in a literal segment, or in what a segment begins with. So they are
    sorted apart segment by segment, for as long as that helps.
    """
    if not all(map(_PLAIN.fullmatch, texts)):
        return [list(range(len(texts)))] if len(texts) > 1 else []
    segments = [text.split("/") for text in texts]
    found: list[list[int]] = []
    pending = [(list(range(len(texts))), 1)]
    while pending:
        group, depth = pending.pop()
        if len(group) < 2:
            continue
        if all(depth >= len(segments[index]) for index in group):
            found.append(sorted(group))
            continue
        pending.extend((near, depth + 1) for near in _beginning_alike(group, segments, depth))
    return sorted(found)


def _beginning_alike(group: list[int], segments: list[list[str]], depth: int) -> Iterable[list[int]]:
    """The group, parted where the segments at `depth` cannot begin alike."""
    by_start: dict[str, list[int]] = {}
    for index in group:
        own = segments[index]
        start = own[depth] if depth < len(own) else ""
        if "{" in start:
            if "{+" in start:
                del own[depth + 1 :]  # what comes after may be in any segment
            start = start[: start.index("{")]
        elif depth < len(own):
            start += "/"  # it ends here
        by_start.setdefault(start, []).append(index)
    head: str | None = None
    parted: list[list[int]] = []
    for start in sorted(by_start):
        if head is not None and start.startswith(head):
            parted[-1].extend(by_start[start])
        else:
            head = start
            parted.append(by_start[start])
    return parted


def meet(one: Template, other: Template) -> bool:
    """Whether some path and query match both."""
    if not _meet(_units(_path(one)), _units(_path(other))):
        return False
    theirs = {piece.source: piece for piece in other.query}
    return all(_meet(_units([piece]), _units([theirs[piece.source]])) for piece in one.query if piece.source in theirs)


def _candidates(templates: Sequence[Template], group: Sequence[int]) -> Iterator[tuple[int, int]]:
    if len(group) < 2:
        return
    # Only beside a {+x} does the end of the path say anything that its segments do not.
    end = max((len(templates[i].suffix) for i in group if templates[i].stretch is not None), default=0)
    shapes: dict[_Shape, list[int]] = {}
    for index in group:
        shapes.setdefault(_shape(templates[index], end), []).append(index)
    kinds = list(shapes.items())
    for position, (shape, members) in enumerate(kinds):
        yield from _pairs(templates, shape, members)
        for other_shape, others in kinds[position + 1 :]:
            if _comparable(shape, other_shape):
                yield from _joined(templates, (shape, members), (other_shape, others))


def _pairs(templates: Sequence[Template], shape: _Shape, members: Sequence[int]) -> Iterator[tuple[int, int]]:
    buckets: dict[tuple[str, ...], list[int]] = {}
    for index in members:
        bucket = buckets.setdefault(_key(templates[index], shape, shape), [])
        for other in bucket:
            yield other, index
        bucket.append(index)


def _joined(
    templates: Sequence[Template], ours: tuple[_Shape, Sequence[int]], theirs: tuple[_Shape, Sequence[int]]
) -> Iterator[tuple[int, int]]:
    buckets: dict[tuple[str, ...], list[int]] = {}
    for index in ours[1]:
        buckets.setdefault(_key(templates[index], ours[0], theirs[0]), []).append(index)
    for index in theirs[1]:
        for other in buckets.get(_key(templates[index], theirs[0], ours[0]), ()):
            yield other, index


def _shape(template: Template, end: int) -> _Shape:
    stretch = template.stretch
    return (
        len(template.head) if stretch is None else None,
        tuple(_fixed(piece) for piece in template.head),
        tuple(sorted((str(piece.source), _fixed(piece)) for piece in template.query)),
        0 if stretch is None else len(stretch.literals[0]),
        min(len(template.suffix), end),
    )


def _fixed(piece: Piece) -> _Fixed:
    return (len(piece.literals[0]), len(piece.literals[-1])) if piece.slots else None


def _comparable(one: _Shape, other: _Shape) -> bool:
    if one[0] is not None and other[0] is not None:
        return one[0] == other[0]
    # A {+x} needs at least the segments before it, and its own.
    return (one[0] is None or one[0] > len(other[1])) and (other[0] is None or other[0] > len(one[1]))


def _key(template: Template, shape: _Shape, other: _Shape) -> tuple[str, ...]:
    """What both shapes fix, as this template has it."""
    key: list[str] = []
    for piece, ours, theirs in zip(template.head, shape[1], other[1], strict=False):
        _add(key, piece, ours, theirs)
    asked = dict(other[2])
    own = dict(shape[2])
    for piece in sorted(template.query, key=lambda piece: str(piece.source)):
        if piece.source in asked:
            _add(key, piece, own[str(piece.source)], asked[str(piece.source)])
    if shape[0] is None or other[0] is None:
        size = min(shape[4], other[4])
        key.append(template.suffix[len(template.suffix) - size :])
    if shape[0] is None and other[0] is None and len(shape[1]) == len(other[1]):
        assert template.stretch is not None
        key.append(template.stretch.literals[0][: min(shape[3], other[3])])
    return tuple(key)


def _add(key: list[str], piece: Piece, ours: _Fixed, theirs: _Fixed) -> None:
    first, last = piece.literals[0], piece.literals[-1]
    if ours is None and theirs is None:
        key.append(first)
        return
    lengths = [fixed for fixed in (ours, theirs) if fixed is not None]
    prefix = min(length for length, _ in lengths)
    suffix = min(length for _, length in lengths)
    key.append(first[:prefix])
    key.append(last[len(last) - suffix :] if suffix <= len(last) else last)


def _path(template: Template) -> list[Piece]:
    stretch = [] if template.stretch is None else [template.stretch]
    return [*template.head, *stretch, *template.tail]


# A unit is a character, or one of these.
_ONE, _MANY, _ONE_REST, _MANY_REST = "one", "many", "one/", "many/"


def _units(pieces: Sequence[Piece]) -> list[str]:
    """A variable is exactly one character, then any number of them."""
    units: list[str] = []
    for number, piece in enumerate(pieces):
        if number:
            units.append("/")
        for index, literal in enumerate(piece.literals):
            if index:
                units.extend((_ONE_REST, _MANY_REST) if piece.slots[index - 1].rest else (_ONE, _MANY))
            units.extend(literal)
    return units


def _meet(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether the product of both automata reaches its end."""
    pending = [(0, 0)]
    seen = set(pending)
    while pending:
        i, j = pending.pop()
        if i == len(one) and j == len(other):
            return True
        for state in _steps(one, other, i, j):
            if state not in seen:
                seen.add(state)
                pending.append(state)
    return False


def _steps(one: Sequence[str], other: Sequence[str], i: int, j: int) -> Iterator[tuple[int, int]]:
    a = one[i] if i < len(one) else ""
    b = other[j] if j < len(other) else ""
    if a.startswith(_MANY):
        yield i + 1, j
    if b.startswith(_MANY):
        yield i, j + 1
    if a and b and _share(a, b):
        yield i + (not a.startswith(_MANY)), j + (not b.startswith(_MANY))


def _share(a: str, b: str) -> bool:
    """Whether some character fits both units."""
    if len(a) == 1 and len(b) == 1:
        return a == b
    if len(a) == 1 or len(b) == 1:
        literal, class_ = (a, b) if len(a) == 1 else (b, a)
        return literal != "/" or class_.endswith("/")
    return True
