"""Indexes as we last gave them out: in memory for a while, on disk as long as there is room.

NAME.page   one line of JSON (what it is, and what its upstream calls it), then the body
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec
from msgspec import Struct

from waypost.artifacts.oci import digest_matches
from waypost.routing.decision import Headers
from waypost.upstream.folder import Folder, decoded, name_of

# Kept in the memory of each worker, beside the files.
MEMORY_BYTES = 64 * 1024 * 1024


class KeptPage(Struct, frozen=True):
    """An index in the form in which clients get it.

    asked          what it depends on (routing.decision.Page)
    headers        of the answer, its ETag among them
    digest         of the body, so that what a disk has altered is not given out
    at             when an upstream last said that it is still so, in seconds since 1970
    source         the URL that was asked first; the two validators below are good there only
    etag, last_modified
                   as that upstream gave them (RFC 9110 section 8.8)
    """

    asked: str
    headers: Headers
    digest: str
    at: float
    source: str
    etag: str | None = None
    last_modified: str | None = None
    body: bytes = b""


class PageStore:
    """Pages of a folder, and this worker's memory of them."""

    def __init__(self, folder: Folder, memory_bytes: int = MEMORY_BYTES) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._pages: OrderedDict[str, KeptPage] = OrderedDict()
        self._bytes = 0

    def held(self, asked: str) -> KeptPage | None:
        """The page if it is in memory."""
        page = self._pages.get(asked)
        if page is not None:
            self._pages.move_to_end(asked)
        return page

    def page(self, asked: str) -> KeptPage | None:
        """The page from the disk, checked; the one in memory if that is newer; None if neither is there."""
        held = self._pages.get(asked)
        read = self._folder.read_line(name_of(asked), "page")
        if read is None:
            return held
        head, body = read
        kept = decoded(head, KeptPage)
        if kept is None or kept.asked != asked or not digest_matches(kept.digest, body):
            return held
        if held is not None and held.at >= kept.at:
            return held
        page = msgspec.structs.replace(kept, body=body)
        self._hold(page)
        return page

    def keep(self, page: KeptPage) -> bool:
        """False if the disk refused; memory has it then."""
        self._hold(page)
        head = msgspec.json.encode(msgspec.structs.replace(page, body=b""))
        return self._folder.write(name_of(page.asked), "page", head + b"\n", page.body)

    def _hold(self, page: KeptPage) -> None:
        before = self._pages.pop(page.asked, None)
        self._bytes -= len(before.body) if before is not None else 0
        if len(page.body) > self._memory_bytes:  # the others would have to go, and it would not fit even then
            return
        self._bytes += len(page.body)
        self._pages[page.asked] = page
        while self._bytes > self._memory_bytes and self._pages:
            _, gone = self._pages.popitem(last=False)
            self._bytes -= len(gone.body)
