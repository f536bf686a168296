"""Real registries on loopback: docker-registry processes, a token server, and a blob store that they redirect
to.

Everything is started by a fixture and ended by the process id that it started. Hosts are made-up names such
as `reg1.example`: only Waypost resolves them, by its `[[upstream]] connect`, so that no machine's hosts file
is touched.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import gzip
import hashlib
import http.server
import io
import json
import os
import platform
import signal
import socket
import subprocess
import tarfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ISSUER = "auth2.example"
SERVICE = "reg2.example"


def digest_of(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


@dataclass
class Image:
    """An image made here: its blobs, its manifests, and the one that a tag names."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    platforms: dict[str, str] = field(default_factory=dict)
    top: str = ""

    def blob(self, media_type: str, content: bytes) -> dict[str, Any]:
        digest = digest_of(content)
        self.blobs[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def manifest(self, media_type: str, content: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps(content).encode()
        digest = digest_of(body)
        self.manifests[digest] = (media_type, body)
        self.top = digest
        return {"mediaType": media_type, "digest": digest, "size": len(body)}

    @property
    def native(self) -> str:
        """The manifest that clients on this machine take."""
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        return next(digest for digest, name in self.platforms.items() if name.split("/")[1] == machine)


def multi_arch(text: str, size: int = 100_000) -> Image:
    """An index of linux/amd64 and linux/arm64/v8; the layer of each has `text` and `size` random bytes."""
    image = Image()
    children = []
    for architecture, variant in (("amd64", ""), ("arm64", "v8")):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            for name, content in (
                ("skates", f"{text} {architecture}".encode()),
                ("ballast", os.urandom(size)),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar.getvalue())]},
            "history": [{"created_by": text}],
        }
        layer = image.blob(LAYER, gzip.compress(tar.getvalue(), mtime=0))
        child = image.manifest(
            MANIFEST,
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": image.blob(CONFIG, json.dumps(config).encode()),
                "layers": [layer],
            },
        )
        where = {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}
        children.append({**child, "platform": where})
        image.platforms[child["digest"]] = "/".join(filter(None, ("linux", architecture, variant)))
    image.manifest(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
    return image


def single_arch(image: Image) -> Image:
    """The image for this machine alone, out of one for several."""
    top = image.native
    body = image.manifests[top][1]
    own = {one["digest"] for one in [json.loads(body)["config"], *json.loads(body)["layers"]]}
    blobs = {digest: content for digest, content in image.blobs.items() if digest in own}
    return Image(blobs, {top: image.manifests[top]}, {top: image.platforms[top]}, top)


def artifact(config_type: str, media_type: str, title: str, content: bytes, config: bytes = b"{}") -> Image:
    """An OCI artifact that is no image: one file, as `oras push` makes it."""
    made = Image()
    file = made.blob(media_type, content)
    file["annotations"] = {"org.opencontainers.image.title": title}
    described = made.blob(config_type, config)
    made.manifest(MANIFEST, {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [file]})
    return made


def chart() -> Image:
    """A chart as `helm push` makes it: the archive as the one layer, Chart.yaml as JSON for its config."""
    about = {"apiVersion": "v2", "name": "skates", "version": "1.2.0", "description": "Skates", "type": "application"}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        # JSON is YAML.
        entry = tarfile.TarInfo("skates/Chart.yaml")
        entry.size = len(json.dumps(about))
        archive.addfile(entry, io.BytesIO(json.dumps(about).encode()))
    return artifact(
        "application/vnd.cncf.helm.config.v1+json",
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "skates-1.2.0.tgz",
        packed.getvalue(),
        json.dumps(about).encode(),
    )


class Signer:
    """Issues registry tokens: RS256, with the certificate in x5c, as docker-registry wants them."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def token(self, repository: str, actions: list[str], life: int = 300) -> str:
        now = int(time.time())
        access = [{"type": "repository", "name": repository, "actions": actions}]
        claims = {
            "iss": ISSUER,
            "sub": "",
            "aud": SERVICE,
            "exp": now + life,
            "nbf": now - 5,
            "iat": now,
            "jti": os.urandom(8).hex(),
        }
        chain = [base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()]
        return jwt.encode({**claims, "access": access}, self._key, "RS256", headers={"x5c": chain})


class Server:
    """An http.server in a thread, on a port of its own."""

    def __init__(
        self, handler: type[http.server.BaseHTTPRequestHandler] | partial[Any], host: str = "127.0.0.1"
    ) -> None:
        self._server = http.server.ThreadingHTTPServer((host, 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://{host}:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class TokenServer(Server):
    """Gives anybody a token to pull what is asked for, and remembers what it was asked."""

    def __init__(self, signer: Signer) -> None:
        self.asked: list[dict[str, str]] = []
        self.credentials: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
                outer.asked.append(query)
                outer.credentials.extend(self.headers.get_all("Authorization", []))
                _, repository, _ = query["scope"].split(":")
                body = json.dumps({"token": signer.token(repository, ["pull"]), "expires_in": 300}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(Handler)


class BlobStore(Server):
    """Serves a registry's storage folder, as a bucket would: with a token it answers 400, like S3."""

    def __init__(self, folder: Path) -> None:
        self.served: list[str] = []
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers.get("Authorization"):
                    self.send_error(400)
                    return
                outer.served.append(self.path)
                super().do_GET()

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(partial(Handler, directory=str(folder)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Registry:
    """A docker-registry process. `host` is what Waypost knows it as, `url` where it listens."""

    def __init__(
        self, folder: Path, host: str, more: dict[str, Any], signer: Signer | None = None, basic: str | None = None
    ) -> None:
        """Pushes are let in by a token of `signer`, or by `basic` ("name:password"), if it wants either."""
        self.host = host
        self._basic = basic
        self.storage = folder / "storage"
        self._signer = signer
        folder.mkdir()
        for _ in range(3):  # the port may be taken between choosing and listening
            port = free_port()
            self.url = f"http://127.0.0.1:{port}"
            config = {
                "version": "0.1",
                "log": {"level": "error"},
                "storage": {
                    "filesystem": {"rootdirectory": str(self.storage)},
                    "maintenance": {"uploadpurging": {"enabled": False}},
                },
                "http": {"addr": f"127.0.0.1:{port}", "secret": "not one"},
                **more,
            }
            (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
            self._log = (folder / "log").open("wb")
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(folder / "config.yml")], stdout=self._log, stderr=self._log
            )
            if self._listens(port):
                return
            self.stop()
        raise RuntimeError((folder / "log").read_text())

    def _listens(self, port: int) -> bool:
        for _ in range(200):
            if self._process.poll() is not None:
                return False
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        self._log.close()

    def push(self, repository: str, tag: str, image: Image) -> None:
        for digest, content in image.blobs.items():
            started = self._send("POST", f"/v2/{repository}/blobs/uploads/", repository)
            there = urllib.parse.urlsplit(started.headers["Location"])
            self._send(
                "PUT",
                f"{there.path}?{there.query}&digest={digest}",
                repository,
                content,
                "application/octet-stream",
            )
        for digest, (media_type, body) in image.manifests.items():
            self._send("PUT", f"/v2/{repository}/manifests/{digest}", repository, body, media_type)
        media_type, body = image.manifests[image.top]
        self._send("PUT", f"/v2/{repository}/manifests/{tag}", repository, body, media_type)

    def _send(self, method: str, path: str, repository: str, body: bytes = b"", media_type: str = "") -> Any:
        request = urllib.request.Request(self.url + path, body, method=method)
        if media_type:
            request.add_header("Content-Type", media_type)
        if self._signer is not None:
            request.add_header("Authorization", f"Bearer {self._signer.token(repository, ['pull', 'push'])}")
        if self._basic is not None:
            request.add_header("Authorization", f"Basic {base64.b64encode(self._basic.encode()).decode()}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer


@dataclass
class Registries:
    """`open` wants no token and redirects blobs to `store`; `guarded` wants one and serves blobs itself."""

    open: Registry
    guarded: Registry
    tokens: TokenServer
    store: BlobStore

    @property
    def connect(self) -> dict[str, str]:
        """Host → where it really is, as [[upstream]] declares it."""
        return {self.open.host: self.open.url, self.guarded.host: self.guarded.url, ISSUER: self.tokens.url}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Registries]:
    """Starts all of it, and ends all of it."""
    signer = Signer()
    (folder / "root.pem").write_bytes(signer.pem())
    auth = {
        "realm": f"https://{ISSUER}/token",
        "service": SERVICE,
        "issuer": ISSUER,
        "rootcertbundle": str(folder / "root.pem"),
    }
    with contextlib.ExitStack() as stack:
        tokens = TokenServer(signer)
        stack.callback(tokens.close)
        store = BlobStore(folder / "reg1" / "storage")
        stack.callback(store.close)
        redirect = {"storage": [{"name": "redirect", "options": {"baseurl": store.url}}]}
        first = Registry(folder / "reg1", "reg1.example", {"middleware": redirect})
        stack.callback(first.stop)
        second = Registry(folder / "reg2", SERVICE, {"auth": {"token": auth}}, signer)
        stack.callback(second.stop)
        yield Registries(first, second, tokens, store)
