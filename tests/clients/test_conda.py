"""rattler, the library of pixi and others, through Waypost, from a conda channel on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.clients.pulls import Waypost, run
from tests.clients.trees import Tree, counted, download, lose, mirrored

# What pixi does, too: solve, download, link. Prints the URLs that a lock file would have. Threads of the library may end
# after Python has, which kills it: so Python goes first.
INSTALL = """\
import asyncio, os, sys
from rattler import install, solve
from rattler.networking import Client

async def main(channel, prefix):
    records = await solve([channel], ["rocket-skates"], platforms=["linux-64", "noarch"])
    await install(records, prefix, show_progress=False, client=Client.default_client())
    print(*sorted(record.url for record in records), sep="\\n", flush=True)

asyncio.run(main(*sys.argv[1:]))
os._exit(0)
"""


def packed(files: Mapping[str, str], compression: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    """One frame of one block that is not compressed (RFC 8878 section 3.1.1)."""
    assert len(data) < 128 * 1024
    block = (len(data) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\xe0" + len(data).to_bytes(8, "little") + block + data


def contents(record: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The files of a package, and what it says of itself."""
    file, text = f"share/{record['name']}", record["name"]
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = {"_path": file, "path_type": "hardlink", "sha256": digest, "size_in_bytes": len(text)}
    info = {
        "info/index.json": json.dumps(record),
        "info/paths.json": json.dumps({"paths": [path], "paths_version": 1}),
    }
    return {file: text}, info


def record(name: str, version: str, subdir: str, *needs: str) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "build": "h1_0",
        "build_number": 0,
        "depends": list(needs),
        "subdir": subdir,
    }


def publish(root: Path) -> None:
    """rocket-skates for one platform, in the newer format; wheel for all, in the older one."""
    skates = record("rocket-skates", "1.2.0", "linux-64", "wheel >=3")
    files, info = contents(skates)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
        archive.writestr("pkg-rocket-skates-1.2.0-h1_0.tar.zst", zstd(packed(files)))
        archive.writestr("info-rocket-skates-1.2.0-h1_0.tar.zst", zstd(packed(info)))
    put(root, skates, "packages.conda", "rocket-skates-1.2.0-h1_0.conda", buffer.getvalue())
    wheel = record("wheel", "3.0", "noarch")
    files, info = contents(wheel)
    put(root, wheel, "packages", "wheel-3.0-h1_0.tar.bz2", packed({**files, **info}, "bz2"))


def put(root: Path, record: dict[str, Any], section: str, name: str, content: bytes) -> None:
    folder = root / record["subdir"]
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    sums = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "md5": hashlib.md5(content).hexdigest(),
        "size": len(content),
    }
    index = {"info": {"subdir": record["subdir"]}, "packages": {}, "packages.conda": {}, "repodata_version": 1}
    index[section] = {name: {**record, **sums}}
    (folder / "repodata.json").write_text(json.dumps(index))


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
    one = Waypost(tmp_path, mirrored("conda", [tree.url, second.url]))
    yield one
    one.server.stop()


def indexes(tree: Tree) -> int:
    """How many indexes were asked for since this was last asked."""
    many = sum(one.startswith("GET ") and "/repodata" in one for one in tree.asked)
    tree.asked.clear()
    return many


def test_each_package_counts_once(tmp_path: Path, waypost: Waypost, tree: Tree, home: dict[str, str]) -> None:
    channel = f"http://{waypost.address}"
    install = (sys.executable, "-c", INSTALL, channel, str(tmp_path / "prefix"))
    locked = run(home, *install).split()
    assert locked == [
        f"{channel}/linux-64/rocket-skates-1.2.0-h1_0.conda",
        f"{channel}/noarch/wheel-3.0-h1_0.tar.bz2",
    ]
    assert (tmp_path / "prefix/share/rocket-skates").read_text() == "rocket-skates"
    assert (tmp_path / "prefix/share/wheel").read_text() == "wheel"
    assert tree.asked_for(".conda") == tree.asked_for(".tar.bz2") == 1
    events = waypost.take(2 + indexes(tree))
    assert sorted(counted(events), key=str) == [
        download("rocket-skates", "1.2.0", "rattler", tree, "linux-64"),
        download("wheel", "3.0", "rattler", tree, "noarch"),
    ]
    run(home, *install)
    assert not tree.asked_for(".conda")
    assert counted(waypost.take(indexes(tree))) == []
    waypost.stop()


def test_while_the_first_upstream_is_down_the_second_serves(
    tmp_path: Path, waypost: Waypost, tree: Tree, second: Tree, home: dict[str, str]
) -> None:
    lose(waypost, tree, "/noarch/wheel-3.0-h1_0.tar.bz2", "/linux-64/repodata.json")
    second.asked.clear()
    run(home, sys.executable, "-c", INSTALL, f"http://{waypost.address}", str(tmp_path / "prefix"))
    assert sorted(counted(waypost.take(2 + indexes(second))), key=str) == [
        download("rocket-skates", "1.2.0", "rattler", second, "linux-64"),
        download("wheel", "3.0", "rattler", second, "noarch"),
    ]
    waypost.stop()
