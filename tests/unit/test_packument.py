"""Packuments: what is changed in them, and what is not."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.artifacts import packument
from waypost.artifacts.packument import PackumentError

SOURCE = "https://registry.example/npm/skates"
LINK = "https://npm.acme.example/skates/-/"


def kept(body: bytes, name: str = "skates", source: str = SOURCE) -> bytes:
    return packument.kept(body, name, source, LINK)


def document(**versions: Any) -> bytes:
    return json.dumps({"name": "skates", "versions": versions}).encode()


def located(tarball: str, source: str = SOURCE) -> str | None:
    return packument.location(kept(document(**{"1.0.0": {"dist": {"tarball": tarball}}}), source=source), "1.0.0")


# What may hang anywhere in a document, with whatever a JSON text may spell in its own way.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["tarball", "dist", '"tarball":"x"', "versions", "\\", '\\"', "\n\n", "https://registry.example/npm/skates/-/x.tgz"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
DIST = st.dictionaries(TEXT, VALUES, max_size=3) | st.fixed_dictionaries(
    {"tarball": TEXT | st.just("https://registry.example/npm/skates/-/skates-1.0.0.tgz")},
    optional={"shasum": TEXT, "integrity": TEXT, "signatures": VALUES},
)
VERSION = VALUES | st.fixed_dictionaries({"dist": DIST | VALUES}, optional={"version": TEXT, "dependencies": VALUES})
DOCUMENTS = st.fixed_dictionaries(
    {"name": st.just("skates")},
    optional={"versions": st.dictionaries(TEXT, VERSION, max_size=4), "readme": TEXT, "time": VALUES, "dist": DIST},
)


def expected(whole: dict[str, Any]) -> dict[str, Any]:
    """The same, by taking all of it apart."""
    for version, fields in whole.get("versions", {}).items():
        dist = fields.get("dist") if isinstance(fields, dict) else None
        if isinstance(dist, dict) and isinstance(dist.get("tarball"), str):
            dist["tarball"] = f"{LINK}skates-{quote(version, safe='+')}.tgz"
    return whole


@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_the_links_are_ours_and_the_rest_is_as_it_was(whole: dict[str, Any], escaped: bool, indent: Any) -> None:
    body = json.dumps(whole, ensure_ascii=escaped, indent=indent).encode()
    assert json.loads(packument.packument(kept(body))) == expected(json.loads(body))


@given(st.text(max_size=20))
def test_a_key_may_be_spelled_with_escapes(text: str) -> None:
    def spelled(key: str) -> str:
        return '"' + "".join(f"\\u{ord(letter):04x}" for letter in key) + '"'

    tarball = json.dumps("https://registry.example/x.tgz")
    version = f'{{{spelled("dist")}: {{{spelled("tarball")}: {tarball}}}, "readme": {json.dumps(text)}}}'
    body = f'{{"name": {spelled("skates")}, {spelled("versions")}: {{{spelled("1.0.0")}: {version}}}}}'.encode()
    assert json.loads(packument.packument(kept(body))) == expected(json.loads(body))
    assert packument.location(kept(body), "1.0.0") == "https://registry.example/x.tgz"


def test_what_hangs_on_a_version_is_copied_as_it_is_written() -> None:
    piece = b'{ "integrity" : "sha512-\\u0041==", "size":1e2,"big":123456789012345678901234567890 }'
    body = b'{"name":"skates","versions":{"1.0.0":{"x":%s,"dist":{"tarball":"https://r.example/x","y":%s}}}}'
    written = packument.packument(kept(body % (piece, piece)))
    assert written.count(piece) == 2


@pytest.mark.parametrize(
    ("tarball", "location"),
    [
        ("https://registry.example/npm/skates/-/skates-1.0.0.tgz",) * 2,
        ("https://files.example/a%2Fb/skates-1.0.0.tgz?sig=a+b",) * 2,
        # A registry that does not know that it is behind TLS.
        ("http://registry.example/skates-1.0.0.tgz", "https://registry.example/skates-1.0.0.tgz"),
        ("https://registry.example/a/../b/skates.tgz",) * 2,
        ("http://files.example/skates-1.0.0.tgz", None),
        ("http://registry.example:81/skates-1.0.0.tgz", None),
        ("https://user:password@files.example/x.tgz", None),
        ("file:///etc/passwd", None),
        ("javascript:alert(1)", None),
        ("https://files.example/a b.tgz", None),
        ("https://files.example/a\nhttps://evil.example/b.tgz", None),
        ("https://registry.example/é.tgz", None),
        ("https://[", None),
        ("", None),
    ],
)
def test_where_a_tarball_is(tarball: str, location: str | None) -> None:
    assert located(tarball) == location


def test_a_registry_on_http_may_keep_its_tarballs_there() -> None:
    source = "http://127.0.0.1:4873/skates"
    assert located("http://127.0.0.1:4873/skates/-/x.tgz", source) == "http://127.0.0.1:4873/skates/-/x.tgz"


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), st.integers(), max_size=5))
def test_each_version_has_its_own_tarball(versions: dict[str, int]) -> None:
    body = document(**{version: {"dist": {"tarball": f"https://r.example/{n}"}} for version, n in versions.items()})
    for version, number in versions.items():
        assert packument.location(kept(body), version) == f"https://r.example/{number}"
        if version:
            assert packument.version_in("skates", packument.file_of("skates", version)) == version
    assert packument.location(kept(body), "no such version") is None
    assert packument.location(kept(body), "\ud800") is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!DOCTYPE html><title>Down for maintenance</title>",
        b"[]",
        b"null",
        b"{}",
        b'{"error": "not_found"}',
        b'{"name": "boots", "versions": {}}',
        b'{"name": ["skates"]}',
        b'{"name": "skates", "versions": []}',
        b'{"name": "skates", "versions": {"1.0.0": {"dist": {"tarball": "https://r.exa',
        b'{"name": "skates", "versions": {"1.0.0": {"dist": {"tarball": "\xff"}}}}',
        b'{"name": "skates"} and more',
        b'{"name": "skates", "x": ' + b"[" * 100_000,
        b"\x1f\x8b\x08\x00",
    ],
)
def test_what_is_no_packument_is_refused(body: bytes) -> None:
    with pytest.raises(PackumentError):
        kept(body)


def test_one_without_versions_is_given_out_as_it_is() -> None:
    """A package that was withdrawn."""
    body = b'{"name": "skates", "time": {"unpublished": {}}}'
    assert packument.packument(kept(body)) == body
    assert packument.location(kept(body), "1.0.0") is None
    assert packument.version_document(kept(body), "1.0.0") is None
    assert packument.dist_tags(kept(body)) == b"{}"


def test_parts_of_it() -> None:
    one = {"name": "skates", "version": "1.0.0", "dist": {"tarball": "https://r.example/x.tgz"}}
    body = json.dumps({"name": "skates", "dist-tags": {"latest": "1.0.0", "old": "0.1"}, "versions": {"1.0.0": one}})
    whole = kept(body.encode())
    ours = expected(json.loads(body))["versions"]["1.0.0"]
    assert json.loads(packument.dist_tags(whole)) == {"latest": "1.0.0", "old": "0.1"}
    for wanted in ("1.0.0", "latest"):
        found = packument.version_document(whole, wanted)
        assert found is not None
        assert json.loads(found) == ours
    assert packument.version_document(whole, "old") is None
    assert packument.version_document(whole, "\ud800") is None


@pytest.mark.parametrize(
    ("name", "file", "version"),
    [
        ("skates", "skates-1.0.0.tgz", "1.0.0"),
        ("@acme/skates", "skates-1.0.0-rc.1.tgz", "1.0.0-rc.1"),
        ("skates", "skates-1.0.0%2Bbuild.tgz", "1.0.0+build"),
        ("skates", "skates-1.0.0.tar.gz", None),
        ("skates", "skates-.tgz", None),
        ("skates", "skates.tgz", None),
        ("skates", "boots-1.0.0.tgz", None),
        ("@acme/skates", "@acme/skates-1.0.0.tgz", None),
    ],
)
def test_the_version_in_a_file_name(name: str, file: str, version: str | None) -> None:
    assert packument.version_in(name, file) == version
