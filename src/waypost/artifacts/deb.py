"""Debian repositories: dists/ says what there is, pool/ has it (Debian repository format)."""

from __future__ import annotations

import re

from waypost.artifacts.tree import OTHER, File, TreeRow, kind_of

# NAME_VERSION_ARCH.deb (Debian Policy, 5.6.1, 5.6.8 and 5.6.12), for installers .udeb, with debug symbols .ddeb. An
# epoch is mostly left out; where it is not, its colon may be written %3a. Some vendors leave out more.
_PACKAGED = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9.+-]*)"
    r"(?:_(?P<version>[A-Za-z0-9][A-Za-z0-9.+~:%_-]*?))??(?:_(?P<arch>[a-z][a-z0-9-]*))?\.[ud]?deb\Z"
)
_SUFFIXES = (".deb", ".udeb", ".ddeb")
# An update begins with one of these, and ends with it where nothing is new.
_BEGINNINGS = frozenset(("InRelease", "Release"))


class DebRow(TreeRow, frozen=True, array_like=True, tag="deb"):
    pass


def read(path: str) -> File:
    """`pool/main/s/skates/skates_1%3a1.2-3_amd64.deb` → skates 1:1.2-3 for amd64."""
    *folders, name = path.split("/")
    if name.endswith(_SUFFIXES):
        found = _PACKAGED.match(name)
        if found is None:
            return File("binary-download", same=True)
        version = found["version"] and re.sub("%3a", ":", found["version"], flags=re.IGNORECASE)
        return File("binary-download", found["name"], version, found["arch"], same=True)
    # Sources in the pool have their version in their name, and by-hash is named after its content.
    if "by-hash" in folders or folders[:1] == ["pool"]:
        return File("", same=True)
    return File("index-fetch") if name in _BEGINNINGS else OTHER


KIND = kind_of("deb", DebRow, read, "https://deb.acme.example/debian")
