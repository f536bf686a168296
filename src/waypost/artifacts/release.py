"""Which release of a project a file belongs to, as its name tells (PEP 427 for wheels, PEP 625 for sdists)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

_SDIST = re.compile(r"\.(?:tar\.(?:gz|bz2|xz|Z)|tgz|tbz|zip|egg|exe|msi)\Z")
# What stands behind the version of an egg or an installer: the Python, and the platform that it is for.
_BUILT = re.compile(r"(?:\.(?P<before>[a-z0-9]+[-_][a-z0-9_]+))?-py[0-9.]+(?:-(?P<after>.+))?\Z")


class Release(NamedTuple):
    """version as PEP 440 normalises it; platform as the wheel says it ("any", "manylinux_2_28_x86_64")."""

    version: str | None
    platform: str | None


_UNKNOWN = Release(None, None)


def normalise(name: str) -> str:
    """PEP 503: runs of "-", "_" and "." are one "-", and case does not matter."""
    return re.sub(r"[-_.]+", "-", name).lower()


@lru_cache(4096)
def release_of(project: str, file: str) -> Release:
    """The release of `project`, a normalised name, that a file is. Names that say nothing give nothing."""
    if file.endswith(".whl"):
        try:
            name, wheel_version, _, _ = parse_wheel_filename(file)
        except (InvalidWheelFilename, InvalidVersion):
            return _UNKNOWN
        return Release(str(wheel_version), file[:-4].rpartition("-")[2]) if name == project else _UNKNOWN
    stem = _SDIST.sub("", file)
    # Names of old sdists hold hyphens as versions do: the project's own name says where the version begins.
    dash = next((found.start() for found in re.finditer("-", stem) if normalise(stem[: found.start()]) == project), -1)
    if stem == file or dash < 0:
        return _UNKNOWN
    version, platform = stem[dash + 1 :], None
    if built := _BUILT.search(version):
        version, platform = version[: built.start()], built["before"] or built["after"]
    try:
        return Release(str(Version(version)), platform)
    except InvalidVersion:
        return Release(version or None, platform)
