"""Outgoing templates: the URL that a client is sent to, made of a template and what an incoming one bound.

What a request can change is bounded here, once, for everybody:

- scheme, host and port are literal, and the literal text goes on with "/", "?" or "#" before any value;
- in the path, values carry no "?" or "#" of their own, and a query's value cannot start another parameter;
- a value that would make a dot segment, however it is spelt, gives no URL at all: nothing climbs out of the
  template's literal beginning;
- everything that RFC 3986 does not allow in a URL is percent-encoded: the result is printable ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from waypost.routing.expression import (
    OPERATORS,
    RESERVED,
    UNRESERVED,
    Expression,
    Literal,
    Part,
    TemplateError,
    encode,
    expand_expression,
    parse,
)

# RFC 3986 section 3.2.2, without the parts that nobody needs: userinfo, percent-encoded host names.
_AUTHORITY = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\])"
    r"(?P<port>:[0-9]{1,5})?(?P<rest>[/?#].*)?",
    re.DOTALL | re.IGNORECASE,
)
# RFC 3986 section 3.3, and what servers make of it: "\" and encoded slashes separate segments for some,
# ";" starts parameters for others. `/..;x/`, `/..%2F` and `/%2e%2e` all climb somewhere.
_DOT_SEGMENT = re.compile(r"(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?=[/\\;]|%2f|%5c|%3b|$)", re.IGNORECASE)

_MARKS = re.compile(r"(?=[?#])")

PATH, QUERY, FRAGMENT = range(3)
# What a value may hold unencoded where it is kept as it came, by position.
_KEPT = (
    bytes(set(UNRESERVED + RESERVED) - set(b"?#")),
    bytes(set(UNRESERVED + RESERVED) - set(b"#&")),
    UNRESERVED + RESERVED,
)
_LONE_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_QUERY_KEPT = bytes(set(UNRESERVED + RESERVED) - set(b"#"))


def keep(raw: str, kept: bytes) -> str:
    """`raw` as it came, what is not in `kept` percent-encoded. Triplets stay; a lone "%" becomes "%25"."""
    data = raw.encode("utf-8", "surrogatepass")
    if not data.translate(None, kept):
        return raw
    return "".join(map(_spelling(kept).__getitem__, _LONE_PERCENT.sub(b"%25", data)))


@cache
def _spelling(kept: bytes) -> tuple[str, ...]:
    """How each byte is written."""
    return tuple(chr(byte) if byte in kept or byte == 0x25 else f"%{byte:02X}" for byte in range(256))


def keep_query(raw: str) -> str:
    """A request's query as it may stand in a URL."""
    return keep(raw, _QUERY_KEPT)


def recode(raw: str) -> str:
    """The decoded value encoded again, so that only unreserved characters stand for themselves."""
    data = raw.encode("utf-8", "surrogatepass")
    if not data.translate(None, UNRESERVED):
        return raw
    return encode(unquote_to_bytes(data))


def climbs(path: str) -> bool:
    """Whether a path has a dot segment, in any spelling."""
    return ("/." in path or "%" in path or "\\" in path) and _DOT_SEGMENT.search(path) is not None


# Where a part stands, and the part: literal text, one variable (name, kept as it came), or an expression.
_Step: TypeAlias = str | tuple[str, bytes | None] | Expression


class Outgoing:
    """An outgoing template.

    text       as written
    scheme     "http" or "https"
    authority  the host in lower case, with the port if the template names one
    """

    __slots__ = ("_fragment", "_path", "_query", "authority", "scheme", "text")

    def __init__(
        self, text: str, scheme: str, authority: str, steps: tuple[list[_Step], list[_Step], list[_Step]]
    ) -> None:
        self.text = text
        self.scheme = scheme
        self.authority = authority
        self._path, self._query, self._fragment = map(tuple, steps)

    @classmethod
    def parse(cls, text: str, bound_names: Collection[str]) -> Outgoing:
        """Raises TemplateError: not http(s), a variable in the authority, or one that is not bound."""
        parts = parse(text)
        scheme, authority = _authority(text, parts)
        for part in parts:
            if isinstance(part, Expression):
                _check_bound(text, part, bound_names)
        steps = _steps(parts)
        if climbs(_literally(steps[PATH])):
            raise TemplateError(text, 0, "Write the path without '.' and '..'.")
        return cls(text, scheme, authority, steps)

    def location(self, values: Mapping[str, str], query: str | None = None) -> str | None:
        """The URL for raw values (as Template.match gives them) and the request's raw query.

        `{x}` encodes the decoded value, `{+x}` keeps it as it came. Every parameter of the request is
        carried over; of those with one name the template's wins, then the first. None: a value would have
        made a dot segment.
        """
        location = _filled(self._path, values, PATH)
        if climbs(location):
            return None
        ours = _filled(self._query, values, QUERY) if self._query else ""
        if query:
            ours = _with(ours, query)
        if ours:
            location = f"{location}{ours}"
        if self._fragment:
            location += _filled(self._fragment, values, FRAGMENT)
        return location

    def __repr__(self) -> str:
        return f"<Outgoing {self.text}>"


def _authority(text: str, parts: tuple[Part, ...]) -> tuple[str, str]:
    first = parts[0].text if parts and isinstance(parts[0], Literal) else ""
    match = _AUTHORITY.fullmatch(first)
    if match is None:
        raise TemplateError(text, 0, _why_no_authority(text, first))
    if match["port"] and not 0 < int(match["port"][1:]) < 65536:
        raise TemplateError(text, match.start("port"), "There is no such port.")
    if match["rest"] is None and len(parts) > 1:
        following = parts[1]
        if not isinstance(following, Expression) or following.operator not in ("/", "?", "#"):
            raise TemplateError(text, len(first), "A value here could extend the host: write '/' before it.")
    return match["scheme"].lower(), match["host"].lower().rstrip(".") + (match["port"] or "")


def _why_no_authority(text: str, first: str) -> str:
    scheme, mark, rest = text.partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        return "An outgoing URL starts with https:// or http://."
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "{" in authority:
        return "Scheme, host and port of an outgoing URL cannot hold variables."
    if "@" in authority:
        return "An outgoing URL holds no user name or password."
    if not authority.isascii() or "%" in first.partition("://")[2].split("/", 1)[0]:
        return "Write the host in its ASCII form (xn--…)."
    return f"{authority!r} is no host."


def _check_bound(text: str, part: Expression, bound_names: Collection[str]) -> None:
    for variable in part.variables:
        if variable.name not in bound_names:
            raise TemplateError(text, part.position, f"The incoming path binds no variable {variable.name!r}.")


def _steps(parts: tuple[Part, ...]) -> tuple[list[_Step], list[_Step], list[_Step]]:
    """Parts of the path (with scheme and authority), the query (with "?") and the fragment (with "#")."""
    steps: tuple[list[_Step], list[_Step], list[_Step]] = ([], [], [])
    where = PATH
    for part in parts:
        if isinstance(part, Literal):
            for piece in _MARKS.split(part.text):
                # A "?" within a query, and anything within a fragment, is plain text.
                if piece.startswith("#"):
                    where = FRAGMENT
                elif piece.startswith("?") and where == PATH:
                    where = QUERY
                if piece:
                    steps[where].append(piece)
            continue
        if part.operator == "#":
            where = FRAGMENT
        elif part.operator == "?" and where == PATH:
            where = QUERY
        steps[where].append(_step(part, where))
    return steps


def _step(part: Expression, where: int) -> _Step:
    variable = part.variables[0]
    if len(part.variables) > 1 or variable.prefix or part.operator not in ("", "+"):
        return part
    return (variable.name, _KEPT[where] if part.operator == "+" else None)


def _literally(steps: list[_Step]) -> str:
    """The steps with a harmless value in each place."""
    pieces = []
    for step in steps:
        if isinstance(step, Expression):
            pieces.append(OPERATORS[step.operator].first)
        pieces.append(step if isinstance(step, str) else "x")
    return "".join(pieces)


def _filled(steps: tuple[_Step, ...], values: Mapping[str, str], where: int) -> str:
    pieces = []
    for step in steps:
        if type(step) is str:
            pieces.append(step)
        elif type(step) is tuple:
            name, kept = step
            raw = values[name]
            if raw.encode("utf-8", "surrogatepass").translate(None, UNRESERVED if kept is None else kept):
                raw = recode(raw) if kept is None else keep(raw, kept)
            pieces.append(raw)
        else:
            pieces.append(_expanded(step, values, where))  # type: ignore[arg-type]
    return "".join(pieces)


def _expanded(step: Expression, values: Mapping[str, str], where: int) -> str:
    decoded = {v.name: _decoded(values[v.name]) for v in step.variables}
    operator = OPERATORS[step.operator]
    if not operator.reserved:
        return expand_expression(step, decoded)
    # RFC 6570 section 2.4.1: a prefix counts characters of the decoded value.
    kept = (
        encode(_encoded(decoded[v.name][: v.prefix]), reserved=True) if v.prefix else values[v.name]
        for v in step.variables
    )
    return operator.first + ",".join(keep(value, _KEPT[where]) for value in kept)


def _decoded(raw: str) -> str:
    return unquote_to_bytes(raw.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogateescape")


def _encoded(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _with(ours: str, query: str) -> str:
    """`ours` ("" or "?…") and those parameters of the request whose names it does not have, each once."""
    theirs = keep_query(query)
    if not ours and "&" not in theirs:
        return f"?{theirs}"
    pairs = [pair for pair in ours[1:].split("&") if pair]
    seen = {_name(pair) for pair in pairs}
    for pair in theirs.split("&"):
        if pair:
            name = _name(pair)
            if name not in seen:
                seen.add(name)
                pairs.append(pair)
    return f"?{'&'.join(pairs)}" if pairs else ""


def _name(pair: str) -> str:
    name = pair.partition("=")[0]
    return _decoded(name.replace("+", " ")) if "%" in name or "+" in name else name
