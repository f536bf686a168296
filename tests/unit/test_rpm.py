"""What the paths of an RPM repository name."""

from __future__ import annotations

import pytest

from waypost.artifacts.rpm import read
from waypost.artifacts.tree import OTHER, File

HASH = "0f" * 32


def package(name: str | None, version: str | None = None, arch: str | None = None) -> File:
    return File("binary-download", name, version, arch, True)


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("Packages/s/skates-1.2-3.x86_64.rpm", package("skates", "1.2-3", "x86_64")),
        ("skates-1.2-3.el9_4.1.noarch.rpm", package("skates", "1.2-3.el9_4.1", "noarch")),
        ("rocket-skates-1.2~rc1^git1-0.3.aarch64.rpm", package("rocket-skates", "1.2~rc1^git1-0.3", "aarch64")),
        ("gcc-c++-12-1.fc40.i686.rpm", package("gcc-c++", "12-1.fc40", "i686")),
        ("Packages/skates-1.2-3.src.rpm", package("skates", "1.2-3", "src")),
        ("drpms/skates-1.1-2_1.2-3.x86_64.drpm", package("skates", "1.2-3", "x86_64")),
        ("drpms/skates-1.1-2.el7_9_1.2-3.el7_9.x86_64.drpm", package("skates", "1.2-3.el7_9", "x86_64")),
        ("skates-latest.rpm", package(None)),
        ("skates-1.2-3.rpm", package(None)),
        ("skates.drpm", package(None)),
        ("ska tes-1.2-3.x86_64.rpm", package(None)),
        (".rpm", package(None)),
        ("repodata/repomd.xml", File("index-fetch")),
        ("9/x86_64/repodata/repomd.xml", File("index-fetch")),
        ("myrepodata/repomd.xml", OTHER),
        ("repodata/repomd.xml.asc", OTHER),
        ("repodata/repomd.xml.key", OTHER),
        (f"repodata/{HASH}-primary.xml.gz", File("", same=True)),
        (f"9/repodata/{HASH}-updateinfo.xml.zck", File("", same=True)),
        ("repodata/primary.xml.gz", OTHER),
        ("media.1/media", OTHER),
        ("RPM-GPG-KEY-acme", OTHER),
        ("skates-1.2-3.x86_64.rpm.asc", OTHER),
        ("", OTHER),
    ],
)
def test_a_path_names_a_file(path: str, file: File) -> None:
    assert read(path) == file


def test_long_names_take_no_long_time() -> None:
    for path in ("-1" * 4000 + "!.rpm", "a-" * 4000 + ".rpm", "a-1-1_" * 1300 + "!.drpm", "a.1" * 2700 + ".drpm"):
        assert read(path).version is None
