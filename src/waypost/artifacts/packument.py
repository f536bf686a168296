"""Packuments: what a registry knows of one npm package, all versions in one JSON document.

Read and changed by its pieces: only objects on the way to `versions.*.dist.tarball` are taken apart, and whatever hangs
on them is copied as it is written, integrity hashes and signatures among it. No call into C handles more than the
outermost object at once, so that other threads get their turn in between.

https://github.com/npm/registry/blob/main/docs/responses/package-metadata.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote, urlsplit

import msgspec
from msgspec import Raw

from waypost.artifacts.target import followed

FULL = "application/json"
ABBREVIATED = "application/vnd.npm.install-v1+json"

# Names, old ones with capitals among them. https://docs.npmjs.com/cli/configuring-npm/package-json#name
NAME = re.compile(r"(?=.{1,214}\Z)(?:@[A-Za-z0-9~][A-Za-z0-9._~-]*/)?[A-Za-z0-9~][A-Za-z0-9._~-]*\Z")

# How long the line is that says where the packument begins.
_BEGIN = 13

_Pieces = dict[str, Raw]
_pieces = msgspec.json.Decoder(_Pieces)
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


_PLAIN = re.compile(r"[A-Za-z0-9@/_~+-]+(?:\.[A-Za-z0-9@_~+-][A-Za-z0-9@/_~+-]*)*")


class PackumentError(Exception):
    """What an upstream sent is no packument of this package. Its fault."""


def file_of(name: str, version: str) -> str:
    """The tarball's file name, as it stands in a URL. A registry may call it otherwise; what we give out is this."""
    return f"{name.rpartition('/')[2]}-{quote(version, safe='+')}.tgz"


def version_in(name: str, file: str) -> str | None:
    """The version that a file name of this package names, decoded; None if it is no tarball of it."""
    short = name.rpartition("/")[2]
    if not file.startswith(f"{short}-") or not file.endswith(".tgz"):
        return None
    return unquote(file[len(short) + 1 : -len(".tgz")]) or None


def kept(body: bytes, name: str, source: str, link: str) -> bytes:
    """A packument as it is kept: where its tarballs are, a line each; and itself, with links to us. Before both stands
    a line of its own, which says where the packument begins.

    `source`: the URL that it came from; `link`: what a tarball's file name is appended to. Raises PackumentError.
    """
    try:
        document = _pieces.decode(body)
        if _as_text(document.get("name")) != name:
            raise PackumentError(f"it is not about {name}")
        if "versions" not in document:
            return _together([], [body])
        lines = []
        versions = _pieces.decode(document["versions"])
        short = name.rpartition("/")[2]
        own = f"{source[: source.index('/', 8)]}/"
        for version, fields, dist, tarball in _dists(versions):
            # Most are where the packument is, and plain: they need not be taken apart, which is slow.
            plain = tarball.startswith(own) and _PLAIN.fullmatch(tarball, len(own))
            location = tarball if plain else _location(source, tarball)
            spelled = quote(version, safe="+")
            if location is not None:
                lines.append(f"{spelled} {location}\n")
            dist["tarball"] = Raw(_encode(f"{link}{short}-{spelled}.tgz"))
            fields["dist"] = Raw(_encode(dist))
            versions[version] = Raw(_encode(fields))
        return _together(lines, _written(document, {"versions": _written(versions)}))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise PackumentError(f"it cannot be read: {error}") from None


def _written(fields: _Pieces, apart: Mapping[str, list[bytes]] | None = None) -> list[bytes]:
    """An object, in pieces that are copied but once, when they are put together. `apart`: fields that are in pieces."""
    found: list[bytes] = []
    for key, piece in fields.items():
        found += (b"," if found else b"{", _encode(key), b":")
        if apart and key in apart:
            found += apart[key]
        else:
            found.append(piece)
    return [*found, b"}"] if found else [b"{}"]


def _together(lines: list[str], document: list[bytes]) -> bytes:
    text = "".join(lines).encode("ascii")
    return b"".join((b"%012d\n" % (_BEGIN + len(text)), text, *document))


def _dists(versions: _Pieces) -> Iterator[tuple[str, _Pieces, _Pieces, str]]:
    """(version, its fields, its dist, the tarball's URL) of each version that has all of that."""
    for version, piece in versions.items():
        fields = _object(piece)
        dist = _object(fields.get("dist"))
        tarball = _as_text(dist.get("tarball"))
        if tarball is not None:
            yield version, fields, dist, tarball


def _object(piece: Raw | None) -> _Pieces:
    return _pieces.decode(piece) if piece is not None and bytes(memoryview(piece)[:1]) == b"{" else {}


def _as_text(piece: Raw | None) -> str | None:
    return _text.decode(piece) if piece is not None and bytes(memoryview(piece)[:1]) == b'"' else None


def _location(source: str, tarball: str) -> str | None:
    """Where a tarball really is; None if that is nothing that a client may be sent to.

    Registries behind a proxy that ends TLS call themselves http. They are taken at the scheme that we know them by.
    """
    root = f"{urlsplit(source).netloc}/"
    if source.startswith("https:") and tarball.startswith(f"http://{root}"):
        tarball = f"https{tarball[4:]}"
    return followed(source, tarball)


def packument(kept: bytes) -> bytes:
    """The document itself."""
    return kept[int(kept[:_BEGIN]) :]


def location(kept: bytes, version: str) -> str | None:
    """Where the tarball of a version is, as its registry says; None if it names none."""
    needle = f"\n{quote(version, safe='+', errors='surrogatepass')} ".encode("ascii")
    start = kept.find(needle, 0, int(kept[:_BEGIN]))
    if start < 0:
        return None
    start += len(needle)
    return kept[start : kept.index(b"\n", start)].decode("ascii")


def dist_tags(kept: bytes) -> bytes:
    """{tag: version}"""
    return bytes(_pieces.decode(packument(kept)).get("dist-tags", Raw(b"{}")))


def version_document(kept: bytes, wanted: str) -> bytes | None:
    """What is known of one version, or of what a tag names; None if there is no such."""
    document = _pieces.decode(packument(kept))
    versions = _object(document.get("versions"))
    if wanted not in versions:
        wanted = _as_text(_object(document.get("dist-tags")).get(wanted)) or wanted
    found = versions.get(wanted)
    return None if found is None else bytes(found)
