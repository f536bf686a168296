"""RFC 6570: the grammar of URI templates, and their expansion, all four levels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import quote_from_bytes

from msgspec import Struct

Value: TypeAlias = str | Sequence[str] | Mapping[str, str] | None


class TemplateError(ValueError):
    """A template that cannot be used: its author's fault. `position` counts characters from 0."""

    def __init__(self, text: str, position: int, sentence: str) -> None:
        super().__init__(f"{sentence} (character {position + 1} of {text!r})")
        self.text = text
        self.position = position
        self.sentence = sentence


class Variable(Struct, frozen=True):
    """RFC 6570 section 2.3 and 2.4: a name, perhaps with `:prefix` (characters) or `*`."""

    name: str
    prefix: int = 0
    explode: bool = False


class Operator(Struct, frozen=True):
    """One column of the table in RFC 6570 appendix A."""

    first: str
    separator: str
    named: bool
    if_empty: str
    reserved: bool


OPERATORS = {
    "": Operator("", ",", False, "", False),
    "+": Operator("", ",", False, "", True),
    ".": Operator(".", ".", False, "", False),
    "/": Operator("/", "/", False, "", False),
    ";": Operator(";", ";", True, "", False),
    "?": Operator("?", "&", True, "=", False),
    "&": Operator("&", "&", True, "=", False),
    "#": Operator("#", ",", False, "", True),
}


class Expression(Struct, frozen=True):
    """`{operator variables}`, at `position` in the template's text."""

    operator: str
    variables: tuple[Variable, ...]
    position: int


class Literal(Struct, frozen=True):
    """Literal text, already percent-encoded (RFC 6570 section 3.1), at `position` in the template's text."""

    text: str
    position: int


Part: TypeAlias = Literal | Expression

# RFC 3986 section 2.2 and 2.3.
UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
RESERVED = b":/?#[]@!$&'()*+,;="

# RFC 6570 section 2.1, save that we take "'" as a literal: it is common in file names and harmless.
_NOT_LITERAL = re.compile(r"[\x00-\x20\x7f-\x9f\"<>\\^`|{}]|%(?![0-9A-Fa-f]{2})")
# RFC 6570 sections 2.3 and 2.4.
_VARIABLE = re.compile(
    r"((?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})+(?:\.(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})+)*)(?::([1-9][0-9]{0,3})|(\*))?"
)
_TRIPLET = re.compile(rb"(%[0-9A-Fa-f]{2})")


def parse(text: str) -> tuple[Part, ...]:
    """The parts of a template. Raises TemplateError."""
    parts: list[Part] = []
    position = 0
    while position < len(text):
        start = text.find("{", position)
        if start < 0:
            start = len(text)
        if start > position:
            parts.append(Literal(_literal(text, position, start), position))
        if start == len(text):
            break
        end = text.find("}", start)
        if end < 0:
            raise TemplateError(text, start, "This brace is never closed.")
        parts.append(_expression(text, start, end))
        position = end + 1
    return tuple(parts)


def _literal(text: str, start: int, end: int) -> str:
    literal = text[start:end]
    wrong = _NOT_LITERAL.search(literal)
    if wrong is not None:
        raise TemplateError(text, start + wrong.start(), f"{wrong[0]!r} must be percent-encoded here.")
    return literal if literal.isascii() else encode(literal.encode(), reserved=True)


def _expression(text: str, start: int, end: int) -> Expression:
    inner = text[start + 1 : end]
    operator = inner[:1] if inner[:1] in OPERATORS else ""
    if inner[:1] in ("=", ",", "!", "@", "|"):
        raise TemplateError(text, start + 1, f"RFC 6570 keeps the operator {inner[0]!r} for later.")
    names = inner[len(operator) :]
    variables = _variables(names)
    if isinstance(variables, str):
        position = start + 1 + len(operator) + f",{names},".index(f",{variables},")
        raise TemplateError(text, position, f"{variables!r} is no name of a variable.")
    return Expression(operator, variables, start)


@lru_cache(maxsize=1024)
def _variables(names: str) -> tuple[Variable, ...] | str:
    """What stands in an expression; or the first of it that is no variable. A million templates use few names."""
    variables = []
    for item in names.split(","):
        match = _VARIABLE.fullmatch(item)
        if match is None:
            return item
        variables.append(Variable(match[1], int(match[2] or 0), match[3] is not None))
    return tuple(variables)


def encode(data: bytes, reserved: bool = False) -> str:
    """Percent-encodes bytes; with `reserved`, keeps reserved characters and whole triplets as they are."""
    if not data.translate(None, UNRESERVED):
        return data.decode()
    if not reserved:
        return quote_from_bytes(data, safe=b"~")
    pieces = _TRIPLET.split(data)
    return "".join(
        piece.decode() if index % 2 else quote_from_bytes(piece, safe=RESERVED + b"~")
        for index, piece in enumerate(pieces)
    )


def expand(parts: Sequence[Part], values: Mapping[str, Value]) -> str:
    """RFC 6570 section 3. Values are text, lists or mappings; None or absent: undefined."""
    return "".join(part.text if isinstance(part, Literal) else expand_expression(part, values) for part in parts)


def expand_expression(expression: Expression, values: Mapping[str, Value]) -> str:
    """RFC 6570 section 3.2.1 and appendix A."""
    operator = OPERATORS[expression.operator]
    pieces: list[str] = []
    for variable in expression.variables:
        value = values.get(variable.name)
        if value is None:
            continue
        if isinstance(value, str):
            pieces.append(_scalar(operator, variable, value))
        elif variable.prefix:
            raise ValueError(f"a prefix cannot be taken of {variable.name!r}, which is no text")
        elif len(value):
            pieces.extend(_composite(operator, variable, value))
    return operator.first + operator.separator.join(pieces) if pieces else ""


def _scalar(operator: Operator, variable: Variable, value: str) -> str:
    if variable.prefix:
        value = value[: variable.prefix]
    encoded = _encode(value, operator)
    return _named(variable.name, encoded, operator) if operator.named else encoded


def _named(name: str, encoded: str, operator: Operator) -> str:
    return f"{name}={encoded}" if encoded else f"{name}{operator.if_empty}"


def _composite(operator: Operator, variable: Variable, value: Sequence[str] | Mapping[str, str]) -> Sequence[str]:
    if isinstance(value, Mapping):
        pairs = [(_encode(key, operator), _encode(item, operator)) for key, item in value.items()]
        if variable.explode:
            if operator.named:
                return [_named(key, item, operator) for key, item in pairs]
            return [f"{key}={item}" for key, item in pairs]
        items = [text for pair in pairs for text in pair]
    else:
        items = [_encode(item, operator) for item in value]
        if variable.explode:
            return [_named(variable.name, item, operator) for item in items] if operator.named else items
    joined = ",".join(items)
    return [_named(variable.name, joined, operator)] if operator.named else [joined]


def _encode(value: str, operator: Operator) -> str:
    return encode(value.encode("utf-8", "surrogateescape"), operator.reserved)
