"""A project's page as it is kept: in JSON, with links to us, and where each file really is. Pure.

Both are kept together, so that every link which we have given out can be followed. HTML is made of the JSON when
somebody asks for it.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from waypost.artifacts.project_page import JSON, Entry, Unreadable, html_of, metadata_of, read_page, write_joined
from waypost.artifacts.target import followed


class Place(NamedTuple):
    """Where a file really is. `metadata`, `signed`: files of that kind lie beside it (PEP 658, PEP 503)."""

    url: str
    metadata: bool
    signed: bool

    def beside(self, suffix: str) -> str:
        """The URL of a companion: the suffix belongs to the path, whatever query there is."""
        path, mark, query = self.url.partition("?")
        return f"{path}{suffix}{mark}{query}"


_DIGITS = 20  # of the length of the JSON, at the end of a kept listing


class Listing:
    """A page as it is kept: JSON, files, one after another, and how long the first is."""

    __slots__ = ("_kept", "_start")

    def __init__(self, kept: bytes) -> None:
        self._kept = kept
        self._start = int(kept[-_DIGITS:])

    def page(self, media_type: str) -> bytes:
        page = self._kept[: self._start]
        return page if media_type == JSON else html_of(page)

    def place(self, file: str) -> Place | None:
        try:
            line = f"\n{file}\t".encode()
        except UnicodeEncodeError:  # half a character names no file
            return None
        found = self._kept.find(line, self._start)
        if found < 0 or "\t" in file or "\n" in file:
            return None
        start = found + len(line)
        url, _, flags = self._kept[start : self._kept.index(b"\n", start)].decode().partition("\t")
        return Place(url, "m" in flags, "s" in flags)


def kept_of(body: bytes, content_type: str, url: str, name: str, links: str) -> bytes:
    """An upstream's page → what is kept of it. Raises Unreadable.

    content_type  as the upstream said it
    url           where the page was found: links may be relative to it
    name          the project's normalised name
    links         what our links to its files begin with
    """
    kept = _Kept(url, links)
    try:
        return kept.whole(read_page(body, content_type, kept.add), name)
    except Unreadable:
        raise
    except (ValueError, RecursionError, msgspec.MsgspecError, TypeError) as error:
        raise Unreadable(f"no page of the simple repository API ({str(error)[:100]})") from None


class _Kept:
    """Takes entries as they are read, and writes what is kept of them."""

    def __init__(self, url: str, links: str) -> None:
        self._url = url
        self._links = links
        self._seen: set[str] = set()
        self._begins: dict[str, str] = {}
        self._json: list[bytes] = []
        self._files: list[bytes] = []

    def add(self, entry: Entry) -> None:
        """A file; what cannot be fetched, or bears a name that is none, is left out."""
        file, url = entry.get("filename"), entry.get("url")
        if not isinstance(file, str) or not isinstance(url, str):
            raise Unreadable("a file without filename or url")
        url = self._where(url.partition("#")[0])
        if not url or not _is_name(file) or file in self._seen:
            return
        self._seen.add(file)
        link = self._links + (file if _PLAIN.fullmatch(file) else quote(file, safe=""))
        self._json.append(msgspec.json.encode({**entry, "url": link}))
        flags = ("m" if metadata_of(entry) else "") + ("s" if entry.get("gpg-sig") is not False else "")
        self._files.append(f"{file}\t{url}\t{flags}".encode())

    def _where(self, link: str) -> str:
        """The URL that a link on the page leads to; "" if we would not go there.

        Most links begin as one before them did; of those only the rest is new, and only its dots can lead astray.
        """
        if _PLAIN.fullmatch(link) is None:
            link = quote(link, safe=_MAY_STAND)
        end = link.find("/", 8) + 1 if link.startswith("http") else link.startswith("/") and not link.startswith("//")
        begin = self._begins.get(link[:end]) if end else None
        if begin is not None and "/." not in link:
            return begin + link[end:]
        url = followed(self._url, link) or ""
        if url and end and url.endswith(link[end:]):
            self._begins[link[:end]] = url[: len(url) - len(link) + end]
        return url

    def whole(self, top: dict[str, Any], name: str) -> bytes:
        meta = {**top.pop("meta", {}), "api-version": top.pop("version")}
        head = msgspec.json.encode({"meta": meta, **top, "name": name})
        out = BytesIO()
        write_joined(out, head[:-1] + b',"files":[', self._json, b",", b"]}")
        start = out.tell()
        write_joined(out, b"\n", self._files, b"\n", b"\n")
        out.write(f"{start:>{_DIGITS}}".encode())
        return out.getvalue()


def _is_name(file: str) -> bool:
    return file.isprintable() and not set(file) & set("/\\") and file.strip(".") != ""


# RFC 3986 section 2: what may stand in a URL. The rest of what somebody else wrote is encoded.
_MAY_STAND = "%:/?[]@!$&'()*+,;="
_PLAIN = re.compile(r"[A-Za-z0-9._~/:-]*")
