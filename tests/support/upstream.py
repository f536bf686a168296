"""An upstream that says exactly what a test tells it to, byte for byte, and knows who is connected."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping

Script = Callable[[socket.socket, bytes], object]


class RawUpstream:
    """Listens on loopback. The longest prefix of `scripts` that begins the target of a request answers it.

    A script gets the socket and the head of the request, and writes what it likes; the connection is kept if it
    returns True, and closed if not. With `tls` it speaks HTTPS.
    """

    def __init__(self, scripts: Mapping[str, Script], tls: ssl.SSLContext | None = None) -> None:
        self._scripts = scripts
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heads: list[bytes] = []
        self.open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True)
        self.open.add(connection)
        try:
            with contextlib.suppress(OSError):
                while head := _head(connection):
                    self.heads.append(head)
                    target = head.split(b" ", 2)[1].decode()
                    if not self._scripts[self._prefix(target)](connection, head):
                        break
        finally:
            self.open.discard(connection)
            connection.close()

    def _prefix(self, target: str) -> str:
        return max((prefix for prefix in self._scripts if target.startswith(prefix)), key=len)

    def close(self) -> None:
        # A blocked accept() holds the socket; shutdown wakes it.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _head(connection: socket.socket) -> bytes:
    """A request without body, or nothing at the end of the connection."""
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        piece = connection.recv(65536)
        if not piece:
            return b""
        got += piece
    return got


def says(raw: bytes, keep: bool = False) -> Script:
    """Answers every request with these bytes."""

    def script(connection: socket.socket, head: bytes) -> object:
        connection.sendall(raw)
        return keep

    return script


def sized(body: bytes, *lines: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole answer with a Content-Length."""
    head = b"".join(line + b"\r\n" for line in (*lines, b"Content-Length: %d" % len(body)))
    return b"HTTP/1.1 %s\r\n%s\r\n%s" % (status, head, body)
