"""npm packuments: what it costs to make one with links to ourselves, and what others notice of it.

First the making alone, in this process. Then a server with one worker: small kept packuments and tarballs against
plain redirects, by turns, with wrk on the other core; and a large packument beside plain redirects.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.support.server import WaypostServer, free_port

from benchmarks import clients
from benchmarks.measure import Figure, at_most, cores, microseconds, pin, spread
from benchmarks.nginx import nginx
from benchmarks.waits import drained, said, waits
from benchmarks.wrk import Round, Wrk
from waypost.artifacts import packument

HOST = "npm.acme.example"
PACKAGES, VERSIONS, MANY = 50, 20, 3_000
CONNECTIONS = 32
ACCEPT = f"{packument.ABBREVIATED}; q=1.0, {packument.FULL}; q=0.8, */*"
AGENTS = ("npm/11.19.1 node/v20.20.2 linux x64 workspaces/false", "pnpm/12.21.0 npm/? node/? linux x64", "curl/8.14.1")
_PACKAGE = """
[[package]]
type = "npm"
name = "{name}"
owner = "acme"
domain = "{host}"
upstream = "https://registry.example"
"""
_UPSTREAM = """
    server {{
        listen 127.0.0.1:{port};
        root {root};
        default_type application/vnd.npm.install-v1+json;
    }}
"""


def document(name: str, versions: int) -> bytes:
    """A short packument as registries give it: about 1.6 KB for each version."""

    def one(number: int) -> dict[str, object]:
        version = f"1.{number}.0"
        return {
            "name": name,
            "version": version,
            "dependencies": {f"dependency-{index}": "^1.0.0" for index in range(40)},
            "bin": {name: "bin/cli.js"},
            "engines": {"node": ">=18"},
            "dist": {
                "integrity": f"sha512-{number:086d}==",
                "shasum": f"{number:040x}",
                "tarball": f"https://registry.example/{name}/-/{name}-{version}.tgz",
                "fileCount": 27,
                "unpackedSize": 123_456,
                "signatures": [{"keyid": "SHA256:jl3bwswu80PjjokCgh0o2w5c2U4LhQAE57gj9cz1kzA", "sig": "M" * 96}],
            },
        }

    every = {f"1.{number}.0": one(number) for number in range(versions)}
    return json.dumps({"name": name, "dist-tags": {"latest": f"1.{versions - 1}.0"}, "versions": every}).encode()


@contextmanager
def serving(folder: Path, packages: dict[str, int]) -> Iterator[tuple[WaypostServer, int, int]]:
    """A server with one worker, its worker's process id, and the other core."""
    core, other = cores()
    root, upstream = folder / "files", free_port()
    root.mkdir()
    for name, versions in packages.items():
        (root / name).write_bytes(document(name, versions))
    config = clients.CONFIG + "".join(_PACKAGE.format(name=name, host=HOST) for name in packages)
    config += f'[[upstream]]\nhost = "registry.example"\nconnect = "http://127.0.0.1:{upstream}"\n'
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
    return [*_making(quick), *_small(quick), *_large(quick)]


def _making(quick: bool) -> list[Figure]:
    figures = []
    for versions, bound in ((MANY, 100.0), (MANY if quick else MANY * 10, None)):
        body = document("skates", versions)

        def make(body: bytes = body) -> None:
            packument.kept(body, "skates", "https://registry.example/skates", f"https://{HOST}/skates/-/")

        cost = microseconds(make, 1, 3 if quick else 9) / 1000
        what = f"CPU of making a packument of {len(body) / 1e6:.1f} MB, {versions:,} versions"
        figures.append(Figure(what, f"{cost:.0f} ms") if bound is None else at_most(what, cost, bound, " ms"))
        taken = microseconds(lambda body=body: json.dumps(json.loads(body)), 1, 3) / 1000  # type: ignore[misc]
        figures.append(Figure("… of decoding and encoding it with Python's own json", f"{taken:.0f} ms"))
    return figures


def _requests(paths: list[str]) -> list[bytes]:
    return [
        f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: {agent}\r\nAccept: {ACCEPT}\r\n"
        "Accept-Encoding: gzip,deflate,br\r\nConnection: keep-alive\r\n\r\n".encode()
        for path in paths
        for agent in AGENTS
    ]


def _small(quick: bool) -> list[Figure]:
    seconds, rounds = (1, 2) if quick else (3, 7)
    packages = {f"skates-{number}": VERSIONS for number in range(PACKAGES)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with serving(folder, packages) as (server, worker, other):
            ways = [
                Wrk(folder / f"{what}.lua", asked, other, CONNECTIONS)
                for what, asked in (
                    ("packument", _requests([f"/{one}" for one in packages])),
                    ("tarball", _requests([f"/{one}/-/{one}-1.7.0.tgz" for one in packages])),
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
    # Each packument is confirmed once a minute.
    assert fetches <= PACKAGES * rounds, f"{fetches:.0f} questions to the upstream for {answered} answers"
    packuments, tarballs, redirects = found
    figures = []
    for what, ours in (("kept packument", packuments), ("redirect to a tarball of a kept packument", tarballs)):
        ratios = [one.cost / plain.cost for one, plain in zip(ours, redirects, strict=True)]
        figures += [
            at_most(f"{what} of {VERSIONS} versions / counted redirect, median of {rounds}", median(ratios), 3, " ×"),
            Figure("the same, each round", spread(ratios)),
        ]
    costs = ", ".join(f"{median(one.cost for one in rounds_of):.1f} µs" for rounds_of in found)
    return [*figures, Figure("CPU of a packument, of a tarball, of a plain redirect", costs)]


def _large(quick: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        names = [f"skates-{number}" for number in range(2 if quick else 10)]
        with serving(folder, dict.fromkeys(names, MANY)) as (server, _, _):
            alone = waits(server, lambda: time.sleep(2 if quick else 5))
            first: list[float] = []
            making = waits(server, lambda: first.extend(_packument(server, one) for one in names))
            again: list[float] = []
            giving = waits(server, lambda: again.extend(_packument(server, one) for one in names * 5))
            leading = waits(server, lambda: [_tarball(server, names[0], number) for number in range(500)])
    return [
        Figure(f"a packument of {MANY:,} versions, until its first client has it", f"{median(first) * 1000:.0f} ms"),
        Figure("… and when it is kept", f"{median(again) * 1000:.0f} ms"),
        Figure("a plain redirect alone: median, 99 % within, worst", said(alone)),
        Figure("… while such packuments are fetched and made, one after another", said(making)),
        Figure("… while kept ones are given out, one after another", said(giving)),
        Figure("… while tarballs of it are redirected, one after another", said(leading)),
    ]


def _packument(server: WaypostServer, name: str) -> float:
    start = time.perf_counter()
    status, _, body = server.get(HOST, f"/{name}", headers={"Accept": ACCEPT})
    assert status == 200, body
    return time.perf_counter() - start


def _tarball(server: WaypostServer, name: str, number: int) -> None:
    path = f"/{name}/-/{name}-1.{number}.0.tgz"
    status, headers, _ = server.get(HOST, path)
    assert status == 307
    assert headers["location"] == f"https://registry.example{path}"
