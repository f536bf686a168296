"""A folder of things that were fetched and are kept, within a bound. What is there may vanish at any time.

Files appear whole (written aside, then renamed), and whoever removes one may do so at any time. Nothing in it is
needed to answer right: whatever is missing, torn or altered is a miss.
"""

from __future__ import annotations

import os
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import msgspec

_T = TypeVar("_T")


class Folder:
    """Files by name and kind: FOLDER/ab/cdef….KIND. Shared by the workers of a machine.

    root       made when first needed
    max_bytes  of all files together; `sweep` sees to it, so that more may stand there in between
    failures   calls to the operating system that failed: a full disk costs hits, not answers
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self.max_bytes = max_bytes
        self.failures = 0

    def read(self, name: str, kind: str) -> bytes | None:
        try:
            return self._path(name, kind).read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            self.failures += 1
            return None

    def read_line(self, name: str, kind: str) -> tuple[bytes, bytes] | None:
        """The first line, and what follows it: nothing is copied, however much that is."""
        try:
            with open(self._path(name, kind), "rb", buffering=4096) as file:
                return file.readline(), file.read()
        except FileNotFoundError:
            return None
        except OSError:
            self.failures += 1
            return None

    def write(self, name: str, kind: str, *pieces: bytes) -> bool:
        """One after another. False if the disk refused."""
        path = self._path(name, kind)
        temporary = ""
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent)
            with open(descriptor, "wb") as file:
                file.writelines(pieces)
            os.replace(temporary, path)
        except OSError:
            self.failures += 1
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            return False
        return True

    def touch(self, name: str, kind: str) -> None:
        """Marks a use: what was not used for longest goes first."""
        try:
            os.utime(self._path(name, kind))
        except OSError:
            self.failures += 1

    def sweep(self) -> int:
        """Removes what was not used for longest until all fits; bytes removed. May run in a thread, beside others."""
        found = []
        for path in self._root.glob("??/*"):
            try:
                status = path.stat()
            except OSError:
                continue
            found.append((status.st_mtime, status.st_size, path))
        excess = sum(size for _, size, _ in found) - self.max_bytes
        removed = 0
        for _, size, path in sorted(found) if excess > 0 else ():
            if removed >= excess:
                break
            try:
                path.unlink(missing_ok=True)
            except OSError:
                self.failures += 1
                continue
            removed += size
        return removed

    def _path(self, name: str, kind: str) -> Path:
        return self._root / name[:2] / f"{name[2:]}.{kind}"


def name_of(*parts: str) -> str:
    """A name for what is kept: a hash of what was asked for."""
    return blake2b("\n".join(parts).encode(), digest_size=20).hexdigest()


def decoded(line: bytes, kind: type[_T]) -> _T | None:
    """A line of JSON as a Struct; None if it is none."""
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.MsgspecError:
        return None
