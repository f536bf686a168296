"""Scarf Gateway manifests, read unchanged: JSON → rules. Field names are theirs; unknown fields are ignored."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Union

import msgspec
from msgspec import Struct


class ManifestError(Exception):
    """The operator's manifest cannot be used.

    where  a path into it, such as "rules[3].domain"; "" for the whole
    line   where the rule begins; 0 if unknown
    """

    def __init__(self, where: str, message: str, line: int = 0) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where
        self.message = message
        self.line = line


class Rule(Struct, rename="kebab", tag_field="type", kw_only=True):
    """What every rule may say. Scarf writes "" for an unknown owner or name."""

    domain: str
    owner: str | None = None
    package_name: str | None = None


class DockerV1(Rule, tag="docker-v1"):
    """`always-proxy` is read and has no effect: manifests are always fetched by us."""

    package_id: str
    repository_name: str
    registry: str
    always_proxy: bool | None = None


class DockerV2(Rule, tag="docker-v2"):
    pattern: str
    rule_id: str
    registry: str


class FileV1(Rule, tag="file-v1"):
    package_id: str
    incoming_path: str
    outgoing_url: str | None


class FileV2(Rule, tag="file-v2"):
    """`incoming-path` is a regular expression, unanchored."""

    package_id: str
    incoming_path: str
    outgoing_url: str | None


class Hash(Struct):
    type: str
    hash: str


class PythonV1(Rule, tag="python-v1"):
    package_id: str
    package_name: str
    file_name: str
    version: str
    backend_url: str
    hash_value: Hash | None = None
    gpg_sig: bool | None = None
    requires_python: str | None = None


class TelemetryV1(Rule, tag="telemetry-v1"):
    package_id: str
    incoming_path: str
    access_tokens: list[str] | None = None


class CatchAllV1(Rule, tag="catch-all-v1"):
    package_id: str
    redirect_target_domain: str | None = None


# The order in which rules of a host are tried (docs/request-handling.md).
TYPES: tuple[type[Rule], ...] = (DockerV1, DockerV2, FileV1, FileV2, PythonV1, TelemetryV1, CatchAllV1)


class _Manifest(Struct):
    rules: list[msgspec.Raw]


_any_rule: Any = Union[TYPES]  # noqa: UP007  built at run time
_whole: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.defstruct("Rules", [("rules", list[_any_rule])]))
_parts = msgspec.json.Decoder(_Manifest)
_rule: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_any_rule)


def parse(data: bytes) -> list[Rule]:
    """The rules of a manifest, in its order. Raises ExceptionGroup of ManifestError, one per rule that is wrong."""
    try:
        rules: list[Rule] = _whole.decode(data).rules
        return rules
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # Slowly once more, rule by rule, to name everything that is wrong.
        raise ExceptionGroup("manifest", _complaints(data)) from None


def _complaints(data: bytes) -> list[ManifestError]:
    try:
        parts = _parts.decode(data).rules
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return [_no_manifest(data, error)]
    errors = []
    lines = rule_lines(data)
    for index, part in enumerate(parts):
        try:
            _rule.decode(part)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            message, _, where = str(error).partition(" - at `$")
            where = where.rstrip("`")
            if where == ".type":
                message += f"; expected one of {', '.join(str(rule.__struct_config__.tag) for rule in TYPES)}"
            errors.append(ManifestError(f"rules[{index}]{where}", message, lines.get(index, 0)))
    return errors


def readable(data: bytes) -> Iterator[tuple[int, Rule]]:
    """Index and rule of those of a faulty manifest that can be read, so that their own mistakes are told as well."""
    try:
        parts = _parts.decode(data).rules
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    for index, part in enumerate(parts):
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            yield index, _rule.decode(part)


def _no_manifest(data: bytes, error: Exception) -> ManifestError:
    try:
        json.loads(data)
    except json.JSONDecodeError as said:
        return ManifestError("", f"not JSON: {said.msg} at column {said.colno}", said.lineno)
    except (ValueError, RecursionError):
        pass
    return ManifestError("", f'{error}; expected a JSON object {{"rules": [...]}}')


_RULES = re.compile(r'"rules"\s*:\s*\[')


def rule_lines(data: bytes) -> dict[int, int]:
    """Index of a rule → the line, from 1, in which it begins. For messages only: what it cannot tell is left out."""
    text = data.decode("utf-8", "replace")
    start = _RULES.search(text)
    lines: dict[int, int] = {}
    decoder = json.JSONDecoder()
    position = start.end() if start else len(text)
    line, counted = 1, 0
    while True:
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        line, counted = line + text.count("\n", counted, position), position
        try:
            _, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            return lines
        lines[len(lines)] = line
