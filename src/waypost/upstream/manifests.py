"""Manifests of public images, kept: by digest for ever within a bound, and what tags last meant.

One folder (upstream/folder.py). Every manifest is checked against its digest before it is given out.

    FOLDER/ab/cdef….manifest   a manifest: one line of JSON (what it is), then its bytes
    FOLDER/ab/cdef….tag        one line of JSON: what a tag meant, and when a registry last said so
    FOLDER/ab/cdef….label      one line of JSON: what a manifest says of a blob that it leads to

Names are hashes of what is asked for. A manifest is kept for each repository on its own: that somebody may read it
there says nothing about another.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from waypost.artifacts.oci import digest_matches
from waypost.upstream.folder import Folder, decoded, name_of

# Kept in the memory of each worker, beside the files.
MEMORY_BYTES = 16 * 1024 * 1024
# A file whose use is older than this is marked as used again: exact enough to remove what was not used for longest.
TOUCH_SECONDS = 600.0
# Labels in the memory of each worker: some 100 bytes each.
MOST_LABELS = 10_000


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


class Label(Struct, frozen=True):
    """What a manifest says of a blob that it leads to; whoever wrote it reads it."""

    repository: str
    digest: str
    label: str


class ManifestStore:
    """The folder, and this worker's memory of it. Times are seconds since 1970.

    memory_bytes  of manifests in the memory of this worker
    """

    def __init__(self, folder: Folder, memory_bytes: int = MEMORY_BYTES) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._manifests: OrderedDict[str, tuple[Manifest, float]] = OrderedDict()
        self._held = 0
        self._tags: OrderedDict[str, Tag] = OrderedDict()
        self._labels: OrderedDict[str, str] = OrderedDict()

    def held(self, repository: str, digest: str) -> Manifest | None:
        """The manifest of that digest if it is in memory. Never touches the disk, save to mark a use now and then."""
        name = name_of(repository, digest)
        held = self._manifests.get(name)
        if held is None:
            return None
        self._manifests.move_to_end(name)
        now = time.time()
        if now - held[1] > TOUCH_SECONDS:
            self._folder.touch(name, "manifest")
            self._manifests[name] = (held[0], now)
        return held[0]

    def manifest(self, repository: str, digest: str) -> Manifest | None:
        """The manifest of that digest from the disk, checked; None if it is not there."""
        name = name_of(repository, digest)
        data = self._folder.read(name, "manifest")
        if data is None:
            return None
        head, _, body = data.partition(b"\n")
        kept = decoded(head, Manifest)
        if kept is None or (kept.repository, kept.digest) != (repository, digest) or not digest_matches(digest, body):
            return None
        manifest = msgspec.structs.replace(kept, body=body)
        self._folder.touch(name, "manifest")
        self._hold(name, manifest, time.time())
        return manifest

    def keep(self, manifest: Manifest) -> bool:
        """Keeps a manifest whose digest its giver has checked. False if the disk refused; memory has it then."""
        name = name_of(manifest.repository, manifest.digest)
        if name in self._manifests:
            return True
        self._hold(name, manifest, time.time())
        head = msgspec.json.encode(msgspec.structs.replace(manifest, body=b""))
        return self._folder.write(name, "manifest", head + b"\n" + manifest.body)

    def held_tag(self, repository: str, tag: str, accept: str) -> Tag | None:
        """What the tag last meant, as far as this worker remembers."""
        return self._tags.get(name_of(repository, tag, accept))

    def tag(self, repository: str, tag: str, accept: str) -> Tag | None:
        """What the tag last meant, however long ago, as whichever worker asked last wrote down; None if nobody did."""
        name = name_of(repository, tag, accept)
        held = self._tags.get(name)
        data = self._folder.read(name, "tag")
        kept = None if data is None else decoded(data, Tag)
        if kept is None or (kept.repository, kept.tag, kept.accept) != (repository, tag, accept):
            return held
        if held is not None and held.at >= kept.at:
            return held
        self._hold_tag(name, kept)
        return kept

    def point(self, tag: Tag) -> bool:
        """A registry has just said what a tag means."""
        name = name_of(tag.repository, tag.tag, tag.accept)
        self._hold_tag(name, tag)
        return self._folder.write(name, "tag", msgspec.json.encode(tag) + b"\n")

    def label(self, repository: str, digest: str) -> str | None:
        """What a manifest said of a blob, as any worker wrote it down; None if nobody did."""
        name = name_of(repository, digest)
        held = self._labels.get(name)
        if held is not None:
            return held
        data = self._folder.read(name, "label")
        kept = None if data is None else decoded(data, Label)
        if kept is None or (kept.repository, kept.digest) != (repository, digest):
            return None
        self._folder.touch(name, "label")
        self._hold_label(name, kept.label)
        return kept.label

    def stick(self, labels: Iterable[Label]) -> None:
        """Writes down what manifests say of blobs, as far as this worker has not yet."""
        for one in labels:
            name = name_of(one.repository, one.digest)
            if self._labels.get(name) != one.label:
                self._hold_label(name, one.label)
                self._folder.write(name, "label", msgspec.json.encode(one) + b"\n")

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

    def _hold_label(self, name: str, label: str) -> None:
        self._labels[name] = label
        if len(self._labels) > MOST_LABELS:
            self._labels.popitem(last=False)
