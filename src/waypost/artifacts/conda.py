"""Conda channels: SUBDIR/NAME-VERSION-BUILD.conda, and the repodata of each subdir (conda: package naming)."""

from __future__ import annotations

import re

from waypost.artifacts.tree import OTHER, File, TreeRow, kind_of

# Neither a version nor a build has a "-" in it; a name may. The subdir is the platform; "noarch" is for all.
_PACKAGED = re.compile(
    r"(?:.*/)?(?P<platform>noarch|[a-z]+-[a-z0-9_]+)/(?P<name>[^/]+)-(?P<version>[^/-]+)-[^/-]+\.(?:conda|tar\.bz2)",
    re.DOTALL,
)
# Whole, in parts (CEP 16), or only what is new; each of them compressed or not.
_INDEX = re.compile(
    r"(?:.*/)?(?:(?:current_)?repodata\.json|repodata_shards\.msgpack|run_exports\.json|channeldata\.json)(?:\.zst|\.bz2|\.gz)?",
    re.DOTALL,
)
# Named after its content.
_SHARD = re.compile(r"(?:.*/)?[0-9a-f]{64}\.msgpack\.zst", re.DOTALL)


class CondaRow(TreeRow, frozen=True, array_like=True, tag="conda"):
    pass


def read(path: str) -> File:
    """`linux-64/rocket-skates-1.2.0-h1a2b3c_0.conda` → rocket-skates 1.2.0 for linux-64."""
    package = _PACKAGED.fullmatch(path)
    if package is not None:
        return File("binary-download", package["name"], package["version"], package["platform"], same=True)
    if _SHARD.fullmatch(path):
        return File("", same=True)
    return File("index-fetch") if _INDEX.fullmatch(path) else OTHER


KIND = kind_of("conda", CondaRow, read, "https://conda.acme.example/channel")
