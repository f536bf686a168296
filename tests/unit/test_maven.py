"""What the paths of a Maven repository name."""

from __future__ import annotations

import pytest

from waypost.artifacts.maven import read
from waypost.artifacts.tree import OTHER, File


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("com/acme/skates/1.2/skates-1.2.jar", File("binary-download", "com.acme:skates", "1.2", None, True)),
        (
            "com/acme/skates/1.2/skates-1.2-linux-x86_64.jar",
            File("binary-download", "com.acme:skates", "1.2", "linux-x86_64", True),
        ),
        ("acme/skates/1.2/skates-1.2-sources.jar", File("binary-download", "acme:skates", "1.2", None, True)),
        (
            "com/acme/skates/1.3-SNAPSHOT/skates-1.3-20261101.101112-4.aar",
            File("binary-download", "com.acme:skates", "1.3-SNAPSHOT", None, True),
        ),
        ("com/acme/skates/1.2/skates-1.2.pom", File("", same=True)),
        ("com/acme/skates/1.2/skates-1.2.jar.sha1", File("", same=True)),
        ("com/acme/skates/1.2/skates-1.2.jar.asc", File("", same=True)),
        ("com/acme/skates/maven-metadata.xml", File("index-fetch")),
        ("com/acme/skates/1.3-SNAPSHOT/maven-metadata.xml", File("index-fetch")),
        ("com/acme/skates/maven-metadata.xml.sha1", OTHER),
        ("com/acme/skates/1.2/other-1.2.jar", OTHER),
        ("skates-1.2.jar", OTHER),
        ("1.2/skates-1.2.jar", OTHER),
        ("com/acme/skates/1.2/", OTHER),
        ("", OTHER),
        ("(/(/(-(.jar", OTHER),
    ],
)
def test_a_path_names_a_file(path: str, file: File) -> None:
    assert read(path) == file
