"""What the paths of a gem repository name."""

from __future__ import annotations

import pytest

from waypost.artifacts.gem import read
from waypost.artifacts.tree import OTHER, File


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("gems/skates-1.2.0.gem", File("binary-download", "skates", "1.2.0", None, True)),
        ("gems/rocket-skates-1.2.0.pre.1-x86_64-linux-gnu.gem",
         File("binary-download", "rocket-skates", "1.2.0.pre.1", "x86_64-linux-gnu", True)),
        ("gems/net-http-2-1.0-java.gem", File("binary-download", "net-http-2", "1.0", "java", True)),
        ("gems/rails_3.1-2-0.9.gem", File("binary-download", "rails_3.1-2", "0.9", None, True)),
        ("gems/skates-1-arm64-darwin-22.gem", File("binary-download", "skates", "1", "arm64-darwin-22", True)),
        ("quick/Marshal.4.8/skates-1.2.0.gemspec.rz", File("", same=True)),
        ("versions", File("index-fetch", through=True)),
        ("", File("", through=True)),
        ("names", File("index-fetch")),
        ("info/skates", File("index-fetch")),
        ("specs.4.8.gz", File("index-fetch")),
        ("latest_specs.4.8.gz", File("index-fetch")),
        ("prerelease_specs.4.8", File("index-fetch")),
        ("gems/skates.gem", OTHER),
        ("gems/a/skates-1.gem", OTHER),
        ("skates-1.2.0.gem", OTHER),
        ("info/a/b", OTHER),
    ],
)  # fmt: skip
def test_a_path_names_a_file(path: str, file: File) -> None:
    assert read(path) == file
