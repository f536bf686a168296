"""Small files that one process writes and others read: whoever reads one finds it whole, the old or the new."""

from __future__ import annotations

import os
from pathlib import Path


def put(path: Path, content: bytes) -> bool:
    """Whether it stands there now. Written aside, then renamed; what a machine's crash would leave is not promised."""
    temporary = aside(path)
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        return False
    return True


def put_in(folder: Path, name: str, content: bytes) -> bool:
    """The same in a folder that is made if it is not there."""
    try:
        folder.mkdir(mode=0o750, exist_ok=True)
    except OSError:
        return False
    return put(folder / name, content)


def aside(path: Path) -> Path:
    """Where it is written first."""
    return path.with_suffix(".new")
