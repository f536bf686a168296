"""A host of files on loopback that understands ranges (RFC 9110 section 14), and redirects where it is told to."""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Origin:
    """Serves `files`: a target → bytes, or the URL that it has moved to. `asked` are (method, target, Range)."""

    def __init__(self, files: Mapping[str, bytes | str], tls: ssl.SSLContext | None = None) -> None:
        self.files = dict(files)
        self.asked: list[tuple[str, str, str | None]] = []
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                origin._answer(self)

            def do_HEAD(self) -> None:
                origin._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append((request.command, request.path, wanted))
        found = self.files.get(request.path)
        if isinstance(found, str):
            request.send_response(302)
            request.send_header("Location", found)
            body = b""
        elif found is None:
            request.send_response(404)
            body = b"no such file\n"
        else:
            body = self._part(request, found, wanted)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Connection", "close")  # so that whoever is closed is gone
        request.end_headers()
        if request.command != "HEAD":
            with contextlib.suppress(ConnectionError):  # whoever has enough of it hangs up
                request.wfile.write(body)

    @staticmethod
    def _part(request: BaseHTTPRequestHandler, whole: bytes, wanted: str | None) -> bytes:
        bounds = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        first = int(bounds[1]) if bounds else 0
        last = min(int(bounds[2]) if bounds and bounds[2] else len(whole) - 1, len(whole) - 1)
        request.send_response(206 if bounds else 200)
        if bounds:
            request.send_header("Content-Range", f"bytes {first}-{last}/{len(whole)}")
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Type", "application/octet-stream")
        return whole[first : last + 1]
