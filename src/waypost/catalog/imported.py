"""Scarf Gateway manifests → rows. Which rule becomes which row is a table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from waypost.artifacts import catch_all, file, file_regex
from waypost.artifacts.container import ContainerRow, PatternRow
from waypost.artifacts.python import PythonFileRow
from waypost.artifacts.reference import ImageNameError, parse_registry, qualify
from waypost.artifacts.telemetry import TelemetryRow
from waypost.routing.expression import TemplateError
from waypost.routing.manifest import (
    CatchAllV1,
    DockerV1,
    DockerV2,
    FileV1,
    FileV2,
    ManifestError,
    PythonV1,
    Rule,
    TelemetryV1,
    parse,
    rule_lines,
)
from waypost.routing.outgoing import Outgoing
from waypost.routing.pattern import Pattern, PatternError
from waypost.routing.template import Template


class Imported(Struct, frozen=True):
    """A rule's row and the host that it is for."""

    host: str
    row: Struct


def read_manifest(path: Path) -> Iterator[Imported]:
    """Rows in the order of the file. Raises OSError, or ExceptionGroup of ManifestError with all that is wrong."""
    errors: list[ManifestError] = []
    rows: list[Imported] = []
    lines: dict[int, int] = {}
    data = path.read_bytes()
    for index, rule in enumerate(parse(data)):
        try:
            rows.append(Imported(rule.domain.lower().rstrip("."), _ROWS[type(rule)](rule)))
        except (TemplateError, file_regex.RegexError, ImageNameError, PatternError, _RuleError) as error:
            lines = lines or rule_lines(data)
            errors.append(ManifestError(f"rules[{index}]", str(error), lines.get(index, 0)))
    if errors:
        raise ExceptionGroup(str(path), errors)
    yield from rows


class _RuleError(Exception):
    """A value that none of our own parsers looks at."""


def _name(rule: Any) -> str:
    return str(rule.package_name or rule.package_id)


def _docker_v1(rule: DockerV1) -> Struct:
    image = qualify(parse_registry(rule.registry), rule.repository_name)
    return ContainerRow(rule.repository_name, image.registry, image.repository, _name(rule), rule.owner or None)


def _docker_v2(rule: DockerV2) -> Struct:
    Pattern.parse(rule.pattern)
    return PatternRow(rule.pattern, parse_registry(rule.registry), rule.owner or None)


def _file_v1(rule: FileV1) -> Struct:
    template = Template.parse(rule.incoming_path)
    if rule.outgoing_url is not None:
        Outgoing.parse(rule.outgoing_url, template.names)
    return file.FileRoute(rule.incoming_path, rule.outgoing_url, _name(rule), rule.owner or None)


def _file_v2(rule: FileV2) -> Struct:
    row = file_regex.FileRegexRow(rule.incoming_path, rule.outgoing_url, _name(rule), rule.owner or None)
    file_regex.check(row)
    return row


def _python_v1(rule: PythonV1) -> Struct:
    parts = urlsplit(rule.backend_url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or not rule.backend_url.isascii()
        or " " in rule.backend_url
    ):
        raise _RuleError(f"backend-url {rule.backend_url!r} is no http(s) URL")
    return PythonFileRow(
        rule.package_name,
        rule.file_name,
        rule.version,
        rule.backend_url,
        rule.package_name or rule.package_id,
        rule.owner or None,
        f"{rule.hash_value.type}={rule.hash_value.hash}" if rule.hash_value else None,
        rule.gpg_sig,
        rule.requires_python,
    )


def _telemetry_v1(rule: TelemetryV1) -> Struct:
    return TelemetryRow(rule.incoming_path, _name(rule), rule.owner or None, rule.access_tokens)


def _catch_all_v1(rule: CatchAllV1) -> Struct:
    if rule.redirect_target_domain is not None:
        catch_all.outgoing(rule.redirect_target_domain)
    return catch_all.CatchAllRow(rule.redirect_target_domain, _name(rule), rule.owner or None)


_ROWS: dict[type[Rule], Callable[[Any], Struct]] = {
    DockerV1: _docker_v1,
    DockerV2: _docker_v2,
    FileV1: _file_v1,
    FileV2: _file_v2,
    PythonV1: _python_v1,
    TelemetryV1: _telemetry_v1,
    CatchAllV1: _catch_all_v1,
}
