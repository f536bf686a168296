"""Files by regular expression: a manifest's file-v2 rules.

Patterns run in RE2, whose time is linear in the path whatever the pattern. They are unanchored, see the path
as it came, without query, and the first that is found decides. All are asked at once, as one automaton; where
they are too many for RE2's memory they are tried one by one, which takes time for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import re2
from msgspec import Struct

from waypost.artifacts.kind import HostPolicy, Kind, Reach, origins
from waypost.artifacts.target import Target
from waypost.routing.decision import Decision
from waypost.routing.outgoing import Outgoing
from waypost.routing.request import Request


class FileRegexRow(Struct, frozen=True, array_like=True, tag="file-regex"):
    pattern: str
    to: str | None
    package: str
    owner: str | None = None


class RegexError(ValueError):
    """A regular expression that RE2 cannot express: its author's fault."""


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    return options


def compile_pattern(text: str) -> re2._Regexp:
    """Raises RegexError with RE2's reason."""
    try:
        return re2.compile(text, _options())
    except re2.error as error:
        reason = error.args[0]
        said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise RegexError(f"{text!r} is no regular expression that RE2 can run: {said}") from error


def check(row: FileRegexRow) -> None:
    """Raises RegexError or TemplateError for a row that cannot be served."""
    compiled = compile_pattern(row.pattern)
    if row.to is not None:
        Outgoing.parse(row.to, tuple(compiled.groupindex))


class FileRegexSite:
    def __init__(self, rows: Sequence[FileRegexRow], policy: HostPolicy) -> None:
        self._rows = rows
        self._patterns = [compile_pattern(row.pattern) for row in rows]
        self._targets = [
            Target(
                () if row.to is None else (Outgoing.parse(row.to, tuple(pattern.groupindex)),),
                row.package,
                row.owner,
            )
            for row, pattern in zip(rows, self._patterns, strict=True)
        ]
        self._set = _set(rows)

    def decide(self, request: Request) -> Decision | None:
        path = _encodable(request.path)
        for index in self._candidates(path):
            match = self._patterns[index].search(path)
            if match is not None:
                # A group that took no part is empty, so that a URL has the same shape whatever the request.
                values = {name: value or "" for name, value in match.groupdict().items()}
                return self._targets[index].answer(request, values)
        return None

    def _candidates(self, path: str) -> Sequence[int]:
        if self._set is None:
            return range(len(self._rows))
        return sorted(self._set.Match(path) or ())[:1]

    def explain(self, request: Request) -> list[str]:
        path = _encodable(request.path)
        for index in self._candidates(path):
            if self._patterns[index].search(path) is not None:
                row = self._rows[index]
                to = "200" if row.to is None else row.to
                return [f"file-regex: {row.pattern} → {to}, package {row.package}"]
        return [f"file-regex: none of {len(self._rows)} patterns is found in {request.path}"]


def _encodable(path: str) -> str:
    """RE2 reads UTF-8. The gateway lets only ASCII come here; this is for everybody else."""
    return path if path.isascii() else path.encode("utf-8", "replace").decode()


def _set(rows: Sequence[FileRegexRow]) -> re2.Set | None:
    """All patterns in one automaton; None where one is no help, or too large."""
    if len(rows) < 2:
        return None
    together = re2.Set.SearchSet(_options())
    try:
        for row in rows:
            together.Add(row.pattern)
        together.Compile()
    except re2.error:
        return None
    return together


def reach(rows: Sequence[FileRegexRow]) -> Reach:
    return Reach(origins(row.to for row in rows if row.to is not None))


KIND = Kind(name="file-regex", order=25, row=FileRegexRow, site=FileRegexSite, reach=reach)
