"""Go module proxies: MODULE/@v/VERSION.zip, and what the go command asks before it (GOPROXY protocol)."""

from __future__ import annotations

import re

from waypost.artifacts.tree import OTHER, File, TreeRow, kind_of

# What is asked of one version of a module. A branch or a commit may stand in its place: what that is, changes.
_OF_VERSION = re.compile(r"(?P<module>.+)/@v/(?P<version>v[^/]+)\.(?P<what>zip|mod|info)")
_INDEX = re.compile(r".+/@(?:v/list|latest)")
# Capital letters are written so that they survive on file systems that do not tell them apart.
_CAPITAL = re.compile(r"!([a-z])")


class GoRow(TreeRow, frozen=True, array_like=True, tag="go"):
    pass


def read(path: str) -> File:
    """`github.com/!acme/skates/@v/v1.2.0.zip` → github.com/Acme/skates v1.2.0."""
    # The checksum database that a proxy may offer has the names of modules in its paths, too.
    if path.startswith("sumdb/"):
        return OTHER
    match = _OF_VERSION.fullmatch(path)
    if match is None:
        return File("index-fetch") if _INDEX.fullmatch(path) else OTHER
    if match["what"] != "zip":
        return File("", same=True)
    return File("binary-download", _unescaped(match["module"]), _unescaped(match["version"]), same=True)


def _unescaped(text: str) -> str:
    return _CAPITAL.sub(lambda match: match[1].upper(), text)


KIND = kind_of("go", GoRow, read, "https://proxy.acme.example")
