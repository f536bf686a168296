"""Which rule of a manifest becomes which row."""

from __future__ import annotations

import json

import pytest

from waypost.artifacts.catch_all import CatchAllRow
from waypost.artifacts.container import ContainerRow, PatternRow
from waypost.artifacts.file import FileRoute
from waypost.artifacts.file_regex import FileRegexRow
from waypost.artifacts.python import PythonFileRow
from waypost.artifacts.telemetry import TelemetryRow
from waypost.catalog.imported import read_manifest
from waypost.routing.manifest import rule_lines

COMMON = {"package-id": "id", "domain": "d.example"}


def read(folder, *rules):
    path = folder / "manifest.json"
    path.write_text(json.dumps({"rules": [COMMON | rule for rule in rules]}))
    return list(read_manifest(path))


@pytest.mark.parametrize(
    ("rule", "row"),
    [
        (
            {"type": "docker-v1", "repository-name": "acme/x", "registry": "ghcr.io", "owner": "acme", "package-name": "x"},
            ContainerRow("acme/x", "ghcr.io", "acme/x", "x", "acme"),
        ),
        (
            {"type": "docker-v1", "repository-name": "x", "registry": "registry.hub.docker.com", "always-proxy": True},
            ContainerRow("x", "registry-1.docker.io", "library/x", "id"),
        ),
        (
            {"type": "docker-v2", "rule-id": "r", "pattern": "acme/{a,b*}", "registry": "registry.hub.docker.com"},
            PatternRow("acme/{a,b*}", "registry-1.docker.io"),
        ),
        (
            {"type": "file-v1", "incoming-path": "/{v}", "outgoing-url": "https://t.example/{v}"},
            FileRoute("/{v}", "https://t.example/{v}", "id"),
        ),
        ({"type": "file-v1", "incoming-path": "/x", "outgoing-url": None}, FileRoute("/x", None, "id")),
        ({"type": "file-v2", "incoming-path": "x(?<n>.)", "outgoing-url": None}, FileRegexRow("x(?<n>.)", None, "id")),
        (
            {
                "type": "python-v1", "package-name": "X", "file-name": "x.whl", "version": "1", "backend-url": "https://t.example/x.whl",
                "hash-value": {"type": "sha256", "hash": "ab"}, "gpg-sig": False, "requires-python": ">=3",
            },
            PythonFileRow("X", "x.whl", "1", "https://t.example/x.whl", "X", None, "sha256=ab", False, ">=3"),
        ),
        ({"type": "telemetry-v1", "incoming-path": "/t"}, TelemetryRow("/t", "id")),
        ({"type": "telemetry-v1", "incoming-path": "/t", "access-tokens": []}, TelemetryRow("/t", "id", None, [])),
        ({"type": "catch-all-v1", "redirect-target-domain": "t.example"}, CatchAllRow("t.example", "id")),
        ({"type": "catch-all-v1"}, CatchAllRow(None, "id")),
    ],
)  # fmt: skip
def test_each_type_of_rule_has_its_row(tmp_path, rule, row):
    (one,) = read(tmp_path, rule)
    assert (one.host, one.row) == ("d.example", row)


def test_hosts_know_no_case_and_no_last_dot(tmp_path):
    (one,) = read(tmp_path, {"type": "catch-all-v1", "domain": "D.Example."})
    assert one.host == "d.example"


def test_nothing_of_a_manifest_is_taken_if_something_is_wrong(tmp_path):
    rules = [
        {"type": "catch-all-v1"},
        {"type": "catch-all-v1", "domain": "not a host"},
        {"type": "catch-all-v1", "domain": ""},
        {"type": "telemetry-v1", "incoming-path": "t"},
        {"type": "catch-all-v1", "redirect-target-domain": "a/b"},
    ]
    with pytest.raises(ExceptionGroup) as caught:
        read(tmp_path, *rules)
    assert [str(error) for error in caught.value.exceptions] == [
        "rules[1].domain: 'not a host' is no host name",
        "rules[2].domain: '' is no host name",
        "rules[3].incoming-path: 't' does not begin with '/'",
        "rules[4]: 'a/b' is no host; a target has neither scheme nor path. (character 1 of 'a/b')",
    ]


def test_mistakes_of_every_sort_are_told_at_once(tmp_path):
    rules = [{"type": "catch-all-v1", "redirect-target-domain": "a/b"}, {"type": "x"}, {"type": "telemetry-v1"}]
    with pytest.raises(ExceptionGroup) as caught:
        read(tmp_path, *rules)
    types = "docker-v1, docker-v2, file-v1, file-v2, python-v1, telemetry-v1, catch-all-v1"
    assert sorted(map(str, caught.value.exceptions)) == [
        "rules[0]: 'a/b' is no host; a target has neither scheme nor path. (character 1 of 'a/b')",
        f"rules[1].type: Invalid value 'x'; expected one of {types}",
        "rules[2]: Object missing required field `incoming-path`",
    ]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read_manifest(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('{"rules": [{}, {},\n{"a": "[\\n"}\n\n, {}]}', {0: 1, 1: 1, 2: 2, 3: 4}),
        ('{"other": 1,\n "rules"\n : [\n {\n }, 5', {0: 4, 1: 5}),
        ('{"rules": []}', {}),
        ("", {}),
        ("\xff\x00", {}),
    ],
)
def test_the_line_in_which_a_rule_begins(text, lines):
    assert rule_lines(text.encode()) == lines
