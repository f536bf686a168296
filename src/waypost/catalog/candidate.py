"""A new text for waypost.toml: checked as a whole, beside the old one, before it takes its place."""

from __future__ import annotations

from pathlib import Path

import msgspec

from waypost.catalog.compile import Compiled, compile_file
from waypost.settings import SettingsError


def put(path: Path, text: str, port: int) -> Compiled:
    """Writes the file, whole or not at all; `port` is that of the public listener.

    Raises SettingsError, with the lines that the file would have had, or OSError; then nothing is written.
    """
    # In the same folder: what the file names is relative to it, and a rename there is atomic.
    candidate = path.with_name(f".{path.name}.candidate")
    try:
        candidate.write_bytes(text.encode())
        compiled = compile_file(candidate, port)
        if path.exists():
            candidate.chmod(path.stat().st_mode & 0o777)
        candidate.replace(path)
    except SettingsError as error:
        mine = [
            msgspec.structs.replace(one, file=str(path)) if one.file == str(candidate) else one
            for one in error.problems
        ]
        raise SettingsError(mine) from None
    finally:
        candidate.unlink(missing_ok=True)
    return compiled
