"""The snapshot file as a gateway sees it: mapped, noticed when it is replaced, hosts compiled when first asked."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from waypost.artifacts import reach
from waypost.artifacts.snapshot import Snapshot, SnapshotError, decode_host, sites_of
from waypost.routing.site import Site

# Hosts are kept compiled while their encoded rows come to this many bytes; compiled, rows take about fifteen times as
# much. Beyond it the host that was compiled first goes, and is compiled again when asked.
MAX_COMPILED = 32 * 1024 * 1024
# Names that no snapshot knows are remembered too, so that a flood of them costs a dictionary look-up each.
MAX_UNKNOWN = 10_000
# Hosts of which it is remembered where their clients may be sent.
MAX_TOLD = 1_000


class SnapshotFile:
    """Hands out the snapshot of a path whenever the file there is another one than before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> Snapshot | None:
        """A new snapshot, or None. Raises SnapshotError for a damaged one, once; OSError while there is no file."""
        status = os.stat(self._path)
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)
        if identity == self._seen:
            return None
        self._seen = identity
        with open(self._path, "rb") as file:
            try:
                # The mapping outlives the file's name: whoever replaces the file leaves these pages to us.
                return Snapshot(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            except ValueError:
                raise SnapshotError("the snapshot is empty") from None


class CompiledHosts:
    """host → its sites. A host whose rows did not change keeps its compiled sites across snapshots."""

    def __init__(self, snapshot: Snapshot, after_compiling: Callable[[], None] | None = None) -> None:
        self._snapshot = snapshot
        self._after_compiling = after_compiling
        self._compiled: dict[str, tuple[bytes, tuple[Site, ...]]] = {}
        self._before: dict[str, tuple[bytes, tuple[Site, ...]]] = {}
        self._unknown: set[str] = set()
        self._told: dict[str, bytes] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._snapshot)

    def __call__(self, host: str) -> tuple[Site, ...] | None:
        known = self._compiled.get(host)
        if known is not None:
            return known[1]
        if host in self._unknown:
            return None
        blob = self._snapshot.blob(host)
        if blob is None:
            if len(self._unknown) >= MAX_UNKNOWN:
                self._unknown.clear()
            self._unknown.add(host)
            return None
        before = self._before.pop(host, None)
        if before is not None and before[0] == blob:
            sites = before[1]
        else:
            sites = sites_of(decode_host(blob))
            if self._after_compiling is not None:
                self._after_compiling()
        self._compiled[host] = (blob, sites)
        self._bytes += len(blob)
        while self._bytes > MAX_COMPILED and len(self._compiled) > 1:
            self._bytes -= len(self._compiled.pop(next(iter(self._compiled)))[0])
        return sites

    def reach(self, host: str) -> bytes | None:
        """The page about where clients of a host may be sent; None for a host that no snapshot knows."""
        page = self._told.get(host)
        if page is None:
            blob = None if host in self._unknown else self._snapshot.blob(host)
            if blob is None:
                return None
            if len(self._told) >= MAX_TOLD:
                del self._told[next(iter(self._told))]
            page = self._told[host] = reach.page(decode_host(blob))
        return page

    def swap(self, snapshot: Snapshot) -> None:
        """Serves from another snapshot from now on."""
        old, self._snapshot = self._snapshot, snapshot
        # Those of hosts that are gone, or that nobody asks for any more, go with time.
        self._before = {**self._before, **self._compiled}
        self._compiled = {}
        excess = sum(len(blob) for blob, _ in self._before.values()) - MAX_COMPILED
        while excess > 0:
            excess -= len(self._before.pop(next(iter(self._before)))[0])
        self._bytes = 0
        self._unknown = set()
        self._told = {}
        with contextlib.suppress(BufferError):
            old.close()
