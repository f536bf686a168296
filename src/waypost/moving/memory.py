"""What was moved, remembered beside the events, so that `--undo` can go back."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from urllib.parse import quote

import msgspec
from msgspec import Struct

from waypost.moving.line import MoveError, Value


class Moved(Struct, frozen=True):
    """A move that was made. `was`: the value before, as it was spelled in the file (TOML); `now`: what it became."""

    package: str
    was: str
    now: Value
    time: str


class Moves:
    """One small file for each package that was moved, its latest move last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def last(self, package: str) -> Moved:
        """Raises MoveError if there is none."""
        moves = self._read(package)
        if not moves:
            where = f"is remembered in {self._folder}; is --data what it was made with?"
            raise MoveError(f"no move of {package} {where}")
        return moves[-1]

    def remember(self, moved: Moved) -> None:
        self._write(moved.package, [*self._read(moved.package), moved])

    def forget_last(self, package: str) -> None:
        self._write(package, self._read(package)[:-1])

    def _path(self, package: str) -> Path:
        return self._folder / f"{quote(package, safe='')}.json"

    def _read(self, package: str) -> list[Moved]:
        path = self._path(package)
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[Moved])
        except FileNotFoundError:
            return []
        except msgspec.MsgspecError as error:
            raise MoveError(f"{path} cannot be read ({error}); it remembers moves: mend it, or remove it") from None

    def _write(self, package: str, moves: list[Moved]) -> None:
        path = self._path(package)
        if not moves:
            path.unlink(missing_ok=True)
            return
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        try:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(moves), indent=2))
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
