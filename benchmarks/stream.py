"""Bytes per second of CPU while blobs pass through, against nginx doing `proxy_pass`.

One worker and nginx take turns on one core, for the same upstream (another nginx, which serves files) and the same
client (wrk), both on the other core, all in one run. Both relay with kept connections to the upstream. What is
compared is CPU time as the kernel accounts it, the kernel's copying between sockets included.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from statistics import median

from tests.support.server import WaypostServer, free_port

from benchmarks.measure import Figure, at_least, cores, pin, spread
from benchmarks.nginx import nginx
from benchmarks.wrk import Round, Wrk

HOST = "docker.acme.example"
NAME = "acme/skates"
CONFIG = """
base_domain = "waypost.example"
[[package]]
type = "container"
name = "{name}"
domain = "{host}"
upstream = "reg.example/{name}"
[[upstream]]
host = "reg.example"
connect = "http://127.0.0.1:{port}"
"""
MB = 1_000_000
SIZES = (MB, 100 * MB)
CONNECTIONS = 8

_UPSTREAM = """
    sendfile on; tcp_nopush on;
    server {{ listen 127.0.0.1:{port}; root {root}; access_log off; }}
"""
# By default nginx reads ahead of a slow client into files; `proxy_max_temp_file_size 0` keeps it to its buffers.
_PROXIES = """
    upstream registry {{ server 127.0.0.1:{upstream}; keepalive 32; }}
    proxy_http_version 1.1; proxy_set_header Connection "";
    server {{ listen 127.0.0.1:{plain}; location / {{ proxy_pass http://registry; }} }}
    server {{ listen 127.0.0.1:{fileless}; location / {{ proxy_pass http://registry; proxy_max_temp_file_size 0; }} }}
"""


def blob(root: Path, size: int) -> str:
    """Makes a blob that the upstream serves; its path."""
    content = os.urandom(size)
    path = f"/v2/{NAME}/blobs/sha256:{hashlib.sha256(content).hexdigest()}"
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return path


def run(quick: bool) -> list[Figure]:
    seconds, rounds = (1, 2) if quick else (3, 7)
    core, other = cores()
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        root = folder / "files"
        wrks = {
            size: Wrk(
                folder / f"{size}.lua",
                [f"GET {blob(root, size)} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()],
                other,
                CONNECTIONS,
            )
            for size in SIZES
        }
        upstream, plain, fileless = free_port(), free_port(), free_port()
        proxies = _PROXIES.format(upstream=upstream, plain=plain, fileless=fileless)
        config = CONFIG.format(name=NAME, host=HOST, port=upstream)
        with (
            nginx(folder / "upstream", other, _UPSTREAM.format(port=upstream, root=root)),
            nginx(folder / "nginx", core, proxies) as theirs,
        ):
            server = WaypostServer(folder, config, workers=1).start()
            try:
                console, worker = server.children()
                pin(server.pid, other)
                pin(worker, core)
                pin(console, other, idle=True)
                for size, wrk in wrks.items():
                    ways = ((server.port, worker), (plain, theirs), (fileless, theirs))
                    for port, pid in ways:
                        wrk.round(port, pid, 1)
                    found: list[list[Round]] = [[], [], []]
                    for _ in range(rounds):
                        for (port, pid), into in zip(ways, found, strict=True):
                            into.append(wrk.round(port, pid, seconds))
                    figures += _figures(size, *found)
            finally:
                server.stop()
    return figures


def _figures(size: int, ours: list[Round], plain: list[Round], fileless: list[Round]) -> list[Figure]:
    what = f"blobs of {size // MB} MB"
    figures = []
    for how, theirs in (("proxy_pass", plain), ("proxy_pass without files", fileless)):
        ratios = [one.flow / other.flow for one, other in zip(ours, theirs, strict=True)]
        figures += [
            at_least(f"{what}, bytes per CPU second / nginx `{how}`, median of {len(ratios)}", median(ratios), 0.5),
            Figure("the same, each round", spread(ratios)),
        ]
    flows = ", ".join(f"{median(one.flow for one in rounds) / MB:,.0f}" for rounds in (ours, plain, fileless))
    walls = ", ".join(
        f"{median(one.size / one.wall for one in rounds) / MB:,.0f}" for rounds in (ours, plain, fileless)
    )
    return [
        *figures,
        Figure("MB per CPU second: Waypost, nginx, nginx without files", flows),
        Figure("MB per second by the clock, one core each and a third for all else", walls),
    ]
