"""The body of a request, as it arrives: sized or chunked. Pure; no sockets, no clock."""

from __future__ import annotations

import re

from waypost.gateway.head import ClientError, malformed

# RFC 9112 section 7.1. Extensions are read over, and refused with control bytes in them.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")

# How many bytes of a chunked body may be neither data nor plain size lines.
EXTENSIONS = 4 * 1024
TRAILERS = 8 * 1024
_LINE = 17 + EXTENSIONS


def too_large(limit: int) -> ClientError:
    return ClientError(413, "SIZE_INVALID", f"the body exceeds {limit} bytes")


class SizedBody:
    """A body of a known length (RFC 9112 section 6.2)."""

    __slots__ = ("_missing", "_parts", "is_whole")

    def __init__(self, length: int, limit: int) -> None:
        if length > limit:
            raise too_large(limit)
        self._missing = length
        self._parts: list[bytes] = []
        self.is_whole = False

    def feed(self, data: bytes, position: int) -> int:
        """Takes what belongs to the body from `data`, and says where it ends."""
        part = data[position : position + self._missing]
        self._parts.append(part)
        self._missing -= len(part)
        self.is_whole = not self._missing
        return position + len(part)

    def content(self) -> bytes:
        return b"".join(self._parts)


class ChunkedBody:
    """A chunked body (RFC 9112 section 7.1). Extensions and trailers are read over and forgotten.

    Whatever is not exactly right is refused: no blanks around sizes, no bare LF, no folded trailers.
    """

    __slots__ = ("_content", "_extensions", "_limit", "_missing", "_step", "_trailers", "is_whole")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._content = bytearray()
        self._missing = 0
        self._extensions = 0
        self._trailers = 0
        self._step = self._size_line
        self.is_whole = False

    def feed(self, data: bytes, position: int) -> int:
        """Takes what belongs to the body, and says where that ends. Raises ClientError.

        A line that is not whole yet is left: it comes again, with more bytes after it.
        """
        while not self.is_whole:
            after = self._step(data, position)
            if after < 0:
                break
            position = after
        return position

    def content(self) -> bytes:
        return bytes(self._content)

    def _size_line(self, data: bytes, position: int) -> int:
        end = _line_end(data, position, _LINE)
        if end < 0:
            return -1
        match = _CHUNK_LINE.fullmatch(data, position, end)
        if match is None:
            raise malformed("not a chunk size")
        size, extension = match.groups()
        self._extensions += len(extension or b"")
        if self._extensions > EXTENSIONS:
            raise malformed("the chunk extensions are too long")
        self._missing = int(size, 16)
        if len(self._content) + self._missing > self._limit:
            raise too_large(self._limit)
        self._step = self._data if self._missing else self._trailer_line
        return end + 2

    def _data(self, data: bytes, position: int) -> int:
        part = data[position : position + self._missing]
        if not part:
            return -1
        self._content += part
        self._missing -= len(part)
        if not self._missing:
            self._step = self._data_end
        return position + len(part)

    def _data_end(self, data: bytes, position: int) -> int:
        end = data[position : position + 2]
        if end == b"\r\n":
            self._step = self._size_line
            return position + 2
        if end not in (b"", b"\r"):
            raise malformed("a chunk does not end where it said")
        return -1

    def _trailer_line(self, data: bytes, position: int) -> int:
        end = _line_end(data, position, TRAILERS - self._trailers)
        if end < 0:
            return -1
        if end == position:
            self.is_whole = True
        elif _TRAILER_LINE.fullmatch(data, position, end) is None:
            raise malformed("not a trailer line")
        self._trailers += end + 2 - position
        return end + 2


def _line_end(data: bytes, position: int, longest: int) -> int:
    """Where the CRLF of this line stands; -1 if it is yet to come. Raises ClientError for endless lines."""
    end = data.find(b"\r\n", position, position + longest + 2)
    if end < 0 and len(data) - position > longest + 1:
        raise malformed("a line of the chunked body is too long")
    return end
