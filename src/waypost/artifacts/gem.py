"""Gem repositories: gems/NAME-VERSION[-PLATFORM].gem, and the indexes that name them (RubyGems compact index API)."""

from __future__ import annotations

import re

from waypost.artifacts.tree import OTHER, File, TreeRow, kind_of

# A version begins with a digit and a platform with a letter, so "net-http-2-1.0-x86_64-linux" can be told apart.
_GEM = re.compile(
    r"gems/(?P<name>[A-Za-z0-9._-]+?)-(?P<version>[0-9]+(?:\.[0-9A-Za-z]+)*)(?:-(?P<platform>[A-Za-z][A-Za-z0-9_-]*))?\.gem"
)
# The compact index, then what older clients read instead.
_INDEX = re.compile(r"names|info/[^/]+|(?:latest_|prerelease_)?specs\.4\.8(?:\.gz)?")
# gem asks for one of these first, depending on its version. If it is redirected there, it goes on where that led, and
# nothing of what it installs would pass by here.
_BEGINNINGS = {"": File("", through=True), "versions": File("index-fetch", through=True)}
# What is in a gem, for those who only want to know that.
_SPECIFICATION = re.compile(r"quick/Marshal\.4\.8/[^/]+\.gemspec\.rz")


class GemRow(TreeRow, frozen=True, array_like=True, tag="gem"):
    pass


def read(path: str) -> File:
    """`gems/rocket-skates-1.2.0-x86_64-linux.gem` → rocket-skates 1.2.0 for x86_64-linux."""
    gem = _GEM.fullmatch(path)
    if gem is not None:
        return File("binary-download", gem["name"], gem["version"], gem["platform"], same=True)
    if _SPECIFICATION.fullmatch(path):
        return File("", same=True)
    return File("index-fetch") if _INDEX.fullmatch(path) else _BEGINNINGS.get(path, OTHER)


KIND = kind_of("gem", GemRow, read, "https://gems.acme.example")
