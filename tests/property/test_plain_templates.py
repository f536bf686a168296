"""Plain templates are read in one go: with the same result as step by step, and nothing is taken that is wrong."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.routing import template as module
from waypost.routing.expression import TemplateError
from waypost.routing.template import Piece, Template, names_of

PIECES = [
    "/",
    "a",
    "-",
    ".",
    "{x}",
    "{+x}",
    "{y}",
    "{+y}",
    "{x_1}",
    "{",
    "}",
    "{}",
    "{+}",
    "%41",
    "?",
    "{x,y}",
    "{/x}",
    " ",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=10).map("".join).map("/".__add__)


def read(text: str) -> object:
    """All that there is to know of a template, or the error."""
    try:
        template = Template.parse(text)
    except TemplateError as error:
        return (error.position, error.sentence)
    return (
        [shape(piece) for piece in template.pieces()],
        (len(template.head), len(template.tail), len(template.query)),
        (template.names, template.literal, template.variables, template.suffix),
    )


def shape(piece: Piece) -> object:
    return (piece.source, piece.literals, [(slot.name, slot.rest) for slot in piece.slots])


@given(TEXTS)
@settings(max_examples=400, deadline=None)
def test_in_one_go_is_as_step_by_step(text: str) -> None:
    at_once = read(text)
    with patch.object(module, "_plain", lambda text: None):
        assert read(text) == at_once


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_names_are_those_of_the_template(text: str) -> None:
    try:
        found = names_of(text)
    except TemplateError:
        found = ()
    try:
        expected = Template.parse(text).names
    except TemplateError:
        expected = ()
    assert tuple(dict.fromkeys(found)) == expected


def test_too_many_variables_are_refused_either_way() -> None:
    text = "".join(f"/{{v{number}}}" for number in range(module.MOST_VARIABLES + 1))
    assert isinstance(read(text), tuple)
    assert read(text) == (0, f"A template has at most {module.MOST_VARIABLES} variables.")
