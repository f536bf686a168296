"""Image patterns: `acme/*`, `acme/{web,db-*}`. They match names of images, segment by segment.

    *        one or more characters other than "/"
    {a,b}    either pattern; alternatives may hold patterns again, be empty, but not cross a "/"
    \\x       the character x itself

Of several ways to match, earlier alternatives go first and earlier `*` take the longest.
"""

from __future__ import annotations

from functools import cached_property

import re2

MOST_NESTED = 16


class PatternError(ValueError):
    """A pattern that cannot be read: its author's fault. `position` counts characters from 0."""

    def __init__(self, text: str, position: int, sentence: str) -> None:
        super().__init__(f"{sentence} (character {position + 1} of {text!r})")
        self.text = text
        self.position = position
        self.sentence = sentence


class Pattern:
    """A parsed pattern.

    text       as written
    literal    how many characters every match has literally (of alternatives, the least): more goes first
    wildcards  how many `*` it has
    """

    def __init__(self, text: str, expression: str, literal: int, wildcards: int) -> None:
        self.text = text
        self.literal = literal
        self.wildcards = wildcards
        self._expression = expression

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises PatternError."""
        parser = _Parser(text)
        expression, literal = parser.sequence(0)
        if parser.position < len(text):
            raise PatternError(text, parser.position, f"{text[parser.position]!r} stands alone here.")
        if not text or "" in text.split("/"):
            raise PatternError(text, 0, "A pattern is segments with '/' between them, none of them empty.")
        return cls(text, expression, literal, parser.wildcards)

    @cached_property
    def _compiled(self) -> re2._Regexp:
        return re2.compile(self._expression)

    def match(self, name: str) -> tuple[str, ...] | None:
        """What each `*` stands for, in the text's order ("" in an alternative not taken); None: no match."""
        # Names of images are ASCII; and RE2 reads UTF-8, which not all text can be written in.
        match = self._compiled.fullmatch(name) if name.isascii() else None
        return None if match is None else tuple(group or "" for group in match.groups())

    def __repr__(self) -> str:
        return f"<Pattern {self.text}>"


class _Parser:
    """Recursive descent. Each method returns (RE2 expression, least literal length)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.wildcards = 0

    def sequence(self, depth: int) -> tuple[str, int]:
        pieces = []
        literal = 0
        while self.position < len(self.text):
            character = self.text[self.position]
            if character == "}" or (character == "," and depth):
                break
            if character == "{":
                piece, size = self.alternatives(depth + 1)
            elif character == "*":
                self.wildcards += 1
                self.position += 1
                piece, size = "([^/]+)", 0
            elif character == "/" and depth:
                raise PatternError(self.text, self.position, "Alternatives stay within one segment.")
            else:
                piece, size = re2.escape(self.character()), 1
            pieces.append(piece)
            literal += size
        return "".join(pieces), literal

    def alternatives(self, depth: int) -> tuple[str, int]:
        start = self.position
        if depth > MOST_NESTED:
            raise PatternError(self.text, start, f"Braces nest at most {MOST_NESTED} deep.")
        branches = []
        while True:
            self.position += 1
            branches.append(self.sequence(depth))
            if self.position == len(self.text):
                raise PatternError(self.text, start, "This brace is never closed.")
            if self.text[self.position] == "}":
                self.position += 1
                break
        return f"(?:{'|'.join(text for text, _ in branches)})", min(size for _, size in branches)

    def character(self) -> str:
        if self.text[self.position] == "\\":
            self.position += 1
            if self.position == len(self.text) or self.text[self.position] == "/":
                raise PatternError(self.text, self.position - 1, "A backslash escapes the character after it.")
        self.position += 1
        return self.text[self.position - 1]
