"""Bytes per second of CPU while blobs pass through, against nginx doing `proxy_pass`.

One worker and nginx take turns on one core, for the same upstream (another nginx, which serves files, by HTTP and by
HTTPS) and the same client (wrk), both on the other core, all in one run. Both keep their connections to the upstream.
What is compared is CPU time as the kernel accounts it, its copying between sockets included.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from tests.support.server import WaypostServer, free_port

from benchmarks.measure import Figure, at_least, cores, pin, spread
from benchmarks.nginx import nginx
from benchmarks.wrk import Round, Wrk

HOST = "docker.acme.example"
MB = 1_000_000
SIZES = (MB, 100 * MB)
SCHEMES = ("http", "https")
CONNECTIONS = 8

# By default nginx reads ahead of a slow client into files, and moves 4 or 8 KB at a time.
WAYS = {
    "proxy_pass": "",
    "without files": "proxy_max_temp_file_size 0;",
    "without files, buffers of 64 KB": (
        "proxy_max_temp_file_size 0; proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"
    ),
}

_BASE = 'base_domain = "waypost.example"\n'
_IMAGE = """
[[package]]
type = "container"
name = "acme/{scheme}"
domain = "{host}"
upstream = "{scheme}.reg.example/acme/{scheme}"
[[upstream]]
host = "{scheme}.reg.example"
connect = "{scheme}://127.0.0.1:{port}"
"""
_FILES = """
    sendfile on; tcp_nopush on; access_log off; root {root};
    ssl_certificate {folder}/tls.crt; ssl_certificate_key {folder}/tls.key;
    server {{ listen 127.0.0.1:{http}; }}
    server {{ listen 127.0.0.1:{https} ssl; }}
"""
_POOL = """
    upstream {scheme} {{ server 127.0.0.1:{port}; keepalive 32; }}
"""
_PROXY = """
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1; proxy_set_header Connection ""; {how}
        location / {{ proxy_pass {scheme}://{scheme}; }}
    }}
"""


def blob(root: Path, scheme: str, size: int) -> bytes:
    """Makes a blob that the upstream serves; a request for it."""
    content = os.urandom(size)
    path = f"/v2/acme/{scheme}/blobs/sha256:{hashlib.sha256(content).hexdigest()}"
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def certify(folder: Path) -> None:
    """A certificate for 127.0.0.1, which servers that are started from now on trust."""
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -subj /CN=127.0.0.1"
    subprocess.run(
        [*new.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.crt"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    os.environ["SSL_CERT_FILE"] = str(folder / "tls.crt")


def run(quick: bool) -> list[Figure]:
    seconds, rounds = (1, 2) if quick else (2, 7)
    core, other = cores()
    upstreams = {scheme: free_port() for scheme in SCHEMES}
    proxies = {(scheme, way): free_port() for scheme in SCHEMES for way in WAYS}
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        certify(folder)
        config = _BASE + "".join(_IMAGE.format(scheme=s, host=HOST, port=port) for s, port in upstreams.items())
        files = _FILES.format(folder=folder, root=folder / "files", **upstreams)
        proxying = "".join(_POOL.format(scheme=s, port=port) for s, port in upstreams.items()) + "".join(
            _PROXY.format(scheme=s, port=port, how=WAYS[way]) for (s, way), port in proxies.items()
        )
        with nginx(folder / "files-of", other, files), nginx(folder / "nginx", core, proxying) as theirs:
            server = WaypostServer(folder, config, workers=1).start()
            try:
                console, worker = server.children()
                pin(server.pid, other)
                pin(worker, core)
                pin(console, other, idle=True)
                for scheme in SCHEMES:
                    ports = [(server.port, worker), *((proxies[scheme, way], theirs) for way in WAYS)]
                    for size in SIZES:
                        asked = [blob(folder / "files", scheme, size)]
                        wrk = Wrk(folder / f"{scheme}-{size}.lua", asked, other, CONNECTIONS)
                        for port, pid in ports:
                            wrk.round(port, pid, 1)
                        turns = [[wrk.round(port, pid, seconds) for port, pid in ports] for _ in range(rounds)]
                        figures += _figures(f"{size // MB} MB by {scheme}", turns)
            finally:
                server.stop()
                del os.environ["SSL_CERT_FILE"]
    return figures


def _figures(what: str, turns: list[list[Round]]) -> list[Figure]:
    figures = []
    for number, way in enumerate(WAYS, 1):
        ratios = [turn[0].flow / turn[number].flow for turn in turns]
        title = f"{what}: bytes per CPU second / nginx, {way}; median of {len(ratios)} ({spread(ratios)})"
        figures.append(at_least(title, median(ratios), 0.5, " ×"))
    flows = ", ".join(f"{median(one.flow for one in rounds) / MB:,.0f}" for rounds in zip(*turns, strict=True))
    return [*figures, Figure(f"{what}: MB per CPU second of Waypost, and of nginx in these ways", flows)]
