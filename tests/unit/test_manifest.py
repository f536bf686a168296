from __future__ import annotations

import json

import pytest

from waypost.routing.manifest import CatchAllV1, DockerV1, FileV1, PythonV1, parse


def manifest(*rules):
    return json.dumps({"rules": rules}).encode()


FILE = {"type": "file-v1", "package-id": "1", "domain": "get.acme.example", "incoming-path": "/x", "outgoing-url": None}


def test_rules_are_read_with_their_own_field_names():
    rules = parse(
        manifest(
            FILE | {"owner": "acme", "package-name": "skates"},
            {"type": "docker-v1", "package-id": "2", "domain": "d.example", "repository-name": "a/b", "registry": "ghcr.io", "always-proxy": True},
            {"type": "catch-all-v1", "package-id": "3", "domain": "c.example"},
            {
                "type": "python-v1", "package-id": "4", "domain": "p.example", "package-name": "aca", "file-name": "aca-1.tar.gz",
                "version": "1", "backend-url": "https://files.example/aca-1.tar.gz", "hash-value": {"type": "sha256", "hash": "00"},
            },
        )
    )  # fmt: skip
    assert [type(rule) for rule in rules] == [FileV1, DockerV1, CatchAllV1, PythonV1]
    assert (rules[0].owner, rules[0].package_name, rules[0].outgoing_url) == ("acme", "skates", None)
    assert rules[3].hash_value.hash == "00"


def test_unknown_fields_are_ignored():
    assert parse(manifest(FILE | {"colour": "red"}))[0].incoming_path == "/x"
    assert parse(b'{"rules": [], "version": 3}') == []


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (manifest(FILE | {"type": "file-v9"}), ["rules[0].type: Invalid value 'file-v9'"]),
        (manifest({"domain": "x"}), ["rules[0]: Object missing required field `type`"]),
        (manifest(FILE, FILE | {"domain": 3}, {"type": "docker-v2", "domain": "d"}), ["rules[1].domain: Expected `str`, got `int`", "rules[2]: Object missing required field `pattern`"]),
        (b"[]", ["Expected `object`, got `array`"]),
        (b"\xff", ["JSON is malformed"]),
        (b'{"rules":\n [1,]}', ["not JSON: Expecting value at column 5"]),
    ],
)  # fmt: skip
def test_everything_that_is_wrong_is_named(data, messages):
    with pytest.raises(ExceptionGroup) as caught:
        parse(data)
    found = [str(error) for error in caught.value.exceptions]
    assert len(found) == len(messages)
    for error, beginning in zip(found, messages, strict=True):
        assert error.startswith(beginning)
