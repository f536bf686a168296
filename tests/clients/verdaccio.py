"""verdaccio: a registry of npm packages on loopback, and packages published to it."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import shutil
import subprocess
import tarfile
from base64 import b64encode
from pathlib import Path

from tests.clients.programs import client
from tests.support.server import free_port, until

_CONFIG = """
storage: {folder}/storage
auth: {{ htpasswd: {{ file: {folder}/htpasswd }} }}
uplinks: {{}}
packages: {{ "**": {{ access: $all, publish: $anonymous }} }}
log: {{ type: file, path: {folder}/log.txt, level: http }}
web: {{ enable: false }}
"""


class Verdaccio:
    def __init__(self, folder: Path, like: Verdaccio | None = None) -> None:
        """`like`: has what that one has, now."""
        folder.mkdir()
        if like is not None:
            shutil.copytree(like.storage, folder / "storage")
        self.storage = folder / "storage"
        (folder / "config.yaml").write_text(_CONFIG.format(folder=folder))
        self.host = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.host}"
        command = [client("verdaccio"), "--config", str(folder / "config.yaml"), "--listen", self.host]
        with (folder / "out.txt").open("wb") as out:
            self._process = subprocess.Popen(
                command, env={"PATH": os.environ["PATH"], "HOME": str(folder)}, stdout=out, stderr=out
            )
        until(self._answers, what="verdaccio to answer")

    def _answers(self) -> bool:
        try:
            return self._ask("GET", "/-/ping")[0] == 200
        except OSError:
            return False

    def publish(self, name: str, version: str, **dependencies: str) -> None:
        """A package of one file, which says its name and version; asked for as `npm publish` does."""
        package = {"name": name, "version": version, "dependencies": dependencies}
        tarball = _tarball({"package.json": json.dumps(package), "index.js": content(name, version)})
        file = f"{name}-{version}.tgz"
        dist = {
            "integrity": f"sha512-{b64encode(hashlib.sha512(tarball).digest()).decode()}",
            "shasum": hashlib.sha1(tarball).hexdigest(),
            "tarball": f"{self.url}/{name}/-/{file}",
        }
        attachment = {"content_type": "application/octet-stream", "data": b64encode(tarball).decode()}
        body = {
            "_id": name,
            "name": name,
            "dist-tags": {"latest": version},
            "versions": {version: {**package, "_id": f"{name}@{version}", "dist": dist}},
            "_attachments": {file: {**attachment, "length": len(tarball)}},
        }
        status, said = self._ask("PUT", f"/{name.replace('/', '%2f')}", json.dumps(body).encode())
        assert status == 201, said

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=10)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def _tarball(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def content(name: str, version: str) -> str:
    return f"module.exports = '{name} {version}'\n"
