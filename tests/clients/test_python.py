"""Python projects, installed by pip, uv and poetry from pypiserver and from a static index that speaks JSON.

Users name one index. `skates` (pypiserver) and `boots` (static) are declared; `laces`, which skates needs, is not, and
comes from the domain's fallback.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.clients.indexes import StaticIndex, pypiserver, sdist, wheel
from tests.clients.pulls import HOST, Event, Waypost
from tests.support.server import free_port, until

# C6 merges what one source fetches again within some seconds: so each test has a version of its own.
VERSIONS = [f"1.{number}" for number in range(20)]
SKATES = {version: wheel("skates", version, f"boots=={version}", "laces") for version in VERSIONS}
BOOTS = {version: wheel("boots", version) for version in VERSIONS}
SOURCE = sdist("poles", "0.5")
LACES = wheel("laces", "3.0")
HELMETS = wheel("helmets", "1.0")
BIN = Path(sys.executable).parent


class House:
    """A running Waypost, what stands behind it, and how many downloads it is to have counted so far."""

    def __init__(
        self, waypost: Waypost, static: StaticIndex, fallback: StaticIndex, main: StaticIndex, pypi: str
    ) -> None:
        self.waypost = waypost
        self.static = static
        self.fallback = fallback
        self.main = main
        self.pypi = pypi
        self.url = f"http://{waypost.address}/simple/"
        self._taken = 0
        self.versions = iter(VERSIONS)

    def counted(self) -> list[Event]:
        return [event for event in self.waypost.events() if event["counted"]]

    def take(self, many: int) -> list[tuple[str, ...]]:
        """What was counted since the last time. If there is more of it, `check` fails in the end."""
        until(lambda: len(self.counted()) >= self._taken + many, what=f"{many} downloads")
        new = self.counted()[self._taken :]
        self._taken += many
        keys = ("package", "artifact", "version", "platform", "client")
        return sorted(tuple(str(event.get(key)) for key in keys) for event in new)

    def check(self) -> None:
        assert self.waypost.server.stop() == 0
        assert len(self.counted()) == self._taken
        kinds = {event["kind"] for event in self.waypost.events()}
        assert kinds == {"binary-download", "index-fetch"}
        # C11: nothing of what the fallback has; C3: no metadata.
        assert {event["package"] for event in self.waypost.events()} <= {"skates", "boots", "poles", "helmets"}
        assert not [event for event in self.waypost.events() if str(event.get("artifact")).endswith(".metadata")]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("packages")
    for name, data in (*SKATES.values(), SOURCE):
        (folder / name).write_bytes(data)
    static, fallback, main = StaticIndex(), StaticIndex(), StaticIndex()
    for version in VERSIONS:
        static.add("boots", *BOOTS[version])
    static.add("helmets", *HELMETS)
    static.add("helmets", *wheel("helmets", "1.5"), yanked="too soft")
    static.add("helmets", *wheel("helmets", "2.0"), **{"requires-python": ">=99"})
    fallback.add("laces", *LACES)
    main.add("laces", *LACES)
    # Somebody else took the name of a project of ours: nobody must get this one.
    fallback.add("boots", *wheel("boots", "99.0"))
    fallback.add("skates", *wheel("skates", "99.0"))
    dead = f"127.0.0.1:{free_port()}"
    with pypiserver(folder) as pypi:
        there = pypi.split("/")[2]
        config = f"""
base_domain = "waypost.example"
owner = "acme"
[[domain]]
host = "{HOST}"
fallback = "{fallback.url}"
"""
        for name, upstream in [
            ("skates", f'"pip install skates --extra-index-url {pypi}"'),
            ("poles", f'"{pypi}"'),
            ("boots", f'"{static.url}"'),
            ("helmets", f'["http://{dead}/simple/", "{static.url}"]'),
        ]:
            config += f'[[package]]\ntype = "python"\nname = "{name}"\ndomain = "{HOST}"\nupstream = {upstream}\n'
        for one in (there, static.address, dead):
            config += f'[[upstream]]\nhost = "{one}"\nconnect = "http://{one}"\n'
        waypost = Waypost(tmp_path_factory.mktemp("waypost"), config)
        made = House(waypost, static, fallback, main, pypi)
        try:
            yield made
            made.check()
        finally:
            waypost.server.stop()
            static.close()
            fallback.close()
            main.close()


@pytest.fixture(scope="module")
def pip23(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with the pip that it brings along: 23 with Python 3.11."""
    folder = tmp_path_factory.mktemp("old")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return str(folder / "bin/python")


class Shell:
    """Runs clients with a home of their own and nobody's settings, and installs into a fresh environment."""

    def __init__(self, home: Mapping[str, str], folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **home,
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_NO_CONFIG": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "POETRY_VIRTUALENVS_IN_PROJECT": "true",
            "POETRY_KEYRING_ENABLED": "false",
            "POETRY_VIRTUALENVS_OPTIONS_NO_PIP": "true",
        }

    def run(self, *command: str, folder: Path | None = None) -> str:
        done = subprocess.run(
            command, env=self.environment, cwd=folder or self.folder, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def fresh(self, name: str) -> str:
        """The python of a new, empty environment."""
        self.run(sys.executable, "-m", "venv", "--without-pip", name)
        return str(self.folder / name / "bin/python")


@pytest.fixture
def shell(home: Mapping[str, str], tmp_path: Path) -> Shell:
    return Shell(home, tmp_path)


@pytest.fixture(params=["pip23", "pip", "uv"])
def client(request: pytest.FixtureRequest, pip23: str) -> tuple[str, list[str]]:
    """(the client's name, what `install` begins with)."""
    if request.param == "uv":
        return "uv", [str(BIN / "uv"), "pip", "install", "--no-cache", "--python"]
    pip = pip23 if request.param == "pip23" else sys.executable
    return "pip", [pip, "-m", "pip", "--python"]


def install(shell: Shell, client: tuple[str, list[str]], python: str, *arguments: str) -> str:
    name, command = client
    if name == "pip":
        return shell.run(*command, python, "install", "--no-cache-dir", *arguments)
    return shell.run(*command, python, *arguments)


def installed(python: str) -> dict[str, bytes]:
    """Project → its module."""
    (folder,) = Path(python).parent.parent.glob("lib/python*/site-packages")
    return {path.stem: path.read_bytes() for path in folder.glob("*.py") if not path.stem.startswith("_")}


def whole(version: str) -> dict[str, bytes]:
    """What is there once skates is installed."""
    return {
        name: f'VERSION = "{one}"\n'.encode()
        for name, one in [("skates", version), ("boots", version), ("laces", "3.0")]
    }


def downloads(client: str, *wheels: tuple[str, bytes]) -> list[tuple[str, ...]]:
    return sorted((name.split("-")[0], name, name.split("-")[1], "any", client) for name, _ in wheels)


def hashed(*wheels: tuple[str, bytes]) -> str:
    """Lines of a requirements.txt."""
    pairs = ((name.split("-"), hashlib.sha256(data).hexdigest()) for name, data in wheels)
    return "".join(f"{name}=={version} --hash=sha256:{digest}\n" for (name, version, *_), digest in pairs)


def test_one_index_is_all_that_users_need(house: House, shell: Shell, client: tuple[str, list[str]]) -> None:
    version, python = next(house.versions), shell.fresh("one")
    install(shell, client, python, "--index-url", house.url, f"skates=={version}")
    assert installed(python) == whole(version)
    assert house.take(2) == downloads(client[0], SKATES[version], BOOTS[version])
    assert any(path.endswith(f"{BOOTS[version][0]}.metadata") for path in house.static.asked)
    # Up to date: nothing is downloaded, and nothing counted.
    install(shell, client, python, "--index-url", house.url, f"skates=={version}")
    house.take(0)
    # What is declared never comes from elsewhere, not even in a higher version.
    assert not [path for path in house.fallback.asked if "skates" in path or "boots" in path]


def test_the_second_upstream_serves_and_its_words_are_kept(
    house: House, shell: Shell, client: tuple[str, list[str]]
) -> None:
    """Neither the version that was yanked, nor the one for another Python."""
    python = shell.fresh("second")
    install(shell, client, python, "--index-url", house.url, "helmets")
    assert installed(python) == {"helmets": b'VERSION = "1.0"\n'}
    assert house.take(1) == downloads(client[0], HELMETS)


def test_hashes_are_required(house: House, shell: Shell, client: tuple[str, list[str]]) -> None:
    version, python = next(house.versions), shell.fresh("hashed")
    (shell.folder / "requirements.txt").write_text(hashed(SKATES[version], BOOTS[version], LACES))
    install(shell, client, python, "--index-url", house.url, "--require-hashes", "-r", "requirements.txt")
    assert installed(python) == whole(version)
    assert house.take(2) == downloads(client[0], SKATES[version], BOOTS[version])


def test_an_extra_index_works_though_one_is_enough(house: House, shell: Shell, client: tuple[str, list[str]]) -> None:
    """As a line of requirements.txt. Which index a client takes a project from is then its own affair: hence ==."""
    version, python = next(house.versions), shell.fresh("extra")
    (shell.folder / "requirements.txt").write_text(f"--extra-index-url {house.url}\nskates=={version}\n")
    install(shell, client, python, "--index-url", house.main.url, "-r", "requirements.txt")
    assert installed(python) == whole(version)
    assert house.take(2) == downloads(client[0], SKATES[version], BOOTS[version])


def test_a_source_distribution(house: House, shell: Shell, client: tuple[str, list[str]]) -> None:
    python = shell.fresh("source")
    install(shell, client, python, "--index-url", house.url, "poles")
    assert installed(python) == {"poles": b'VERSION = "0.5"\n'}
    assert house.take(1) == [("poles", SOURCE[0], "0.5", "None", client[0])]


def test_the_bytes_are_the_origins(house: House) -> None:
    """Through the redirect, as any client follows it."""
    version = next(house.versions)
    for name, data in (SKATES[version], BOOTS[version], SOURCE):
        with urllib.request.urlopen(f"{house.url}{name.split('-')[0]}/{name}") as answer:
            assert answer.read() == data
    assert [event[0] for event in house.take(3)] == ["boots", "poles", "skates"]


def test_a_uv_lock_names_the_gateway_and_installs_later(house: House, shell: Shell) -> None:
    version = next(house.versions)
    (shell.folder / "pyproject.toml").write_text(f"""
[project]
name = "rink"
version = "0"
requires-python = ">=3.11"
dependencies = ["skates=={version}"]
[[tool.uv.index]]
url = "{house.url}"
default = true
""")
    del shell.environment["UV_NO_CONFIG"]  # which would leave out the table above, too
    shell.environment["UV_PYTHON"] = sys.executable
    uv = [str(BIN / "uv"), "--no-cache"]
    shell.run(*uv, "lock")
    lock = tomllib.loads((shell.folder / "uv.lock").read_text())
    for package in lock["package"]:
        if package["name"] in ("skates", "boots"):
            assert package["source"] == {"registry": house.url}
            assert [one["url"].startswith(house.url) for one in package["wheels"]] == [True]
            assert package["wheels"][0]["hash"].startswith("sha256:")
    # To know what skates needs uv has read the wheel: pypiserver has no metadata file for it. Of boots there is one.
    assert house.take(1) == downloads("uv", SKATES[version])
    shell.run(*uv, "sync", "--frozen")
    assert installed(str(shell.folder / ".venv/bin/python")) == whole(version)
    assert house.take(2) == downloads("uv", SKATES[version], BOOTS[version])


def test_a_poetry_lock_holds_hashes_and_names_the_gateway(house: House, shell: Shell) -> None:
    version = next(house.versions)
    (shell.folder / "pyproject.toml").write_text(f"""
[tool.poetry]
package-mode = false
[tool.poetry.dependencies]
python = ">=3.11,<4"
skates = "{version}"
[[tool.poetry.source]]
name = "gateway"
url = "{house.url}"
priority = "primary"
""")
    poetry = str(BIN / "poetry")
    shell.run(poetry, "lock", "--no-interaction")
    text = (shell.folder / "poetry.lock").read_text()
    assert house.pypi.split("/")[2] not in text
    assert house.static.address not in text
    packages = {package["name"]: package for package in tomllib.loads(text)["package"]}
    for name, (file, data) in (("skates", SKATES[version]), ("boots", BOOTS[version])):
        assert packages[name]["source"]["url"] == house.url.removesuffix("/")
        digest = hashlib.sha256(data).hexdigest()
        assert packages[name]["files"] == [{"file": file, "hash": f"sha256:{digest}"}]
    shell.run(poetry, "install", "--no-interaction")
    assert installed(str(shell.folder / ".venv/bin/python")) == whole(version)
    assert house.take(2) == downloads("poetry", SKATES[version], BOOTS[version])
