"""Registries that are down: what was pulled before goes on being pulled, and a second upstream stands in."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients import registries
from tests.clients.registries import Image, Registries
from tests.support.server import WaypostServer, until

HOST = "127.0.0.1"
CONFIG = """
base_domain = "waypost.example"
[containers]
tag_ttl = 1
[[package]]
type = "container"
name = "acme/once"
domain = "127.0.0.1"
upstream = "reg1.example/acme/once"
[[package]]
type = "container"
name = "acme/twice"
domain = "127.0.0.1"
upstream = ["reg1.example/acme/twice", "reg2.example/team/another-name"]
"""


@pytest.fixture
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    with registries.running(tmp_path_factory.mktemp("registries")) as started:
        yield started


@pytest.fixture
def image(upstream: Registries) -> Image:
    made = registries.multi_arch("skates")
    upstream.open.push("acme/once", "1.0", made)
    upstream.open.push("acme/twice", "1.0", made)
    upstream.guarded.push("team/another-name", "1.0", made)
    return made


@pytest.fixture
def server(upstream: Registries, image: Image, tmp_path: Path) -> Iterator[WaypostServer]:
    lines = "".join(f'[[upstream]]\nhost = "{host}"\nconnect = "{url}"\n' for host, url in upstream.connect.items())
    one = WaypostServer(tmp_path, CONFIG + lines, workers=2).start()
    yield one
    one.stop()


def skopeo(server: WaypostServer, *command: str, status: int = 0) -> str:
    with tempfile.TemporaryDirectory(prefix="wp") as home:
        done = subprocess.run(
            ["skopeo", *command],
            env={"PATH": os.environ["PATH"], "HOME": home, "XDG_RUNTIME_DIR": home, "TMPDIR": home},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def copy(server: WaypostServer, name: str, target: Path, status: int = 0) -> str:
    source = f"docker://{HOST}:{server.port}/{name}:1.0"
    return skopeo(server, "copy", "--all", "--src-tls-verify=false", source, f"dir:{target}", status=status)


def test_an_outage_is_survived(server: WaypostServer, upstream: Registries, image: Image, tmp_path: Path) -> None:
    copy(server, "acme/once", tmp_path / "before-once")
    copy(server, "acme/twice", tmp_path / "before-twice")
    upstream.open.stop()
    time.sleep(1.1)  # tags are to be old

    # Manifests: from what was kept, and they say that they are old. Both workers, and after a restart.
    for _ in range(2):
        for _ in range(6):
            status, headers, body = server.get(HOST, "/v2/acme/once/manifests/1.0", headers={"Accept": ACCEPT})
            assert (status, headers["Docker-Content-Digest"]) == (200, image.top)
            assert "no-upstream-answers" in headers["Cache-Status"]
            assert int(headers["Age"]) >= 1
        raw = skopeo(server, "inspect", "--raw", "--tls-verify=false", f"docker://{HOST}:{server.port}/acme/once:1.0")
        assert json.loads(raw) == json.loads(body)
        server.stop()
        server.start()

    # Layers are not kept: without a second upstream they are missed, and the answer says whose fault that is.
    complaint = copy(server, "acme/once", tmp_path / "after-once", status=1)
    assert "reg1.example" in complaint or "502" in complaint or "Bad Gateway" in complaint

    # With a second upstream, of another name and with tokens, the pull is whole, and the same.
    copy(server, "acme/twice", tmp_path / "after-twice")
    before, after = (
        sorted(one.name for one in (tmp_path / name).iterdir()) for name in ("before-twice", "after-twice")
    )
    assert before == after
    until(lambda: server.metric("waypost_manifest_stale_total") > 0, what="stale answers in the metrics")


def test_stale_answers_are_pulls_all_the_same(server: WaypostServer, upstream: Registries, image: Image) -> None:
    server.get(HOST, "/v2/acme/once/manifests/1.0", headers={"Accept": ACCEPT, "User-Agent": "a/1"})
    upstream.open.stop()
    time.sleep(1.1)
    server.get(HOST, "/v2/acme/once/manifests/1.0", headers={"Accept": ACCEPT, "User-Agent": "b/1"})
    until(lambda: server.metric("waypost_stored_total") == 2, what="two events")
    assert server.command("stats", "--format", "csv").splitlines()[1] == "acme/once,2,2,0,0,0"


ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json"
