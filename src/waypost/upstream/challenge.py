"""Reads WWW-Authenticate: RFC 9110 section 11.6.1, with all that it allows.

    WWW-Authenticate = #challenge
    challenge        = auth-scheme [ 1*SP ( token68 / #auth-param ) ]
    auth-param       = token BWS "=" BWS ( token / quoted-string )

The list of challenges and the list of parameters both use commas. A word that is followed by "=" goes on with
the challenge before it; any other word starts a new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct


class ChallengeError(ValueError):
    """The upstream's fault: its WWW-Authenticate cannot be read."""


class Challenge(Struct, frozen=True):
    """`scheme` and the names of parameters are in lower case; `token68` excludes parameters."""

    scheme: str
    parameters: dict[str, str] = {}
    token68: str | None = None


# RFC 9110 section 5.6: token, OWS (and BWS), quoted-string, empty list elements. Section 11.2: token68.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SPACE = re.compile(r"[ \t]*")
_COMMAS = re.compile(r"[ \t,]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_TOKEN68 = re.compile(r"([-A-Za-z0-9._~+/]+=*)[ \t]*(?=,|$)")
_NAME = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*")
_END = re.compile(r"[ \t]*(?:,|$)")


def parse_challenges(lines: Iterable[str]) -> list[Challenge]:
    """Every challenge of every WWW-Authenticate line, in order. Raises ChallengeError."""
    return [challenge for line in lines for challenge in _parse_line(line)]


def bearer(challenges: Iterable[Challenge]) -> Challenge | None:
    """The first Bearer challenge that names a realm."""
    for challenge in challenges:
        if challenge.scheme == "bearer" and "realm" in challenge.parameters:
            return challenge
    return None


def _parse_line(line: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = _skip(_COMMAS, line, 0)
    while at < len(line):
        challenge, at = _parse_challenge(line, at)
        found.append(challenge)
        at = _skip(_COMMAS, line, at)
    return found


def _parse_challenge(line: str, at: int) -> tuple[Challenge, int]:
    scheme = _TOKEN.match(line, at)
    if scheme is None:
        raise ChallengeError(f"no scheme at character {at}")
    name, at = scheme[0].lower(), scheme.end()
    if _END.match(line, at):
        return Challenge(name), at
    if line[at] not in " \t":
        raise ChallengeError(f"unexpected {line[at]!r} at character {at}")
    at = _skip(_SPACE, line, at)
    if single := _TOKEN68.match(line, at):
        return Challenge(name, token68=single[1]), single.end()
    parameters, at = _parse_parameters(line, at)
    return Challenge(name, parameters), at


def _parse_parameters(line: str, at: int) -> tuple[dict[str, str], int]:
    parameters: dict[str, str] = {}
    while name := _NAME.match(line, at):
        value, at = _parse_value(line, name.end())
        if not _END.match(line, at):
            raise ChallengeError(f"no comma at character {at}")
        key = name[1].lower()
        # RFC 9110 section 11.2: each name once. Which of two realms is meant, nobody can know.
        if key in parameters:
            raise ChallengeError(f"{key} is given twice")
        parameters[key] = value
        at = _skip(_COMMAS, line, at)
    if not parameters:
        raise ChallengeError(f"neither a parameter nor a token at character {at}")
    return parameters, at


def _parse_value(line: str, at: int) -> tuple[str, int]:
    if quoted := _QUOTED.match(line, at):
        return _ESCAPE.sub(r"\1", quoted[1]), quoted.end()
    if token := _TOKEN.match(line, at):
        return token[0], token.end()
    raise ChallengeError(f"no value at character {at}")


def _skip(what: re.Pattern[str], line: str, at: int) -> int:
    matched = what.match(line, at)
    return at if matched is None else matched.end()
