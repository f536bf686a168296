"""containerd and dockerd, started for tests with folders and sockets of their own; both need root.

Where they cannot run, their tests fail, so that nobody takes silence for success. WAYPOST_NO_DOCKERD=1 skips them
loudly.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.clients.pulls import run
from tests.support.server import until

# Machines may have another `docker` command before Debian's.
DOCKER = "/usr/bin/docker"
WITHOUT_DOCKERD = "WAYPOST_NO_DOCKERD"
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


@contextmanager
def daemon(folder: Path, name: str, *command: str) -> Iterator[None]:
    """A process that runs meanwhile. If anything fails while it does, the end of its log is told, too."""
    log = folder / f"{name}.log"
    env = {"PATH": PATH, "HOME": str(folder), "TMPDIR": str(folder)}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=env)
    try:
        yield
    except BaseException as error:
        error.add_note(log.read_text()[-3000:])
        raise
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


def _goes_without() -> bool:
    """Whether the operator said so. Nothing else may skip these tests."""
    return os.environ.get(WITHOUT_DOCKERD) == "1"


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """For sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="wp") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def containerd(folder: Path) -> Iterator[str]:
    """The socket of a containerd."""
    if os.geteuid() != 0:
        if _goes_without():
            pytest.skip(f"{WITHOUT_DOCKERD}=1, not root: NOT VERIFIED that containerd pulls and is counted right")
        pytest.fail(
            f"containerd and dockerd need root; set {WITHOUT_DOCKERD}=1 to go without knowing whether they work"
        )
    socket = f"{folder}/containerd.sock"
    config = folder / "containerd.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/containerd"\nstate = "{folder}/containerd-state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{socket}"\n'
    )
    with daemon(folder, "containerd", "containerd", "--config", str(config)):
        until(lambda: answers("ctr", "--address", socket, "version"), what="containerd to answer")
        yield socket


@pytest.fixture(scope="session")
def docker_host(folder: Path, containerd: str) -> Iterator[str]:
    """The address of a dockerd, which keeps its images apart and leaves the machine's network alone."""
    if _goes_without():
        pytest.skip(f"{WITHOUT_DOCKERD}=1: NOT VERIFIED that docker pulls through Waypost and is counted right")
    if shutil.which("dockerd", path=PATH) is None:
        pytest.fail(f"no dockerd on this machine; install docker.io, or set {WITHOUT_DOCKERD}=1 to go without")
    address = f"unix://{folder}/docker.sock"
    (folder / "daemon.json").write_text("{}")
    command = (
        "dockerd", "--config-file", f"{folder}/daemon.json", "--host", address, "--containerd", containerd,
        "--data-root", f"{folder}/docker", "--exec-root", f"{folder}/docker-exec", "--pidfile", f"{folder}/docker.pid",
        "--storage-driver", "vfs", "--iptables=false", "--bridge=none",
    )  # fmt: skip
    with daemon(folder, "dockerd", *command):
        try:
            until(lambda: answers(DOCKER, "--host", address, "version"), what="dockerd to answer")
        except AssertionError:
            told = (folder / "dockerd.log").read_text()[-2000:]
            pytest.fail(f"dockerd does not run here; set {WITHOUT_DOCKERD}=1 to go without. It said:\n{told}")
        yield address


def go_without_tls(folder: Path, address: str, registry: str) -> None:
    """Tells dockerd to ask a registry by http, scheme and all: the BuildKit inside it exempts no loopback."""
    (folder / "daemon.json").write_text(json.dumps({"insecure-registries": [f"http://{registry}"]}))
    os.kill(int((folder / "docker.pid").read_text()), signal.SIGHUP)
    info = (DOCKER, "--host", address, "info", "--format", "{{json .RegistryConfig.IndexConfigs}}")
    until(lambda: f'"{registry}"' in subprocess.check_output(info, text=True, timeout=20), what="dockerd to read it")


def ctr(home: dict[str, str], socket: str, *command: str) -> str:
    return run(home, "ctr", "--address", socket, *command)


def ctr_pull(home: dict[str, str], socket: str, image: str) -> str:
    return ctr(home, socket, "images", "pull", "--plain-http", "--snapshotter", "native", image)


def docker(home: dict[str, str], address: str, *command: str) -> str:
    return run(home, DOCKER, "--host", address, *command).strip()
