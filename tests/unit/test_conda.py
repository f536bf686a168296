"""What the paths of a conda channel name."""

from __future__ import annotations

import pytest

from waypost.artifacts.conda import read
from waypost.artifacts.tree import OTHER, File


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("linux-64/skates-1.2.0-h1a2b_0.conda", File("binary-download", "skates", "1.2.0", "linux-64", True)),
        ("noarch/rocket-skates-2-1.2.0rc1-py_0.tar.bz2",
         File("binary-download", "rocket-skates-2", "1.2.0rc1", "noarch", True)),
        ("label/dev/osx-arm64/_skates-1!2.0_1+x-0.conda",
         File("binary-download", "_skates", "1!2.0_1+x", "osx-arm64", True)),
        ("noarch/repodata.json", File("index-fetch")),
        ("linux-64/repodata.json.zst", File("index-fetch")),
        ("linux-64/repodata.json.bz2", File("index-fetch")),
        ("linux-64/current_repodata.json", File("index-fetch")),
        ("linux-64/repodata_shards.msgpack.zst", File("index-fetch")),
        ("channeldata.json", File("index-fetch")),
        (f"linux-64/shards/{'a' * 64}.msgpack.zst", File("", same=True)),
        ("linux-64/skates-1.2.0.conda", OTHER),
        ("skates-1.2.0-0.conda", OTHER),
        ("linux-64/skates-1.2.0-0.conda.sig", OTHER),
        ("linux-64/", OTHER),
        ("", OTHER),
    ],
)  # fmt: skip
def test_a_path_names_a_file(path: str, file: File) -> None:
    assert read(path) == file
