"""Scarf Gateway manifests → rows. Which rule becomes which row is a table at the end."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from waypost.artifacts import catch_all, file, file_regex
from waypost.artifacts.container import ContainerRow, PatternRow
from waypost.artifacts.python import PythonFileRow
from waypost.artifacts.reference import ImageNameError, is_name, parse_registry, qualify
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
    readable,
    rule_lines,
)
from waypost.routing.outgoing import Outgoing
from waypost.routing.pattern import Pattern, PatternError
from waypost.routing.template import names_of
from waypost.settings import HOST


class Imported(Struct, frozen=True):
    """A rule's row and the host that it is for."""

    host: str
    row: Struct


def read_manifest(path: Path) -> Iterator[Imported]:
    """Rows in the order of the file. Raises OSError, or ExceptionGroup of ManifestError with all that is wrong."""
    errors: list[ManifestError] = []
    rows: list[Imported] = []
    lines: dict[int, int] = {}
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)  # RFC 8259 section 8.1: may be ignored
    rules: Iterable[tuple[int, Rule]]
    try:
        rules = enumerate(parse(data))
    except ExceptionGroup as group:
        errors.extend(error for error in group.exceptions if isinstance(error, ManifestError))
        rules = readable(data)
    for index, rule in rules:
        try:
            rows.append(Imported(_host(rule.domain), _ROWS[type(rule)](rule)))
        except (TemplateError, file_regex.RegexError, ImageNameError, PatternError, _RuleError) as error:
            lines = lines or rule_lines(data)
            where = f"rules[{index}]" + (f".{error.field}" if isinstance(error, _RuleError) else "")
            errors.append(ManifestError(where, str(error), lines.get(index, 0)))
    if errors:
        raise ExceptionGroup(str(path), errors)
    yield from rows


class _RuleError(Exception):
    """A value that none of our own parsers looks at."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@lru_cache(maxsize=1024)  # rules of one host mostly stand together
def _host(domain: str) -> str:
    """Manifests may write a host in any case, and with the dot of the DNS root."""
    host = domain.lower().rstrip(".")
    if not HOST.match(host):
        raise _RuleError("domain", f"{domain!r} is no host name")
    return host


def _name(rule: Any) -> str:
    return str(rule.package_name or rule.package_id)


def _docker_v1(rule: DockerV1) -> Struct:
    if not is_name(rule.repository_name):
        raise ImageNameError(f"{rule.repository_name!r} is not an image name.")
    image = qualify(parse_registry(rule.registry), rule.repository_name)
    return ContainerRow(rule.repository_name, image.registry, image.repository, _name(rule), rule.owner or None)


def _docker_v2(rule: DockerV2) -> Struct:
    Pattern.parse(rule.pattern)
    return PatternRow(rule.pattern, parse_registry(rule.registry), rule.owner or None)


def _file_v1(rule: FileV1) -> Struct:
    names = names_of(rule.incoming_path)
    if rule.outgoing_url is not None:
        Outgoing.parse(rule.outgoing_url, names)
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
        raise _RuleError("backend-url", f"{rule.backend_url!r} is no http(s) URL")
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
    if not rule.incoming_path.startswith("/"):
        raise _RuleError("incoming-path", f"{rule.incoming_path!r} does not begin with '/'")
    return TelemetryRow(rule.incoming_path, _name(rule), rule.owner or None, rule.access_tokens)


def _catch_all_v1(rule: CatchAllV1) -> Struct:
    if rule.redirect_target_domain is not None:
        catch_all.outgoing(rule.redirect_target_domain)
    return catch_all.CatchAllRow(rule.redirect_target_domain, _name(rule), rule.owner or None)


def target_of(row: Struct) -> str | None:
    """The URL, or template of one, that clients are sent to; None if they are sent nowhere, or to https alone."""
    if isinstance(row, file.FileRoute):
        return None if row.proxy else row.to
    if isinstance(row, file_regex.FileRegexRow):
        return row.to
    return row.url if isinstance(row, PythonFileRow) else None


_ROWS: dict[type[Rule], Callable[[Any], Struct]] = {
    DockerV1: _docker_v1,
    DockerV2: _docker_v2,
    FileV1: _file_v1,
    FileV2: _file_v2,
    PythonV1: _python_v1,
    TelemetryV1: _telemetry_v1,
    CatchAllV1: _catch_all_v1,
}
