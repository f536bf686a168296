"""Maven repositories: GROUP/ARTIFACT/VERSION/FILE, and who needs which of the files (Maven repository layout)."""

from __future__ import annotations

import re

from waypost.artifacts.tree import OTHER, File, TreeRow, kind_of

# What a build uses, as opposed to what describes it (.pom, .module) or vouches for it (.asc, .sha1).
_PACKAGED = re.compile(r"\.(?:jar|aar|war|ear|zip|tar\.gz|tgz|klib|so|exe|hpi|nbm)\Z")
# The classifier of a file that is for one platform, as os-maven-plugin and others write it.
_PLATFORM = re.compile(
    r"-((?:linux|osx|macos|windows|freebsd|android)[-_](?:x86_64|aarch_64|aarch64|x86_32|amd64|arm64|x86|ppcle_64|s390_64|riscv64))"
)


class MavenRow(TreeRow, frozen=True, array_like=True, tag="maven"):
    pass


def read(path: str) -> File:
    """`com/acme/skates/1.2/skates-1.2-linux-x86_64.jar` → com.acme:skates 1.2 for linux-x86_64."""
    *group, artifact, version, name = ["", "", *path.split("/")]
    if name.startswith("maven-metadata.xml") or not name:
        return File("index-fetch") if name == "maven-metadata.xml" else OTHER
    # In a folder of snapshots a file has the moment of its build in the place of the word.
    stem = f"{artifact}-{version.removesuffix('-SNAPSHOT')}"
    if not any(group) or not name.startswith(stem):
        return OTHER
    if not _PACKAGED.search(name):
        # The same for all mirrors, but no download (C3).
        return File("", same=True)
    platform = _PLATFORM.search(name)
    coordinates = f"{'.'.join(part for part in group if part)}:{artifact}"
    return File("binary-download", coordinates, version, platform[1] if platform else None, same=True)


KIND = kind_of("maven", MavenRow, read, "https://repo.acme.example/maven2")
