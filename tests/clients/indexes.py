"""Python indexes on loopback: pypiserver, a static one that speaks JSON, and projects that are made here."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import json
import subprocess
import sys
import tarfile
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.server import free_port, until

JSON = "application/vnd.pypi.simple.v1+json"


def metadata(project: str, version: str, *needs: str) -> bytes:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {project}",
        f"Version: {version}",
        *(f"Requires-Dist: {one}" for one in needs),
    ]
    return "\n".join([*lines, ""]).encode()


def wheel(project: str, version: str, *needs: str) -> tuple[str, bytes]:
    """(file name, bytes) of a wheel with one module that says its version."""
    info = f"{project}-{version}.dist-info"
    files = {
        f"{project}.py": f'VERSION = "{version}"\n'.encode(),
        f"{info}/METADATA": metadata(project, version, *needs),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_record_hash(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6)), data)
    return f"{project}-{version}-py3-none-any.whl", out.getvalue()


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


_BACKEND = """
import base64, pathlib
WHEEL = {wheel!r}
def get_requires_for_build_wheel(config_settings=None):
    return []
def build_wheel(directory, config_settings=None, metadata_directory=None):
    pathlib.Path(directory, {name!r}).write_bytes(base64.b64decode(WHEEL))
    return {name!r}
"""


def sdist(project: str, version: str) -> tuple[str, bytes]:
    """A source distribution that builds itself: its backend lies in it, and needs nothing."""
    name, built = wheel(project, version)
    files = {
        "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": _BACKEND.format(wheel=base64.b64encode(built).decode(), name=name).encode(),
        "PKG-INFO": metadata(project, version),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for file, data in files.items():
            entry = tarfile.TarInfo(f"{project}-{version}/{file}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return f"{project}-{version}.tar.gz", out.getvalue()


@contextlib.contextmanager
def pypiserver(folder: Path) -> Iterator[str]:
    """The URL of its simple index, for files of a folder."""
    port = free_port()
    command = [sys.executable, "-m", "pypiserver", "run", "-p", str(port), "-i", "127.0.0.1", "--disable-fallback"]
    process = subprocess.Popen([*command, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(f"http://127.0.0.1:{port}/simple/"), what="pypiserver to start")
        yield f"http://127.0.0.1:{port}/simple/"
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class StaticIndex:
    """An index that has JSON only, with metadata files beside the wheels, as large public ones do.

    asked  the paths of all requests
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._bodies: dict[str, tuple[str, bytes]] = {}
        self._projects: dict[str, list[dict[str, Any]]] = {}
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                index.asked.append(self.path)
                content_type, body = index._bodies.get(self.path, ("", b""))
                etag = f'"{hashlib.sha256(body).hexdigest()}"'
                known = self.headers.get("If-None-Match") == etag
                self.send_response(404 if not content_type else 304 if known else 200)
                self.send_header("Content-Type", content_type or "text/plain")
                self.send_header("ETag", etag)
                self.send_header("Content-Length", "0" if known else str(len(body)))
                self.end_headers()
                if self.command == "GET" and not known:
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}/simple/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, project: str, file: str, data: bytes, needs: tuple[str, ...] = (), **more: Any) -> None:
        path = f"/files/{hashlib.sha256(data).hexdigest()[:8]}/{file}"
        self._bodies[path] = ("application/octet-stream", data)
        beside = metadata(project, file.split("-")[1], *needs)
        self._bodies[f"{path}.metadata"] = ("application/octet-stream", beside)
        entry = {
            "filename": file,
            "url": f"../..{path}",
            "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
            "core-metadata": {"sha256": hashlib.sha256(beside).hexdigest()},
            "size": len(data),
            "upload-time": "2026-01-02T03:04:05Z",
            **more,
        }
        files = self._projects.setdefault(project, [])
        files.append(entry)
        versions = sorted({one["filename"].split("-")[1] for one in files})
        page = {"meta": {"api-version": "1.1"}, "name": project, "versions": versions, "files": files}
        self._bodies[f"/simple/{project}/"] = (JSON, json.dumps(page).encode())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
