"""gem, through Waypost, from a repository on loopback."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from tests.clients.pulls import Waypost, run
from tests.clients.trees import Tree, counted, download, lose, mirrored

# NAME-VERSION[-PLATFORM] → what it needs
GEMS = {"rocket-skates-1.2.0": ["wheel-3.0.pre"], "wheel-3.0.pre": [], "wheel-3.0.pre-x86_64-linux": []}
SPECIFICATION = """\
Gem::Specification.new do |one|
  one.name, one.version, one.platform = "{name}", "{version}", "{platform}"
  one.summary = one.author = one.homepage = "x"
  one.license = "MIT"
  one.files = ["lib/{name}.rb"]
  {needs}
end
"""


def parts(full: str) -> tuple[str, str, str]:
    for name in ("rocket-skates", "wheel"):
        if full.startswith(name):
            version, _, platform = full.removeprefix(f"{name}-").partition("-")
            return name, version, platform or "ruby"
    raise AssertionError(full)


def publish(root: Path, scratch: Path) -> None:
    """Gems that gem has built, indexed as it indexes, and the compact index that newer clients ask for."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(scratch)}
    (root / "gems").mkdir(parents=True)
    for full, needs in GEMS.items():
        name, version, platform = parts(full)
        folder = scratch / full
        (folder / "lib").mkdir(parents=True)
        (folder / f"lib/{name}.rb").write_text(f'puts "{full}"\n')
        wanted = "\n".join(f'one.add_dependency "{other}", "= {number}"' for other, number, _ in map(parts, needs))
        text = SPECIFICATION.format(name=name, version=version, platform=platform, needs=wanted)
        (folder / "it.gemspec").write_text(text)
        build = ["gem", "build", "--force", "--output", str(root / f"gems/{full}.gem"), "it.gemspec"]
        subprocess.run(build, cwd=folder, env=environment, check=True, capture_output=True, timeout=60)
    index = ["gem", "generate_index", "--directory", str(root)]
    subprocess.run(index, env=environment, check=True, capture_output=True, timeout=60)
    (root / "info").mkdir()
    versions = ["created_at: 2026-11-01T10:11:12Z", "---"]
    for name in ("rocket-skates", "wheel"):
        lines = ["---"]
        for full in (one for one in GEMS if parts(one)[0] == name):
            needs = ",".join(f"{other}:= {number}" for other, number, _ in map(parts, GEMS[full]))
            checksum = hashlib.sha256((root / f"gems/{full}.gem").read_bytes()).hexdigest()
            lines.append(f"{full.removeprefix(f'{name}-')} {needs}|checksum:{checksum}")
        info = "\n".join(lines) + "\n"
        (root / "info" / name).write_text(info)
        numbers = ",".join(full.removeprefix(f"{name}-") for full in GEMS if parts(full)[0] == name)
        versions.append(f"{name} {numbers} {hashlib.md5(info.encode()).hexdigest()}")
    (root / "versions").write_text("\n".join(versions) + "\n")


@pytest.fixture
def missing() -> set[str]:
    """Paths that the repository answers with 404."""
    return set()


@pytest.fixture
def tree(tmp_path: Path, missing: set[str]) -> Iterator[Tree]:
    class Lacking(SimpleHTTPRequestHandler):
        def send_head(self) -> Any:
            return self.send_error(404) if self.path in missing else super().send_head()

    publish(tmp_path / "tree", tmp_path)
    one = Tree(tmp_path / "tree", Lacking)
    yield one
    one.close()


@pytest.fixture
def second(tree: Tree) -> Iterator[Tree]:
    one = Tree(tree.folder)
    yield one
    one.close()


@pytest.fixture
def waypost(tmp_path: Path, tree: Tree, second: Tree) -> Iterator[Waypost]:
    one = Waypost(tmp_path, mirrored("gem", [tree.url, second.url]))
    yield one
    one.server.stop()


def indexes(tree: Tree) -> int:
    """How many indexes were asked for since this was last asked."""
    many = tree.asked_for("/versions") + tree.asked_for("/info/rocket-skates") + tree.asked_for("/info/wheel")
    many += tree.asked_for("specs.4.8.gz")
    tree.asked.clear()
    return many


def install(home: dict[str, str], waypost: Waypost, folder: Path, *more: str) -> None:
    source = ("--clear-sources", "--source", f"http://{waypost.address}", "--platform", "x86_64-linux")
    place = ("--install-dir", str(folder), "--bindir", str(folder / "bin"), "--no-document")
    run(home, "gem", "install", *source, *place, *more, "rocket-skates")


def check(tree: Tree, cache: Path) -> None:
    for full in ("rocket-skates-1.2.0", "wheel-3.0.pre-x86_64-linux"):
        assert (cache / f"{full}.gem").read_bytes() == (tree.folder / f"gems/{full}.gem").read_bytes()


@pytest.mark.parametrize("compact", [True, False])
def test_each_gem_counts_once(
    tmp_path: Path, waypost: Waypost, tree: Tree, home: dict[str, str], missing: set[str], compact: bool
) -> None:
    if not compact:
        # What has no page at its root has no compact index either, gem thinks.
        missing.add("/")
    folder = tmp_path / "installed"
    install(home, waypost, folder)
    check(tree, folder / "cache")
    assert bool(tree.asked_for("/info/wheel")) is compact
    events = waypost.take(2 + indexes(tree))
    assert sorted(counted(events), key=str) == [
        download("rocket-skates", "1.2.0", "rubygems", tree),
        download("wheel", "3.0.pre", "rubygems", tree, "x86_64-linux"),
    ]
    assert {event["client_version"] for event in events} == {"3.3.15"}
    install(home, waypost, folder, "--conservative")
    assert not tree.asked_for(".gem")
    assert counted(waypost.take(indexes(tree))) == []
    waypost.stop()


def test_bundler_locks_the_domain(tmp_path: Path, waypost: Waypost, tree: Tree, home: dict[str, str]) -> None:
    (tmp_path / "Gemfile").write_text(f'source "http://{waypost.address}"\ngem "rocket-skates"\n')
    home = {**home, "BUNDLE_PATH": str(tmp_path / "bundle"), "BUNDLE_GEMFILE": str(tmp_path / "Gemfile")}
    bundle = ("env", f"--chdir={tmp_path}", "bundle")
    run(home, *bundle, "lock", "--add-platform", "x86_64-linux")
    run(home, *bundle, "install")
    (cache,) = tmp_path.glob("bundle/ruby/*/cache")
    check(tree, cache)
    lock = (tmp_path / "Gemfile.lock").read_text()
    assert f"remote: http://{waypost.address}/" in lock
    assert tree.authority not in lock
    assert run(home, *bundle, "exec", "ruby", "-e", "require 'rocket-skates'").strip() == "rocket-skates-1.2.0"
    events = waypost.take(2 + indexes(tree))
    assert sorted(counted(events), key=str) == [
        download("rocket-skates", "1.2.0", "rubygems", tree),
        download("wheel", "3.0.pre", "rubygems", tree, "x86_64-linux"),
    ]
    waypost.stop()


def test_where_clients_begin_they_are_not_sent_away(waypost: Waypost, tree: Tree, missing: set[str]) -> None:
    """Newer versions of gem begin with HEAD /versions."""
    status, _, body = waypost.ask("/versions", "HEAD")
    assert (status, body) == (200, b"")
    content = (tree.folder / "versions").read_bytes()
    assert waypost.ask("/versions")[2] == content
    assert waypost.ask("/names")[0] == 307
    missing.add("/versions")
    assert waypost.ask("/versions")[0] == 404
    waypost.skip(2)
    waypost.stop()


def test_while_the_first_upstream_is_down_the_second_serves(
    tmp_path: Path, waypost: Waypost, tree: Tree, second: Tree, home: dict[str, str]
) -> None:
    lose(waypost, tree, "/gems/wheel-3.0.pre.gem", "/info/wheel")
    second.asked.clear()
    install(home, waypost, tmp_path / "installed")
    assert sorted(counted(waypost.take(2 + indexes(second))), key=str) == [
        download("rocket-skates", "1.2.0", "rubygems", second),
        download("wheel", "3.0.pre", "rubygems", second, "x86_64-linux"),
    ]
    waypost.stop()
