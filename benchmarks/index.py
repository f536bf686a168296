"""Python indexes: CPU of a kept page and of a file's redirect, and what a page of 100,000 files does to others.

Pages, files and plain redirects take turns in one run, by one worker, with wrk on the other core. Then a worker is
asked for the large page while somebody else asks for plain redirects, one after another.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.support.server import WaypostServer, free_port

from benchmarks import clients
from benchmarks.measure import Figure, at_most, cores, cpu_seconds, pin, spread
from benchmarks.nginx import nginx
from benchmarks.waits import drained, said, waits
from benchmarks.wrk import Round, Wrk

HOST = "pypi.acme.example"
PROJECTS, FILES, MANY = 50, 20, 100_000
CONNECTIONS = 32
JSON = "application/vnd.pypi.simple.v1+json"
# As clients send them, Host left out.
KINDS = (
    (
        ("User-Agent", clients.KINDS[2][0][1]),
        ("Accept-Encoding", "gzip, deflate"),
        ("Accept", f"{JSON}, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"),
        ("Connection", "keep-alive"),
        ("Cache-Control", "max-age=0"),
    ),
    (
        ("User-Agent", 'uv/0.13.9 {"installer":{"name":"uv","version":"0.13.9","subcommand":["sync"]},"ci":null}'),
        ("Accept", f"{JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"),
        ("Accept-Encoding", "gzip, br, zstd"),
    ),
    (("User-Agent", "curl/8.14.1"), ("Accept", "*/*")),
)
_PACKAGE = """
[[package]]
type = "python"
name = "{name}"
owner = "acme"
domain = "{host}"
upstream = "http://pypi.example/simple/"
"""
_UPSTREAM = """
    server {{
        listen 127.0.0.1:{port};
        root {root};
        default_type text/html;
        location / {{ index index.html; }}
    }}
"""


def file_name(project: str, number: int) -> str:
    return f"{project}-1.{number}-cp311-cp311-manylinux_2_17_x86_64.whl"


def lay_out(root: Path, project: str, many: int) -> int:
    """A page as its upstream serves it; its bytes."""
    lines = [
        f'<a href="https://files.example/{number % 256:02x}/{file_name(project, number)}#sha256={number:064x}" '
        f'data-requires-python="&gt;=3.11" data-core-metadata="true">{file_name(project, number)}</a><br>'
        for number in range(many)
    ]
    page = "\n".join(["<!DOCTYPE html><html><body>", *lines, "</body></html>"])
    folder = root / "simple" / project
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(page)
    return len(page)


def requests(paths: list[str]) -> list[bytes]:
    return [
        f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n".encode()
        + "".join(f"{name}: {value}\r\n" for name, value in kind).encode()
        + b"\r\n"
        for path in paths
        for kind in KINDS
    ]


@contextmanager
def serving(folder: Path, projects: dict[str, int]) -> Iterator[tuple[WaypostServer, int, int]]:
    """A server with one worker, its worker's process id, and the other core."""
    core, other = cores()
    root, upstream = folder / "files", free_port()
    for project, many in projects.items():
        lay_out(root, project, many)
    config = clients.CONFIG + "".join(_PACKAGE.format(name=name, host=HOST) for name in projects)
    config += f'[[upstream]]\nhost = "pypi.example"\nconnect = "http://127.0.0.1:{upstream}"\n'
    with nginx(folder / "upstream", other, _UPSTREAM.format(port=upstream, root=root)):
        server = WaypostServer(folder, config, workers=1).start()
        try:
            console, worker = server.children()
            pin(server.pid, other)
            pin(worker, core)
            pin(console, other, idle=True)
            yield server, worker, other
        finally:
            server.stop()


def run(quick: bool) -> list[Figure]:
    return [*_small(quick), *_large(quick)]


def _small(quick: bool) -> list[Figure]:
    seconds, rounds = (1, 2) if quick else (3, 7)
    projects = {f"skates-{number}": FILES for number in range(PROJECTS)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with serving(folder, projects) as (server, worker, other):
            ways = [
                Wrk(folder / f"{what}.lua", asked, other, CONNECTIONS)
                for what, asked in (
                    ("page", requests([f"/simple/{one}/" for one in projects])),
                    ("file", requests([f"/simple/{one}/{file_name(one, 7)}" for one in projects])),
                    ("redirect", [clients.raw(number) for number in range(4000)]),
                )
            ]
            for wrk in ways:
                wrk.round(server.port, worker, 1)
            drained(server)
            fetches = server.metric("waypost_fetches_total")
            found: list[list[Round]] = [[] for _ in ways]
            for _ in range(rounds):
                for wrk, into in zip(ways, found, strict=True):
                    into.append(wrk.round(server.port, worker, seconds))
                    drained(server)
            fetches = server.metric("waypost_fetches_total") - fetches
    answered = sum(one.answers for rounds_of in found for one in rounds_of)
    # Each page is confirmed once a minute.
    assert fetches <= PROJECTS * rounds, f"{fetches:.0f} questions to the upstream for {answered} answers"
    pages, files, redirects = found
    figures = []
    for what, ours in (("kept page", pages), ("redirect to a file of a kept page", files)):
        ratios = [one.cost / plain.cost for one, plain in zip(ours, redirects, strict=True)]
        figures += [
            at_most(f"{what} of {FILES} files / counted redirect, median of {rounds}", median(ratios), 3, " ×"),
            Figure("the same, each round", spread(ratios)),
        ]
    costs = ", ".join(f"{median(one.cost for one in rounds_of):.1f} µs" for rounds_of in found)
    return [*figures, Figure("CPU of a page, of a file, of a plain redirect", costs)]


def _large(quick: bool) -> list[Figure]:
    many = MANY // 10 if quick else MANY
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with serving(folder, {"skates": many}) as (server, worker, _):
            alone = waits(server, lambda: time.sleep(5))
            before, peak = cpu_seconds(worker), _peak(worker)
            told: list[tuple[float, int]] = []
            making = waits(server, lambda: told.append(_page(server)))
            cpu, peak = cpu_seconds(worker) - before, _peak(worker) - peak
            giving = waits(server, lambda: [told.append(_page(server)) for _ in range(10)])
            leading = waits(server, lambda: [_file(server, many - number) for number in range(1, 200)])
    (first, size), *again = told
    return [
        Figure(f"a page of {many:,} files, until its first client has it", f"{first:.2f} s ({size / 1e6:.0f} MB)"),
        Figure("… and when it is kept, median of 10", f"{median(one for one, _ in again):.2f} s"),
        Figure("CPU of the first, plain redirects beside it included", f"{cpu:.2f} s"),
        Figure("memory of the worker at its highest, beyond what it had before", f"{peak / 1e6:.0f} MB"),
        Figure("a plain redirect alone: median, 99 % within, worst", said(alone)),
        Figure("… while the page is fetched and made", said(making)),
        Figure("… while the kept page is given out, one after another", said(giving)),
        Figure("… while files of it are redirected, one after another", said(leading)),
    ]


def _page(server: WaypostServer) -> tuple[float, int]:
    start = time.perf_counter()
    status, _, body = server.get(HOST, "/simple/skates/", headers={"Accept": JSON})
    assert status == 200, body
    return time.perf_counter() - start, len(body)


def _file(server: WaypostServer, number: int) -> None:
    status, headers, _ = server.get(HOST, f"/simple/skates/{file_name('skates', number)}")
    assert status == 307
    assert headers["location"].startswith("https://files.example/")


def _peak(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024
