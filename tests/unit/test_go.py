"""What the paths of a Go module proxy name."""

from __future__ import annotations

import pytest

from waypost.artifacts.go import read
from waypost.artifacts.tree import OTHER, File


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("acme.example/skates/@v/v1.2.0.zip", File("binary-download", "acme.example/skates", "v1.2.0", None, True)),
        ("github.com/!acme/!rocket!skates/v2/@v/v2.0.0-!r!c1.zip",
         File("binary-download", "github.com/Acme/RocketSkates/v2", "v2.0.0-RC1", None, True)),
        ("acme.example/x/@v/v0.0.0-20261101101112-abcdef012345.zip",
         File("binary-download", "acme.example/x", "v0.0.0-20261101101112-abcdef012345", None, True)),
        ("acme.example/x/@v/v3.0.0+incompatible.zip",
         File("binary-download", "acme.example/x", "v3.0.0+incompatible", None, True)),
        ("acme.example/skates/@v/v1.2.0.mod", File("", same=True)),
        ("acme.example/skates/@v/v1.2.0.info", File("", same=True)),
        ("acme.example/skates/@v/main.info", OTHER),
        ("acme.example/skates/@v/list", File("index-fetch")),
        ("acme.example/skates/@latest", File("index-fetch")),
        ("sumdb/sum.example/supported", OTHER),
        ("sumdb/sum.example/lookup/acme.example/skates@v1.2.0", OTHER),
        ("sumdb/sum.example/x/@v/v1.2.0.zip", OTHER),
        ("@v/v1.2.0.zip", OTHER),
        ("x/@v/v1/2.zip", OTHER),
        ("x/@v/.zip", OTHER),
        ("", OTHER),
    ],
)  # fmt: skip
def test_a_path_names_a_file(path: str, file: File) -> None:
    assert read(path) == file
