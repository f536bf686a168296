"""The trie, the templates and the clash finder against matchers that try everything."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product

from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.routing.clash import clashes, meet
from waypost.routing.template import Piece, Slot, Template
from waypost.routing.trie import RouteTrie

# Alphabets are small so that routes collide and literals overlap with values.
names = st.sampled_from("uvw")
variables = st.builds(
    lambda name, rest: f"{{{'+' if rest else ''}{name}}}", names, st.integers(0, 5).map(lambda n: n == 0)
)
literals = st.text("ab-", min_size=1, max_size=2)
segments = st.one_of(
    literals,
    literals,
    st.just("{u}"),
    st.just("{v}"),
    st.lists(st.one_of(literals, variables), max_size=4).map("".join),
)
queries = st.sampled_from(["", "", "", "", "?q={u}", "?q=a", "?r={w}&q=b{v}", "{?q}"])
texts = st.builds(
    lambda parts, query: "/" + "/".join(parts) + query, st.lists(segments, min_size=1, max_size=4), queries
)
templates = texts.map(Template.parse)
paths = st.lists(st.text("ab-", max_size=4), min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
asked = st.sampled_from([None, "", "q=a", "q=ba", "q=a&r=b", "r=a&q=bb", "q=/"])


def bindings(items: list[str | Slot], text: str, values: dict[str, str]) -> Iterator[dict[str, str]]:
    """Every binding of a text, the longest values of earlier variables first."""
    if not items:
        if not text:
            yield values
        return
    item, *others = items
    if isinstance(item, str):
        if text.startswith(item):
            yield from bindings(others, text[len(item) :], values)
        return
    for size in range(len(text), 0, -1):
        value = text[:size]
        if (item.rest or "/" not in value) and values.get(item.name, value) == value:
            yield from bindings(others, text[size:], {**values, item.name: value})


def items_of(pieces: list[Piece], between: str) -> list[str | Slot]:
    items: list[str | Slot] = []
    for number, piece in enumerate(pieces):
        items.append(between if number else "")
        for index, literal in enumerate(piece.literals):
            if index:
                items.append(piece.slots[index - 1])
            items.append(literal)
    return items


def brute_force(template: Template, path: str, query: str | None) -> dict[str, str] | None:
    """Path and query as one text, with what cannot occur in either between its parts."""
    given: dict[str, str] = {}
    for pair in (query or "").split("&"):
        name, _, value = pair.partition("=")
        given.setdefault(name, value)
    stretch = [] if template.stretch is None else [template.stretch]
    items = items_of([*template.head, *stretch, *template.tail], "/")
    text = path
    for piece in template.query:
        name = str(piece.source)[1:]
        if name not in given:
            return None
        items.extend(["\0", *items_of([piece], "")])
        text += f"\0{given[name]}"
    for values in bindings(items, text, {}):
        if not any("\0" in value for value in values.values()):
            return values
    return None


@settings(max_examples=600, deadline=None)
@given(templates, paths, asked)
def test_a_template_binds_what_trying_everything_binds_first(template: Template, path: str, query: str | None) -> None:
    assert template.match(path, query) == brute_force(template, path, query)


@settings(max_examples=300, deadline=None)
@given(texts, st.data())
def test_paths_made_from_a_template_match_it(text: str, data: st.DataObject) -> None:
    """Random paths seldom match; these always do, so the bindings themselves are compared."""
    template = Template.parse(text)
    values = {name: data.draw(st.text("ab-", min_size=1, max_size=3)) for name in template.names}
    path, _, query = template.expand(values).partition("?")
    found = template.match(path, query)
    assert found is not None
    assert found == brute_force(template, path, query)


@settings(max_examples=300, deadline=None)
@given(st.lists(templates, max_size=12), st.lists(st.tuples(paths, asked), min_size=1, max_size=6))
def test_the_trie_finds_what_asking_every_route_finds(
    routes: list[Template], requests: list[tuple[str, str | None]]
) -> None:
    trie: RouteTrie[int] = RouteTrie()
    for number, template in enumerate(routes):
        trie.insert(template, number)
    requests = [
        *requests,
        *((t.text.replace("{+", "{").replace("{u}", "a").replace("{v}", "b"), "q=a&r=b") for t in routes),
    ]
    for path, query in requests:
        matches = [
            (-template.literal, template.variables, number, values)
            for number, template in enumerate(routes)
            if (values := brute_force(template, path, query)) is not None
        ]
        found = trie.find(path, query)
        assert found == (min(matches, key=lambda match: match[:3])[2:] if matches else None)


@settings(max_examples=150, deadline=None)
@given(st.lists(templates, max_size=10), st.lists(st.tuples(paths, asked), max_size=6))
def test_no_clash_is_missed(routes: list[Template], requests: list[tuple[str, str | None]]) -> None:
    found = set(clashes(routes, most=1000))
    for one in range(len(routes)):
        for other in range(one + 1, len(routes)):
            equal = (routes[one].literal, routes[one].variables) == (
                routes[other].literal,
                routes[other].variables,
            )
            assert ((one, other) in found) == (equal and meet(routes[one], routes[other]))
    for path, query in requests:
        matching = [i for i, template in enumerate(routes) if template.match(path, query) is not None]
        ranks = {i: (routes[i].literal, routes[i].variables) for i in matching}
        for one, other in pairwise(matching):
            assert ranks[one] != ranks[other] or (one, other) in found


small = st.lists(st.sampled_from(["a", "b", "/", "{}", "{+}"]), max_size=3)


@settings(max_examples=150, deadline=None)
@given(small, small)
def test_templates_meet_exactly_if_they_have_a_common_path(one: list[str], other: list[str]) -> None:
    """A shortest common path takes a step in one of the two with each character: six are enough here."""
    first, second = _template(one, "u"), _template(other, "v")
    common = any(first.match(path) is not None and second.match(path) is not None for path in SHORT_PATHS)
    assert meet(first, second) == common


def _template(items: list[str], letter: str) -> Template:
    """Every variable gets a name of its own: `meet` takes repeated ones for different ones."""
    named = (item.replace("}", f"{letter}{number}}}") for number, item in enumerate(items))
    return Template.parse("/" + "".join(named))


SHORT_PATHS = ["/" + "".join(letters) for size in range(7) for letters in product("ab/", repeat=size)]
