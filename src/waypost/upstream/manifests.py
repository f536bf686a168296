"""Manifests of public images, kept: by digest for ever within a bound, and what tags last meant.

One folder, shared by the workers of a machine. Nothing in it is needed to answer right: whatever is missing, torn or
altered is a miss, since every manifest is checked against its digest before it is given out. Files appear whole
(written aside, then renamed), and whoever removes one may do so at any time.

    FOLDER/ab/cdef….manifest   a manifest: one line of JSON (what it is), then its bytes
    FOLDER/ab/cdef….tag        one line of JSON: what a tag meant, and when a registry last said so

Names are hashes of what is asked for. A manifest is kept for each repository on its own: that somebody may read it
there says nothing about another.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import OrderedDict
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from waypost.artifacts.oci import digest_matches

# Kept in the memory of each worker, beside the files.
MEMORY_BYTES = 16 * 1024 * 1024
# A file whose use is older than this is marked as used again: exact enough to remove what was not used for longest.
TOUCH_SECONDS = 600.0


class Manifest(Struct, frozen=True):
    """A manifest as a registry gave it: `body` has the digest `digest`.

    platform  of the image, from its config; "" where there is none, or it could not be learnt
    """

    repository: str
    digest: str
    media_type: str
    body: bytes = b""
    platform: str = ""


class Tag(Struct, frozen=True):
    """What a tag meant when its registry last said so, at `at` (seconds since 1970).

    `accept` are the media types that were asked with: another client may be given another manifest.
    """

    repository: str
    tag: str
    accept: str
    digest: str
    at: float


_T = TypeVar("_T")


class ManifestStore:
    """The folder, and this worker's memory of it. Times are seconds since 1970.

    folder     made when first needed
    max_bytes  of all files together; `sweep` sees to it, so that more may stand there in between
    failures   calls to the operating system that failed: a full disk costs hits, not answers
    """

    def __init__(self, folder: Path, max_bytes: int, memory_bytes: int = MEMORY_BYTES) -> None:
        self._folder = folder
        self.max_bytes = max_bytes
        self._memory_bytes = memory_bytes
        self._manifests: OrderedDict[str, tuple[Manifest, float]] = OrderedDict()
        self._held = 0
        self._tags: OrderedDict[str, Tag] = OrderedDict()
        self.failures = 0

    def held(self, repository: str, digest: str) -> Manifest | None:
        """The manifest of that digest if it is in memory. Never touches the disk, save to mark a use now and then."""
        name = _name(repository, digest)
        held = self._manifests.get(name)
        if held is None:
            return None
        self._manifests.move_to_end(name)
        now = time.time()
        if now - held[1] > TOUCH_SECONDS:
            self._touch(self._path(name, "manifest"))
            self._manifests[name] = (held[0], now)
        return held[0]

    def manifest(self, repository: str, digest: str) -> Manifest | None:
        """The manifest of that digest from the disk, checked; None if it is not there."""
        name = _name(repository, digest)
        path = self._path(name, "manifest")
        data = self._read(path)
        if data is None:
            return None
        head, _, body = data.partition(b"\n")
        kept = _decode(head, Manifest)
        if kept is None or (kept.repository, kept.digest) != (repository, digest) or not digest_matches(digest, body):
            return None
        manifest = msgspec.structs.replace(kept, body=body)
        self._touch(path)
        self._hold(name, manifest, time.time())
        return manifest

    def keep(self, manifest: Manifest) -> bool:
        """Keeps a manifest whose digest its giver has checked. False if the disk refused; memory has it then."""
        name = _name(manifest.repository, manifest.digest)
        if name in self._manifests:
            return True
        self._hold(name, manifest, time.time())
        head = msgspec.json.encode(msgspec.structs.replace(manifest, body=b""))
        return self._write(self._path(name, "manifest"), head + b"\n" + manifest.body)

    def held_tag(self, repository: str, tag: str, accept: str) -> Tag | None:
        """What the tag last meant, as far as this worker remembers."""
        return self._tags.get(_name(repository, tag, accept))

    def tag(self, repository: str, tag: str, accept: str) -> Tag | None:
        """What the tag last meant, however long ago, as whichever worker asked last wrote down; None if nobody did."""
        name = _name(repository, tag, accept)
        held = self._tags.get(name)
        data = self._read(self._path(name, "tag"))
        kept = None if data is None else _decode(data, Tag)
        if kept is None or (kept.repository, kept.tag, kept.accept) != (repository, tag, accept):
            return held
        if held is not None and held.at >= kept.at:
            return held
        self._hold_tag(name, kept)
        return kept

    def point(self, tag: Tag) -> bool:
        """A registry has just said what a tag means."""
        name = _name(tag.repository, tag.tag, tag.accept)
        self._hold_tag(name, tag)
        return self._write(self._path(name, "tag"), msgspec.json.encode(tag) + b"\n")

    def sweep(self) -> int:
        """Removes what was not used for longest until all fits; bytes removed. May run in a thread, beside others."""
        found = []
        for path in self._folder.glob("??/*"):
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

    def _path(self, name: str, suffix: str) -> Path:
        return self._folder / name[:2] / f"{name[2:]}.{suffix}"

    def _hold(self, name: str, manifest: Manifest, now: float) -> None:
        self._manifests[name] = (manifest, now)
        self._held += len(manifest.body)
        while self._held > self._memory_bytes and self._manifests:
            _, (gone, _) = self._manifests.popitem(last=False)
            self._held -= len(gone.body)

    def _hold_tag(self, name: str, tag: Tag) -> None:
        self._tags[name] = tag
        self._tags.move_to_end(name)
        if len(self._tags) > 10_000:
            self._tags.popitem(last=False)

    def _read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            self.failures += 1
            return None

    def _touch(self, path: Path) -> None:
        try:
            os.utime(path)
        except OSError:
            self.failures += 1

    def _write(self, path: Path, data: bytes) -> bool:
        temporary = ""
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent)
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except OSError:
            self.failures += 1
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            return False
        return True


def _name(*parts: str) -> str:
    return blake2b("\n".join(parts).encode(), digest_size=20).hexdigest()


def _decode(line: bytes, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.MsgspecError:
        return None
