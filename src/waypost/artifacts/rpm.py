"""RPM repositories: repodata/repomd.xml names the indexes, these name the packages."""

from __future__ import annotations

import re

from waypost.artifacts.tree import OTHER, File, TreeRow, kind_of

# NAME-VERSION-RELEASE.ARCH.rpm; neither version nor release holds a hyphen.
_PACKAGED = re.compile(
    r"(?P<name>[A-Za-z0-9_][A-Za-z0-9._+-]*)-(?P<version>[A-Za-z0-9._+~^]+-[A-Za-z0-9._+~^]+)"
    r"\.(?P<arch>[A-Za-z0-9_]+)\.rpm\Z"
)
# What leads from one version to the next: NAME-OLDVERSION-OLDRELEASE_VERSION-RELEASE.ARCH.drpm.
_DELTA = re.compile(
    r"(?P<name>[A-Za-z0-9_][A-Za-z0-9._+-]*)-[A-Za-z0-9._+~^]+-[A-Za-z0-9._+~^]+"
    r"_(?P<version>[A-Za-z0-9.+~^]+-[A-Za-z0-9._+~^]+)\.(?P<arch>[A-Za-z0-9_]+)\.drpm\Z"
)
# An index that is called after its own checksum.
_HASHED = re.compile(r"(?:.*/)?repodata/[0-9a-f]{32,128}-[^/]+\Z", re.DOTALL)


class RpmRow(TreeRow, frozen=True, array_like=True, tag="rpm"):
    pass


def read(path: str) -> File:
    """`Packages/s/skates-1.2-3.x86_64.rpm` → skates 1.2-3 for x86_64."""
    name = path.rpartition("/")[2]
    if name.endswith((".rpm", ".drpm")):
        found = (_DELTA if name.endswith(".drpm") else _PACKAGED).match(name)
        if found is None:
            return File("binary-download", same=True)
        return File("binary-download", found["name"], found["version"], found["arch"], same=True)
    if _HASHED.match(path):
        return File("", same=True)
    return File("index-fetch") if f"/{path}".endswith("/repodata/repomd.xml") else OTHER


KIND = kind_of("rpm", RpmRow, read, "https://rpm.acme.example/el9")
