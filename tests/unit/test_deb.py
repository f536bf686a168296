"""What the paths of a Debian repository name."""

from __future__ import annotations

import pytest

from waypost.artifacts.deb import read
from waypost.artifacts.tree import OTHER, File


def package(name: str | None, version: str | None = None, arch: str | None = None) -> File:
    return File("binary-download", name, version, arch, True)


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("pool/main/s/skates/skates_1.2-3_amd64.deb", package("skates", "1.2-3", "amd64")),
        ("pool/s/skates_1%3a1.2-3~bpo12+1_arm64.deb", package("skates", "1:1.2-3~bpo12+1", "arm64")),
        ("pool/s/skates_1%3A1.2_all.deb", package("skates", "1:1.2", "all")),
        ("pool/s/skates_1:1.2_all.deb", package("skates", "1:1.2", "all")),
        ("pool/s/libstdc++6_12.2.0-14+deb12u1_musl-linux-armhf.deb", package("libstdc++6", "12.2.0-14+deb12u1", "musl-linux-armhf")),
        ("pool/s/g++-12_12.2.0_i386.udeb", package("g++-12", "12.2.0", "i386")),
        ("pool/s/skates-dbgsym_1.2_amd64.ddeb", package("skates-dbgsym", "1.2", "amd64")),
        ("skates_1.2_amd64.deb", package("skates", "1.2", "amd64")),
        ("any/where/Skates_2024.1_rc1_amd64.deb", package("Skates", "2024.1_rc1", "amd64")),
        ("pool/s/skates_amd64.deb", package("skates", None, "amd64")),
        ("pool/s/skates.deb", package("skates")),
        ("pool/s/skates_1.2.deb", package("skates", "1.2")),
        ("pool/s/skates_12.deb", package("skates", "12")),
        ("pool/s/_1.2_amd64.deb", package(None)),
        ("pool/s/sk tes_1.2_amd64.deb", package(None)),
        ("pool/s/skates_1\n2_amd64.deb", package(None)),
        (".deb", package(None)),
        ("dists/stable/InRelease", File("index-fetch")),
        ("dists/stable/Release", File("index-fetch")),
        ("InRelease", File("index-fetch")),
        ("dists/stable/Release.gpg", OTHER),
        ("dists/stable/main/binary-amd64/Packages.xz", OTHER),
        ("dists/stable/main/binary-amd64/by-hash/SHA256/0f0f", File("", same=True)),
        ("pool/main/s/skates/skates_1.2.orig.tar.xz", File("", same=True)),
        ("pool/main/s/skates/skates_1.2-3.dsc", File("", same=True)),
        ("key.asc", OTHER),
        ("archive-keyring.gpg", OTHER),
        ("pool/s/skates_1.2_amd64.deb/", File("", same=True)),
        ("skates_1.2_amd64.deb.asc", OTHER),
        ("by-hash", OTHER),
        ("", OTHER),
    ],
)  # fmt: skip
def test_a_path_names_a_file(path: str, file: File) -> None:
    assert read(path) == file


def test_long_names_take_no_long_time() -> None:
    for path in ("_1" * 4000 + ".deb", "a" * 8000 + "_.deb", "a_" * 4000, "a_1" + "_a" * 4000 + "!.deb"):
        assert read(path).version is None
