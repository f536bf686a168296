"""The go command, through Waypost, from a module proxy on loopback."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.clients.pulls import Waypost, run
from tests.clients.trees import Tree, counted, download, lose, mirrored

SKATES, BOOTS = "acme.example/Rocket/Skates", "acme.example/boots"
VERSIONS = {SKATES: ("v1.1.0", "v1.2.0"), BOOTS: ("v0.3.0-RC1",)}
BOOTS_NEEDS_SKATES = f"\nrequire {SKATES} v1.2.0\n"
MAIN = f'package main\n\nimport "{BOOTS}"\n\nfunc main() {{ print(boots.Version) }}\n'


def source(module: str, version: str) -> str:
    name = module.rpartition("/")[2].lower()
    needs = f'import skates "{SKATES}"\n\nconst Under = skates.Version\n' if module == BOOTS else ""
    return f'package {name}\n\n{needs}\nconst Version = "{module} {version}"\n'


def escaped(text: str) -> str:
    return "".join(f"!{letter.lower()}" if letter.isupper() else letter for letter in text)


def publish(root: Path) -> None:
    for module, versions in VERSIONS.items():
        folder = root / escaped(module) / "@v"
        folder.mkdir(parents=True)
        (folder / "list").write_text("".join(f"{version}\n" for version in versions))
        for version in versions:
            mod = f"module {module}\n{BOOTS_NEEDS_SKATES if module == BOOTS else ''}"
            info = json.dumps({"Version": version, "Time": "2026-11-01T10:11:12Z"})
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr(f"{module}@{version}/go.mod", mod)
                archive.writestr(f"{module}@{version}/it.go", source(module, version))
            (folder / f"{escaped(version)}.zip").write_bytes(buffer.getvalue())
            (folder / f"{escaped(version)}.mod").write_text(mod)
            (folder / f"{escaped(version)}.info").write_text(info)


def vouch(root: Path, go_sum: str) -> str:
    """A checksum database of what a go.sum says, and the key that opens it (golang.org/design/25530-sumdb)."""
    name, key = "sum.acme.example", Ed25519PrivateKey.generate()
    public = b"\x01" + key.public_key().public_bytes_raw()
    mark = hashlib.sha256(f"{name}\n".encode() + public).digest()[:4]
    lines = go_sum.splitlines()
    records = [f"{first}\n{second}\n" for first, second in zip(lines[::2], lines[1::2], strict=True)]
    leaves = [hashlib.sha256(b"\0" + record.encode()).digest() for record in records]
    one, two = leaves  # RFC 6962 section 2.1: of two leaves the tree is one node
    top = base64.b64encode(hashlib.sha256(b"\1" + one + two).digest()).decode()
    text = f"go.sum database tree\n{len(records)}\n{top}\n"
    note = f"{text}\n— {name} {base64.b64encode(mark + key.sign(text.encode())).decode()}\n"
    folder = root / "sumdb" / name
    answers = {"supported": b"", "latest": note.encode(), f"tile/8/0/000.p/{len(records)}": one + two}
    for number, record in enumerate(records):
        module, version, _ = record.split(maxsplit=2)
        answers[f"lookup/{escaped(module)}@{escaped(version)}"] = f"{number}\n{record}\n{note}".encode()
    for path, content in answers.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return f"{name}+{mark.hex()}+{base64.b64encode(public).decode()}"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    publish(tmp_path / "tree")
    one = Tree(tmp_path / "tree")
    yield one
    one.close()


@pytest.fixture
def second(tree: Tree) -> Iterator[Tree]:
    one = Tree(tree.folder)
    yield one
    one.close()


@pytest.fixture
def waypost(tmp_path: Path, tree: Tree, second: Tree) -> Iterator[Waypost]:
    one = Waypost(tmp_path, mirrored("go", [tree.url, second.url]))
    yield one
    one.server.stop()


class Program:
    """A program that imports boots, and a go command that has nothing yet."""

    def __init__(self, folder: Path, proxy: str, sumdb: str) -> None:
        folder.mkdir()
        (folder / "main.go").write_text(MAIN)
        (folder / "go.mod").write_text("module program\n\ngo 1.19\n")
        self._folder = folder
        self._home = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "GOPROXY": proxy,
            "GOSUMDB": sumdb,
            "GOFLAGS": "-mod=mod -modcacherw",
            "CGO_ENABLED": "0",
        }

    def go(self, *words: str) -> str:
        return run(self._home, "env", f"--chdir={self._folder}", "go", *words)

    @property
    def sums(self) -> str:
        return (self._folder / "go.sum").read_text()


def test_each_module_counts_once_and_the_checksum_database_agrees(tmp_path: Path, waypost: Waypost, tree: Tree) -> None:
    direct = Program(tmp_path / "direct", tree.url, "off")
    direct.go("get", BOOTS)
    key = vouch(tree.folder, direct.sums)
    tree.asked.clear()

    program = Program(tmp_path / "program", f"http://{waypost.address}", key)
    program.go("get", BOOTS)
    assert program.sums == direct.sums
    assert tree.asked_for("/lookup/acme.example/boots@v0.3.0-!r!c1") == 1
    indexes = tree.asked_for("/list") + tree.asked_for("/@latest")
    events = waypost.take(2 + indexes)
    assert sorted(counted(events), key=str) == [
        download(SKATES, "v1.2.0", "go-http-client", tree),
        download(BOOTS, "v0.3.0-RC1", "go-http-client", tree),
    ]
    assert program.go("run", ".") == ""
    # A machine that has the modules asks for no more than whether there are newer ones.
    tree.asked.clear()
    program.go("get", f"{BOOTS}@latest")
    assert not tree.asked_for(".zip")
    assert counted(waypost.take(tree.asked_for("/list") + tree.asked_for("/@latest"))) == []
    waypost.stop()


def test_while_the_first_upstream_is_down_the_second_serves(
    tmp_path: Path, waypost: Waypost, tree: Tree, second: Tree
) -> None:
    lose(waypost, tree, f"/{BOOTS}/@v/v0.3.0-!r!c1.zip", f"/{BOOTS}/@v/list")
    second.asked.clear()
    Program(tmp_path / "program", f"http://{waypost.address}", "off").go("get", BOOTS)
    events = waypost.take(2 + second.asked_for("/list") + second.asked_for("/@latest"))
    assert sorted(counted(events), key=str) == [
        download(SKATES, "v1.2.0", "go-http-client", second),
        download(BOOTS, "v0.3.0-RC1", "go-http-client", second),
    ]
    waypost.stop()
