from __future__ import annotations

import pytest

from waypost.artifacts.release import Release, normalise, release_of


@pytest.mark.parametrize(
    ("project", "file", "release"),
    [
        ("my-skates", "my_skates-1.0-py3-none-any.whl", Release("1.0", "any")),
        ("my-skates", "My.Skates-1.0.0RC1-py3-none-any.whl", Release("1.0.0rc1", "any")),
        ("skates", "skates-1.0+linux.1-2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
         Release("1.0+linux.1", "manylinux_2_17_x86_64.manylinux2014_x86_64")),
        ("skates", "skates-2!1.0.post2-cp313-cp313t-macosx_11_0_arm64.whl", Release("2!1.0.post2", "macosx_11_0_arm64")),
        ("my-skates", "my_skates-1.0.tar.gz", Release("1.0", None)),
        ("my-skates", "my-skates-1.0-beta.1.tar.gz", Release("1.0b1", None)),
        ("my-skates", "My-Skates-1.0.zip", Release("1.0", None)),
        ("skates", "skates-1.0-1.tar.bz2", Release("1.0.post1", None)),
        ("skates", "skates-snapshot.tar.gz", Release("snapshot", None)),
        ("skates", "skates-1.0-py2.7.egg", Release("1.0", None)),
        ("skates", "skates-1.0-py3.6-linux-x86_64.egg", Release("1.0", "linux-x86_64")),
        ("skates", "skates-1.0.win-amd64-py2.7.exe", Release("1.0", "win-amd64")),
        ("skates", "boots-1.0-py3-none-any.whl", Release(None, None)),
        ("skates", "boots-1.0.tar.gz", Release(None, None)),
        ("skates", "skates-not+a+version-py3-none-any.whl", Release(None, None)),
        ("skates", "skates.whl", Release(None, None)),
        ("skates", "skates-1.0.tar.lz", Release(None, None)),
        ("skates", "-.tar.gz", Release(None, None)),
        ("", "\ud800-1.tar.gz", Release(None, None)),
    ],
)  # fmt: skip
def test_what_names_tell(project, file, release):
    assert release_of(project, file) == release


def test_names_are_normalised():
    assert normalise("My._-Skates") == "my-skates"
