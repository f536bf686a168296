"""Finds the route of a path among any number of them, at a cost that does not depend on how many there are.

A path without variables is found by hash. For the others there is a trie of segments, in which a node has

    literals   children for exact segments
    mixed      children for segments like `skates-{v}.zip`, found by prefix and suffix
    whole      the child for segments that are one variable
    rests      routes that go on with a {+x}, found by the prefix of the rest of the path and its suffix
    leaves     routes that end here

A child that only one route passes is that route itself: with many routes, time goes into memory that no
cache holds, so each match should touch few objects.

All routes that match are considered: more literal text wins, then fewer variables, then who came first. A
branch that cannot beat what is already found is not entered.

Flat cost ends where many routes of one node share prefix and suffix and differ in between
(`{a}-one-{b}.zip`, `{a}-two-{b}.zip`), or share the path and differ in their query: those are tried one by
one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

from waypost.routing.template import Piece, Template, parameters

T = TypeVar("T")
V = TypeVar("V")

# Order among routes that match: smaller is better. (-literal text, variables, order of insertion)
Rank: TypeAlias = tuple[int, int, int]


class _Leaf(Generic[T]):
    """A route in its place in the trie.

    checks  (index, text) of literal segments that the way here has not compared
    wholes  (name, index) of each variable, where every variable is a whole segment; None for other templates
    """

    __slots__ = ("checks", "payload", "rank", "size", "template", "wholes")

    def __init__(self, rank: Rank, template: Template, payload: T) -> None:
        self.rank = rank
        self.template = template
        self.payload = payload
        self.size = len(template.head)
        self.wholes = _wholes(template)
        self.checks: tuple[tuple[int, str], ...] = ()

    def __lt__(self, other: _Leaf[T]) -> bool:
        return self.rank < other.rank

    def put(self, depth: int) -> None:
        self.checks = tuple(
            (index, piece.literals[0])
            for index, piece in enumerate(self.template.head)
            if index >= depth and not piece.slots
        )

    def bind(self, segments: Sequence[str], given: Mapping[str, str]) -> dict[str, str] | None:
        """`given`: the request's parameters, as template.parameters reads them."""
        if self.wholes is None:
            return self.template.plan.match(segments, given)
        if self.size != len(segments):
            return None
        for index, text in self.checks:
            if segments[index] != text:
                return None
        values = {}
        for name, index in self.wholes:
            value = segments[index]
            if not value:
                return None
            values[name] = value
        return values


_NOTHING: Mapping[str, str] = {}
# Equal tuples are kept once: there are few of them, and what is shared stays in the cache.
_shared: dict[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]] = {}
_MOST_SHARED = 10_000


def _wholes(template: Template) -> tuple[tuple[str, int], ...] | None:
    if template.query or template.stretch is not None:
        return None
    slotted = [(piece, index) for index, piece in enumerate(template.head) if piece.slots]
    if len(slotted) != template.variables or not all(piece.whole for piece, _ in slotted):
        return None
    wholes = tuple((piece.slots[0].name, index) for piece, index in slotted)
    if len(_shared) >= _MOST_SHARED:
        _shared.clear()
    return _shared.setdefault(wholes, wholes)


class _Affixes(Generic[V]):
    """Values by prefix and suffix. Finds all whose prefix and suffix a text has, by trying all lengths."""

    __slots__ = ("by_prefix", "prefixes")

    def __init__(self) -> None:
        self.prefixes: list[int] = []
        self.by_prefix: dict[str, tuple[list[int], dict[str, V]]] = {}

    def get(self, prefix: str, suffix: str) -> V | None:
        entry = self.by_prefix.get(prefix)
        return None if entry is None else entry[1].get(suffix)

    def put(self, prefix: str, suffix: str, value: V) -> None:
        if len(prefix) not in self.prefixes:
            insort(self.prefixes, len(prefix))
        lengths, by_suffix = self.by_prefix.setdefault(prefix, ([], {}))
        if len(suffix) not in lengths:
            insort(lengths, len(suffix))
        by_suffix[suffix] = value

    def find(self, text: str) -> list[V]:
        """Values whose prefix and suffix the text has with at least one character between them."""
        size = len(text)
        found: list[V] = []
        for prefix in self.prefixes:
            if prefix >= size:
                break
            entry = self.by_prefix.get(text[:prefix])
            if entry is None:
                continue
            for suffix in entry[0]:
                if prefix + suffix >= size:
                    break
                value = entry[1].get(text[size - suffix :])
                if value is not None:
                    found.append(value)
        return found


class _Node(Generic[T]):
    __slots__ = ("leaves", "literals", "mixed", "most", "rests", "whole")

    def __init__(self) -> None:
        self.most = 0  # the most literal text of any route at or below this node
        self.leaves: list[_Leaf[T]] = []
        self.literals: dict[str, _Node[T] | _Leaf[T]] = {}
        self.whole: _Node[T] | _Leaf[T] | None = None
        self.mixed: _Affixes[dict[tuple[str, ...], _Node[T] | _Leaf[T]]] | None = None
        self.rests: _Affixes[list[_Leaf[T]]] | None = None

    def child(self, piece: Piece) -> _Node[T] | _Leaf[T] | None:
        literals = piece.literals
        if not piece.slots:
            return self.literals.get(literals[0])
        if piece.whole:
            return self.whole
        shapes = None if self.mixed is None else self.mixed.get(literals[0], literals[-1])
        return None if shapes is None else shapes.get(literals[1:-1])

    def set_child(self, piece: Piece, child: _Node[T] | _Leaf[T]) -> None:
        literals = piece.literals
        if not piece.slots:
            self.literals[literals[0]] = child
        elif piece.whole:
            self.whole = child
        else:
            if self.mixed is None:
                self.mixed = _Affixes()
            shapes = self.mixed.get(literals[0], literals[-1])
            if shapes is None:
                shapes = {}
                self.mixed.put(literals[0], literals[-1], shapes)
            shapes[literals[1:-1]] = child

    def add(self, leaf: _Leaf[T], depth: int) -> None:
        """Puts a route whose first `depth` segments led here where it belongs, below."""
        node = self
        template = leaf.template
        while True:
            node.most = max(node.most, template.literal)
            if depth == len(template.head):
                break
            piece = template.head[depth]
            depth += 1
            child = node.child(piece)
            if child is None:
                leaf.put(depth)
                node.set_child(piece, leaf)
                return
            if isinstance(child, _Leaf):
                other, child = child, _Node()
                child.add(other, depth)
                node.set_child(piece, child)
            node = child
        leaf.put(depth)
        if template.stretch is None:
            insort(node.leaves, leaf)
            return
        if node.rests is None:
            node.rests = _Affixes()
        prefix = template.stretch.literals[0]
        leaves = node.rests.get(prefix, template.suffix)
        if leaves is None:
            leaves = []
            node.rests.put(prefix, template.suffix, leaves)
        insort(leaves, leaf)


class RouteTrie(Generic[T]):
    """Routes of one host. Insert all, then find."""

    def __init__(self) -> None:
        self._exact: dict[str, list[_Leaf[T]]] = {}
        self._root: _Node[T] = _Node()
        self._count = 0
        self._queries = False

    def __len__(self) -> int:
        return self._count

    def insert(self, template: Template, payload: T) -> None:
        leaf = _Leaf((-template.literal, template.variables, self._count), template, payload)
        self._count += 1
        self._queries = self._queries or bool(template.query)
        if template.stretch is None and not any(piece.slots for piece in template.head):
            insort(self._exact.setdefault("/".join(piece.literals[0] for piece in template.head), []), leaf)
        else:
            self._root.add(leaf, 1)

    def find(self, path: str, query: str | None = None) -> tuple[T, dict[str, str]] | None:
        """(payload, values as they came) of the best route that matches."""
        segments = path.split("/")
        given = parameters(query) if self._queries else _NOTHING
        best: _Leaf[T] | None = None
        values: dict[str, str] = {}
        for leaf in self._exact.get(path, ()):
            found = leaf.bind(segments, given)
            if found is not None:
                best, values = leaf, found
                break
        # Without queries, nothing has more literal text than the path itself.
        if segments[0] or (best is not None and not self._queries):
            return None if best is None else (best.payload, values)

        size = len(segments)
        pending: list[tuple[_Node[T] | _Leaf[T], int]] = []
        at: _Node[T] | _Leaf[T] | None = self._root
        index = 1
        while at is not None:
            following: _Node[T] | _Leaf[T] | None = None
            if isinstance(at, _Leaf):
                if best is None or at.rank < best.rank:
                    found = at.bind(segments, given)
                    if found is not None:
                        best, values = at, found
            elif best is not None and -best.rank[0] > at.most:
                pass
            elif index == size:
                pending.extend((leaf, size) for leaf in at.leaves)
            else:
                if at.rests is not None:
                    for leaves in at.rests.find("/".join(segments[index:])):
                        pending.extend((leaf, size) for leaf in leaves)
                segment = segments[index]
                index += 1
                following = at.literals.get(segment)
                if at.mixed is not None:
                    for shapes in at.mixed.find(segment):
                        pending.extend((child, index) for child in shapes.values())
                if at.whole is not None and segment:
                    if following is None:
                        following = at.whole
                    else:
                        pending.append((at.whole, index))
            if following is None and pending:
                following, index = pending.pop()
            at = following
        return None if best is None else (best.payload, values)
