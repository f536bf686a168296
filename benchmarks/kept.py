"""CPU of a manifest that is answered from what is kept, against a plain counted redirect by the same worker.

Manifests by digest, manifests by tag within `tag_ttl`, and redirects take turns in one run; wrk asks for all three on
the other core. The upstream is asked before the rounds begin and not while they last, which is checked.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from tests.support.server import WaypostServer, free_port, until

from benchmarks import clients
from benchmarks.measure import Figure, at_most, cores, pin, spread
from benchmarks.nginx import nginx
from benchmarks.wrk import Round, Wrk

HOST = "docker.acme.example"
NAME = "acme/skates"
TAGS = tuple(f"1.{number}" for number in range(50))
LAYERS = 8
CONNECTIONS = 32
IMAGE = """
[[package]]
type = "container"
name = "{name}"
owner = "acme"
domain = "{host}"
upstream = "reg.example/{name}"
[[upstream]]
host = "reg.example"
connect = "http://127.0.0.1:{port}"
[containers]
tag_ttl = 3600
"""
_OCI = "application/vnd.oci.image."
_DOCKER = "application/vnd.docker.distribution."
_TYPES = (
    f"{_OCI}index.v1+json",
    f"{_OCI}manifest.v1+json",
    f"{_DOCKER}manifest.list.v2+json",
    f"{_DOCKER}manifest.v2+json",
)
# As clients send them, Host left out: one Accept line, or one for each type.
KINDS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("User-Agent", "containerd/1.6.20~ds1"), ("Accept", ", ".join((*_TYPES, "*/*"))), ("Accept-Encoding", "gzip")),
    (
        ("User-Agent", "docker/20.10.24+dfsg1 go/go1.19.8 kernel/6.1.0 os/linux arch/amd64"),
        *(("Accept", one) for one in (*_TYPES, "application/json")),
        ("Accept-Encoding", "gzip"),
    ),
    (
        ("User-Agent", "containers/5.24.1 (github.com/containers/image)"),
        *(("Accept", one) for one in _TYPES),
        ("Docker-Distribution-Api-Version", "registry/2.0"),
        ("Accept-Encoding", "gzip"),
    ),
    (("User-Agent", "crane/0.20.2 go-containerregistry"), ("Accept", ",".join(_TYPES)), ("Accept-Encoding", "gzip")),
)

# Says as much of a manifest as makes it one that is kept.
_UPSTREAM = """
    server {{
        listen 127.0.0.1:{port};
        root {root};
        location ~ /manifests/ {{ default_type application/vnd.oci.image.manifest.v1+json; }}
        location / {{ }}
    }}
"""


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def images(root: Path) -> list[str]:
    """Lays out one image for each tag, as its upstream serves them; their digests."""
    folder = root / "v2" / NAME
    for part in ("manifests", "blobs"):
        (folder / part).mkdir(parents=True)
    digests = []
    for tag in TAGS:
        config = json.dumps({"os": "linux", "architecture": "amd64", "created_by": tag}).encode()
        (folder / "blobs" / _digest(config)).write_bytes(config)
        layer = f"{_OCI}layer.v1.tar+gzip"
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{_OCI}manifest.v1+json",
                "config": {"mediaType": f"{_OCI}config.v1+json", "digest": _digest(config), "size": len(config)},
                "layers": [
                    {"mediaType": layer, "digest": _digest(f"{tag} {number}".encode()), "size": 31_415_926 + number}
                    for number in range(LAYERS)
                ],
            },
            indent=3,
        ).encode()
        for reference in (tag, _digest(manifest)):
            (folder / "manifests" / reference).write_bytes(manifest)
        digests.append(_digest(manifest))
    return digests


def requests(references: Iterable[str]) -> list[bytes]:
    """Each reference, asked for by each kind of client."""
    return [
        f"GET /v2/{NAME}/manifests/{reference} HTTP/1.1\r\nHost: {HOST}\r\n".encode()
        + "".join(f"{name}: {value}\r\n" for name, value in kind).encode()
        + b"\r\n"
        for reference in references
        for kind in KINDS
    ]


def run(quick: bool) -> list[Figure]:
    seconds, rounds = (1, 2) if quick else (3, 7)
    core, other = cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        root, upstream = folder / "files", free_port()
        digests = images(root)
        ways = [
            Wrk(folder / f"{what}.lua", asked, other, CONNECTIONS)
            for what, asked in (
                ("digest", requests(digests)),
                ("tag", requests(TAGS)),
                ("redirect", [clients.raw(number) for number in range(4000)]),
            )
        ]
        with nginx(folder / "upstream", other, _UPSTREAM.format(port=upstream, root=root)):
            config = clients.CONFIG + IMAGE.format(name=NAME, host=HOST, port=upstream)
            server = WaypostServer(folder, config, workers=1).start()
            try:
                console, worker = server.children()
                pin(server.pid, other)
                pin(worker, core)
                pin(console, other, idle=True)
                for wrk in ways:
                    wrk.round(server.port, worker, 1)
                found: list[list[Round]] = [[] for _ in ways]
                _drained(server)
                fetches, counted = server.metric("waypost_fetches_total"), server.metric("waypost_events_total")
                for _ in range(rounds):
                    for wrk, into in zip(ways, found, strict=True):
                        into.append(wrk.round(server.port, worker, seconds))
                        _drained(server)
                fetches = server.metric("waypost_fetches_total") - fetches
                counted = server.metric("waypost_events_total") - counted
            finally:
                server.stop()
    answered = sum(one.answers for rounds_of in found for one in rounds_of)
    assert not fetches, f"{fetches:.0f} answers were not at hand"
    assert counted >= answered, f"{answered} answers, {counted:.0f} events"
    *manifests, redirects = found
    figures = []
    for what, ours in zip(("digest", "tag"), manifests, strict=True):
        ratios = [one.cost / plain.cost for one, plain in zip(ours, redirects, strict=True)]
        figures += [
            at_most(f"kept manifest by {what} / counted redirect, median of {rounds}", median(ratios), 3, " ×"),
            Figure("the same, each round", spread(ratios)),
        ]
    costs = ", ".join(f"{median(one.cost for one in rounds_of):.1f} µs" for rounds_of in found)
    return [*figures, Figure("CPU by digest, by tag, of a redirect", costs)]


def _drained(server: WaypostServer) -> None:
    """Waits until nothing is left to collect, so that a round begins as the one before it."""
    time.sleep(1.2)  # the worker tells once a second
    until(
        lambda: server.metric("waypost_stored_total") >= server.metric("waypost_events_total"), 120, "all to be stored"
    )
