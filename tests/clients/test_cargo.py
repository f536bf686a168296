"""cargo, through Waypost, from sparse registries on loopback."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients.pulls import Waypost, run
from tests.clients.trees import Tree, counted, download, lose, mirrored

# Crate → what it needs. One is spelled with a capital letter: its folder in the index is not.
NEEDS = {"Rocket_Skates": ["wheel"], "wheel": []}
VERSION = "1.2.0"


def crate(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        needs = "".join(f'{other} = {{ version = "1", registry-index = "{REGISTRY}" }}\n' for other in NEEDS[name])
        for file, text in {
            "Cargo.toml": f'[package]\nname = "{name}"\nversion = "{VERSION}"\nedition = "2021"\n[dependencies]\n{needs}',
            "src/lib.rs": f'pub const NAME: &str = "{name}";\n',
        }.items():
            info = tarfile.TarInfo(f"{name}-{VERSION}/{file}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)


# What a crate calls the registry of its own needs is not asked: the index says that they are from the same one.
REGISTRY = "sparse+https://index.example/"
CRATES = {name: crate(name) for name in NEEDS}


def publish(root: Path) -> Tree:
    """A registry that is index, store of crates and web service in one."""
    for name, content in CRATES.items():
        checksum = hashlib.sha256(content).hexdigest()
        lower = name.lower()
        entry = root / lower[:2] / lower[2:4] / lower
        entry.parent.mkdir(parents=True)
        deps = [
            {"name": other, "req": "^1", "features": [], "optional": False, "default_features": True, "target": None,
             "kind": "normal", "registry": None, "package": None}
            for other in NEEDS[name]
        ]  # fmt: skip
        line = {"name": name, "vers": VERSION, "deps": deps, "cksum": checksum, "features": {}, "yanked": False}
        entry.write_text(json.dumps(line) + "\n")
        file = root / "store" / name / f"{VERSION}-{checksum}.crate"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    api = root / "web/api/v1/crates"
    api.parent.mkdir(parents=True)
    found = [{"name": "wheel", "max_version": VERSION, "description": "round"}]
    api.write_text(json.dumps({"crates": found, "meta": {"total": 1}}))
    tree = Tree(root)
    config = {"dl": f"{tree.url}/store/{{crate}}/{{version}}-{{sha256-checksum}}.crate", "api": f"{tree.url}/web"}
    (root / "config.json").write_text(json.dumps(config))
    return tree


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[tuple[Tree, Tree]]:
    both = publish(tmp_path / "one"), publish(tmp_path / "two")
    yield both
    for tree in both:
        tree.close()


@pytest.fixture
def waypost(tmp_path: Path, trees: tuple[Tree, Tree]) -> Iterator[Waypost]:
    one = Waypost(tmp_path, mirrored("cargo", [tree.url for tree in trees]))
    yield one
    one.server.stop()


class Project:
    """A crate that needs Rocket_Skates, and a cargo that has nothing yet."""

    def __init__(self, folder: Path, waypost: Waypost) -> None:
        (folder / "src").mkdir(parents=True)
        (folder / "src/main.rs").write_text('fn main() { println!("{}", Rocket_Skates::NAME) }\n')
        (folder / "Cargo.toml").write_text(
            '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n'
            '[dependencies]\nRocket_Skates = { version = "1", registry = "acme" }\n'
        )
        (folder / ".cargo").mkdir()
        (folder / ".cargo/config.toml").write_text(
            f'[registries.acme]\nindex = "sparse+http://{waypost.address}/"\n[net]\nretry = 0\n'
        )
        self.folder = folder
        # rustup, where cargo is installed by that, keeps compilers elsewhere than cargo its crates.
        rustup = os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup"))
        self._home = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CARGO_HOME": str(folder / "home"),
            "RUSTUP_HOME": rustup,
        }

    def cargo(self, *words: str) -> str:
        return run(self._home, "env", f"--chdir={self.folder}", "cargo", *words)

    def fetched(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.glob("home/registry/cache/*/*.crate")}


def test_each_crate_counts_once(tmp_path: Path, waypost: Waypost, trees: tuple[Tree, Tree]) -> None:
    first, second = trees
    project = Project(tmp_path / "app", waypost)
    project.cargo("fetch")
    assert project.fetched() == {f"{name}-{VERSION}.crate": content for name, content in CRATES.items()}
    events = waypost.take(5)  # with config.json and two files of the index
    assert sorted(counted(events), key=str) == sorted(
        [download(name, VERSION, "cargo", first) for name in CRATES], key=str
    )
    assert project.cargo("run", "--quiet", "--offline").strip() == "Rocket_Skates"
    lock = (project.folder / "Cargo.lock").read_text()
    assert f"sparse+http://{waypost.address}/" in lock
    assert first.authority not in lock
    # What is there is not asked for again; whether there is more is asked of the index alone.
    project.cargo("fetch", "--locked")
    project.cargo("update")
    assert counted(waypost.take(3)) == []
    assert "wheel = " in project.cargo("search", "--registry", "acme", "wheel")
    assert first.asked_for("/web/api/v1/crates") == 1
    assert not second.asked_for("")
    waypost.stop()


def test_while_the_first_upstream_is_down_the_second_serves(
    tmp_path: Path, waypost: Waypost, trees: tuple[Tree, Tree]
) -> None:
    first, second = trees
    lose(waypost, first, "/wh/ee/wheel")
    Project(tmp_path / "app", waypost).cargo("fetch")
    assert sorted(counted(waypost.take(5)), key=str) == sorted(
        [download(name, VERSION, "cargo", second) for name in CRATES], key=str
    )
    waypost.stop()
