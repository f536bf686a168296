"""Incoming templates: RFC 6570 read backwards. A path and a query go in, the variables' values come out.

Theory of operation. RFC 6570 has no inverse, so we give it one, for the part of it that has a sensible one:

1. An expression is rewritten into literals and slots: `{x}` is a slot for one or more characters other
   than "/"; `{+x}` a slot for any one or more. `{a,b}` is `{a},{b}`; `{/x}` is `/{x}`; `{.x}` is `.{x}`;
   `{;x}` is `;x={x}`; `{?x,y}` is `?x={x}&y={y}`. `{#x}` never reaches a server; `{x:3}` and `{x*}` have no
   single inverse. Those are refused.
2. The path is cut into pieces that are matched on their own: the segments before the first `{+x}`, those
   after the last, and the stretch between. Each parameter of the query is a piece, too.
3. Within a piece, literals are placed from the right, each as far right as it goes. That is the same as "an
   earlier variable takes the longest", without trying anything twice.
4. A variable that occurs twice is solved where it can have one value only, and is a literal elsewhere.
   Where no place fixes it (`/{a}-{b}/{b}-{a}`), and where `{x}` stands before `{+y}` in one piece,
   placements are tried, longest first, up to BUDGET; a path for which that is not enough does not match.

Everything is compared as it came: `%7E` and `~` differ. Nothing is decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from waypost.routing.expression import Expression, Literal, Part, TemplateError, Value, expand, parse

BUDGET = 300
MOST_VARIABLES = 64


class Slot:
    """Where a variable stands. `rest`: it takes "/" as well."""

    __slots__ = ("name", "rest")

    def __init__(self, name: str, rest: bool) -> None:
        self.name = name
        self.rest = rest


Item: TypeAlias = str | Slot


class Piece:
    """A stretch that is matched on its own: `literals[0] slots[0] literals[1] … slots[n-1] literals[n]`.

    source   an index into the path's segments (from the end, if negative); "" for the stretch between head
             and tail; "?name" for a parameter of the query
    """

    __slots__ = ("literals", "slots", "source")

    def __init__(self, items: Sequence[Item], source: int | str) -> None:
        literals = [""]
        slots: list[Slot] = []
        for item in items:
            if isinstance(item, str):
                literals[-1] += item
            else:
                slots.append(item)
                literals.append("")
        self.literals = tuple(literals)
        self.slots = tuple(slots)
        self.source = source

    @property
    def whole(self) -> bool:
        return self.literals == ("", "")


# Nearly all templates are a path of unescaped text, {x} and {+x}. A million of them are read at start, so these are
# read in one go; whatever else there is, is read step by step, with errors that say where.
_UNUSUAL = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/{}-]")
_SLOT = re.compile(r"\{(\+?[A-Za-z0-9_]+)\}")


def _plain(text: str) -> list[str] | None:
    """Text and variables (`x` or `+x`) by turns; None where a template has to be read step by step."""
    if text[:1] != "/" or _UNUSUAL.search(text):
        return None
    pieces = _SLOT.split(text)
    slots = len(pieces) // 2
    return pieces if slots == text.count("{") == text.count("}") and slots <= MOST_VARIABLES else None


def names_of(text: str) -> tuple[str, ...]:
    """The names that an incoming template binds: all that it takes to check one. Raises TemplateError."""
    plain = _plain(text)
    return Template.parse(text).names if plain is None else tuple([name.lstrip("+") for name in plain[1::2]])


def _item(piece: str, is_slot: bool) -> Item:
    if not is_slot:
        return piece
    return _slot(piece[1:], True) if piece[0] == "+" else _slot(piece, False)


@lru_cache(maxsize=1024)
def _slot(name: str, rest: bool) -> Slot:
    return Slot(name, rest)


class Template:
    """An incoming template.

    text       as written
    names      of its variables, in the order of their first appearance
    literal    how many characters of literal text it has, those of its query included
    variables  how many different variables it has
    head       pieces of the segments up to the first {+x}; of all segments if there is none.
               The first is always the empty text before the leading "/".
    stretch    the piece from the segment of the first {+x} to that of the last; None without
    tail       pieces of the segments after it
    suffix     the literal text that ends the path
    query      pieces of the query's parameters
    """

    __slots__ = (
        "_plan",
        "head",
        "literal",
        "names",
        "query",
        "stretch",
        "suffix",
        "tail",
        "text",
        "variables",
    )

    def __init__(self, text: str, path: list[Item], query: dict[str, list[Item]]) -> None:
        self.text = text
        segments = _segments(path)
        slots = [item for item in path if isinstance(item, Slot)]
        first = last = len(segments)
        self.stretch = None
        if any(slot.rest for slot in slots):
            rests = [index for index, items in enumerate(segments) if any(_is_rest(item) for item in items)]
            first, last = rests[0], rests[-1] + 1
            self.stretch = Piece(_joined(segments[first:last]), "")
        self.head = tuple([_piece(items, index) for index, items in enumerate(segments[:first])])
        self.tail = tuple([Piece(items, index - len(segments) + last) for index, items in enumerate(segments[last:])])
        self.suffix = path[-1] if isinstance(path[-1], str) else ""
        self.query = tuple([Piece(items, f"?{name}") for name, items in query.items()])
        slots.extend([slot for piece in self.query for slot in piece.slots])
        self.names = tuple(dict.fromkeys([slot.name for slot in slots]))
        self.variables = len(self.names)
        self.literal = sum([len(item) for item in path if isinstance(item, str)]) + sum(
            # "?" or "&", the name, "=", and what is literal of the value
            len(name) + 2 + sum([len(item) for item in items if isinstance(item, str)])
            for name, items in query.items()
        )
        self._plan: _Plan | None = None

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises TemplateError, also for what RFC 6570 allows but cannot be read backwards."""
        plain = _plain(text)
        if plain is not None:
            return cls(text, [_item(piece, index % 2 == 1) for index, piece in enumerate(plain) if piece], {})
        parts = parse(text)
        if not text.startswith(("/", "{/")):
            raise TemplateError(text, 0, "A path begins with '/'.")
        return cls(text, *_rewrite(text, parts))

    def pieces(self) -> tuple[Piece, ...]:
        """In the order in which their variables appear in the text."""
        stretch = () if self.stretch is None else (self.stretch,)
        return (*self.head, *stretch, *self.tail, *self.query)

    @property
    def plan(self) -> _Plan:
        if self._plan is None:
            self._plan = _Plan(self)
        return self._plan

    def match(self, path: str, query: str | None = None) -> dict[str, str] | None:
        """The variables' values as they came, still percent-encoded; None if path and query do not match."""
        return self.plan.match(path.split("/"), parameters(query) if self.query else {})

    def expand(self, values: Mapping[str, Value]) -> str:
        """RFC 6570 section 3."""
        return expand(parse(self.text), values)

    def __repr__(self) -> str:
        return f"<Template {self.text}>"


def parameters(query: str | None) -> dict[str, str]:
    """Decoded name → value as it came. Of a name that occurs twice, the first."""
    found: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name:
            found.setdefault(_decoded(name), value)
    return found


def _decoded(name: str) -> str:
    if "%" not in name:
        return name
    return unquote_to_bytes(name.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")


@lru_cache(maxsize=1024)
def _whole(name: str, source: int) -> Piece:
    return Piece([Slot(name, False)], source)


def _piece(items: Sequence[Item], source: int) -> Piece:
    """A million routes say `/{version}/`: they share it."""
    if len(items) == 1 and isinstance(items[0], Slot) and not items[0].rest:
        return _whole(items[0].name, source)
    return Piece(items, source)


def _is_rest(item: Item) -> bool:
    return isinstance(item, Slot) and item.rest


def _segments(path: Sequence[Item]) -> list[list[Item]]:
    segments: list[list[Item]] = [[]]
    for item in path:
        if isinstance(item, Slot):
            segments[-1].append(item)
            continue
        first, *others = item.split("/")
        if first:
            segments[-1].append(first)
        segments.extend([text] if text else [] for text in others)
    return segments


def _joined(segments: Sequence[Sequence[Item]]) -> list[Item]:
    items: list[Item] = []
    for index, segment in enumerate(segments):
        if index:
            items.append("/")
        items.extend(segment)
    return items


# Operator → what stands before each of its variables: the first one, and the others.
_SEPARATORS = {"": ("", ","), "+": ("", ","), ".": (".", "."), "/": ("/", "/"), ";": (";", ";")}


def _rewrite(text: str, parts: Sequence[Part]) -> tuple[list[Item], dict[str, list[Item]]]:
    """Rule 1: literals and slots of the path, and of each parameter of the query."""
    path: list[Item] = []
    query: list[Item] | None = None
    for part in parts:
        if isinstance(part, Literal):
            query = _rewrite_literal(text, part, path, query)
        elif part.operator in ("?", "&"):
            query = _rewrite_form(text, part, query)
        else:
            _rewrite_expression(text, part, path if query is None else query)
    merged = _merged(path)
    if sum(isinstance(item, Slot) for item in (*merged, *(query or ()))) > MOST_VARIABLES:
        raise TemplateError(text, 0, f"A template has at most {MOST_VARIABLES} variables.")
    return merged, {} if query is None else _rewrite_query(text, query)


def _rewrite_literal(text: str, part: Literal, path: list[Item], query: list[Item] | None) -> list[Item] | None:
    if "#" in part.text:
        position = text.index("#", part.position)
        raise TemplateError(text, position, "A fragment ('#') is never sent to a server.")
    if query is not None:
        query.append(part.text)
        return query
    before, mark, after = part.text.partition("?")
    path.append(before)
    return [after] if mark else None


def _rewrite_form(text: str, part: Expression, query: list[Item] | None) -> list[Item]:
    if (part.operator == "?") != (query is None):
        raise TemplateError(text, part.position, "A query starts with one '?', and goes on with '&'.")
    items: list[Item] = [] if query is None else query
    for variable in part.variables:
        _invertible(text, part)
        items.extend((f"&{variable.name}=", Slot(variable.name, False)))
    return items


def _rewrite_expression(text: str, part: Expression, items: list[Item]) -> None:
    if part.operator == "#":
        raise TemplateError(text, part.position, "A fragment ('{#…}') is never sent to a server.")
    _invertible(text, part)
    first, separator = _SEPARATORS[part.operator]
    for index, variable in enumerate(part.variables):
        items.append(separator if index else first)
        if part.operator == ";":
            items.append(f"{variable.name}=")
        items.append(Slot(variable.name, part.operator == "+"))


def _invertible(text: str, part: Expression) -> None:
    for variable in part.variables:
        if variable.prefix or variable.explode:
            raise TemplateError(text, part.position, "':length' and '*' cannot be matched, only expanded.")


def _merged(items: Sequence[Item]) -> list[Item]:
    merged: list[Item] = []
    for item in items:
        if isinstance(item, str) and merged and isinstance(merged[-1], str):
            merged[-1] += item
        elif item != "":
            merged.append(item)
    return merged


def _rewrite_query(text: str, items: Sequence[Item]) -> dict[str, list[Item]]:
    """Cuts at "&"; a parameter's name is literal."""
    groups: list[list[Item]] = [[]]
    for item in items:
        if isinstance(item, Slot):
            groups[-1].append(item)
            continue
        first, *others = item.split("&")
        groups[-1].append(first)
        groups.extend([other] for other in others)
    found: dict[str, list[Item]] = {}
    for group in map(_merged, groups):
        if not group:
            continue
        name, mark, value = group[0].partition("=") if isinstance(group[0], str) else ("", "", "")
        if not name or (not mark and len(group) > 1):
            raise TemplateError(text, 0, "The name of a query parameter must be literal.")
        if _decoded(name) in found:
            raise TemplateError(text, 0, f"The query names {name!r} twice.")
        found[_decoded(name)] = [value, *group[1:]] if value else group[1:]
    return found


class _Plan:
    """How to solve a template: which pieces in which order (rules 3 and 4)."""

    __slots__ = ("_checks", "_direct", "_search", "_stretched", "_tail", "_wholes")

    def __init__(self, template: Template) -> None:
        pieces = [piece for piece in template.pieces() if piece.slots]
        self._checks = tuple(piece for piece in template.pieces() if not piece.slots)
        self._tail = (len(template.head), len(template.tail))
        self._stretched = template.stretch is not None
        known: set[str] = set()
        direct = _determined(pieces, known)
        # Of what remains, pieces that share no variable and can be placed from the right are solved directly.
        counts: dict[str, int] = {}
        for piece in pieces:
            for slot in piece.slots:
                if slot.name not in known:
                    counts[slot.name] = counts.get(slot.name, 0) + 1
        alone = [p for p in pieces if _alone(p, counts, known)]
        direct += alone
        self._search = tuple(piece for piece in pieces if piece not in alone)
        # The commonest pieces, `/{x}/`, are bound without calling anything.
        wholes: dict[str, int] = {}
        rest = []
        for piece in direct:
            if piece.whole and isinstance(piece.source, int) and piece.source > 0 and piece.slots[0].name not in wholes:
                wholes[piece.slots[0].name] = piece.source
            else:
                rest.append(piece)
        self._wholes = tuple(wholes.items())
        self._direct = tuple(rest)

    def match(self, segments: Sequence[str], query: Mapping[str, str]) -> dict[str, str] | None:
        """The variables' values. `segments`: the path, cut at "/"; `query`: see `parameters`."""
        head, tail = self._tail
        if len(segments) <= head + tail if self._stretched else len(segments) != head:
            return None
        values: dict[str, str] = {}
        for name, index in self._wholes:
            value = segments[index]
            if not value:
                return None
            values[name] = value
        for piece in self._checks:
            if self._text(piece, segments, query) != piece.literals[0]:
                return None
        for piece in self._direct:
            text = self._text(piece, segments, query)
            if text is None or not _place(piece, text, values):
                return None
        if self._search:
            texts = [self._text(piece, segments, query) for piece in self._search]
            if None in texts or not _Search(self._search, texts, values).run():  # type: ignore[arg-type]
                return None
        return values

    def _text(self, piece: Piece, segments: Sequence[str], query: Mapping[str, str]) -> str | None:
        source = piece.source
        if isinstance(source, int):
            return segments[source]
        if source == "":
            head, tail = self._tail
            return "/".join(segments[head : len(segments) - tail])
        return query.get(source[1:])


def _determined(pieces: list[Piece], known: set[str]) -> list[Piece]:
    """Takes out of `pieces` those that leave no choice, in an order in which each knows what it needs."""
    order: list[Piece] = []
    while True:
        for piece in pieces:
            unknown = [slot.name for slot in piece.slots if slot.name not in known]
            if len(unknown) <= 1:
                order.append(piece)
                known.update(unknown)
                pieces.remove(piece)
                break
        else:
            return order


def _alone(piece: Piece, counts: Mapping[str, int], known: set[str]) -> bool:
    unknown = [slot for slot in piece.slots if slot.name not in known]
    rests = [slot.rest for slot in unknown]
    # Placing from the right is right only where no plain variable stands before a {+x}.
    return all(counts[slot.name] == 1 for slot in unknown) and rests == sorted(rests, reverse=True)


def _place(piece: Piece, text: str, values: dict[str, str]) -> bool:
    """Rule 3. Adds the piece's variables to `values`, those already there being literals."""
    literals: Sequence[str] = piece.literals
    slots: Sequence[Slot] = piece.slots
    if any(slot.name in values for slot in slots):
        if any(not slot.rest and "/" in values.get(slot.name, "") for slot in slots):
            return False
        literals, slots = _known(piece, values)
        if not slots:
            return text == literals[0]
    if not text.startswith(literals[0]) or not text.endswith(literals[-1]):
        return False
    start = len(literals[0])
    end = len(text) - len(literals[-1])
    for index in range(len(slots) - 1, 0, -1):
        literal = literals[index]
        at = text.rfind(literal, start + 1, end - 1)
        if at < 0:
            return False
        value = text[at + len(literal) : end]
        if not slots[index].rest and "/" in value:
            return False
        values[slots[index].name] = value
        end = at
    if end <= start:
        return False
    value = text[start:end]
    if not slots[0].rest and "/" in value:
        return False
    values[slots[0].name] = value
    return True


def _known(piece: Piece, values: Mapping[str, str]) -> tuple[list[str], list[Slot]]:
    literals = [piece.literals[0]]
    slots = []
    for slot, literal in zip(piece.slots, piece.literals[1:], strict=True):
        value = values.get(slot.name)
        if value is None:
            slots.append(slot)
            literals.append(literal)
        else:
            literals[-1] += value + literal
    return literals, slots


class _Search:
    """Rule 4: tries placements, longest first."""

    def __init__(self, pieces: Sequence[Piece], texts: Sequence[str], values: dict[str, str]) -> None:
        self.pieces = pieces
        self.texts = texts
        self.values = values
        self.budget = BUDGET

    def run(self, number: int = 0, index: int = 0, position: int = 0) -> bool:
        """Solves from literal `index` of piece `number`, which must start at `position`."""
        if number == len(self.pieces):
            return True
        piece, text, values = self.pieces[number], self.texts[number], self.values
        while True:
            literal = piece.literals[index]
            if not text.startswith(literal, position):
                return False
            position += len(literal)
            if index == len(piece.slots):
                return position == len(text) and self.run(number + 1)
            slot = piece.slots[index]
            value = values.get(slot.name)
            if value is None:
                return self._try(slot, number, index + 1, position)
            if not text.startswith(value, position) or (not slot.rest and "/" in value):
                return False
            position += len(value)
            index += 1

    def _try(self, slot: Slot, number: int, index: int, position: int) -> bool:
        text, literals = self.texts[number], self.pieces[number].literals
        literal = literals[index]
        limit = len(text)
        if not slot.rest:
            slash = text.find("/", position)
            limit = slash if slash >= 0 else limit
        if index == len(literals) - 1:
            # The last slot of a piece leaves no choice.
            end = len(text) - len(literal)
            return position < end <= limit and text.endswith(literal) and self._bind(slot, number, index, position, end)
        end = text.rfind(literal, position + 1, limit + len(literal))
        while end >= 0:
            self.budget -= 1
            if self.budget < 0:
                return False
            if self._bind(slot, number, index, position, end):
                return True
            end = text.rfind(literal, position + 1, end + len(literal) - 1) if end > position + 1 else -1
        return False

    def _bind(self, slot: Slot, number: int, index: int, position: int, end: int) -> bool:
        self.values[slot.name] = self.texts[number][position:end]
        if self.run(number, index, end):
            return True
        del self.values[slot.name]
        return False
