"""helm, through Waypost, from chart repositories on loopback."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients.pulls import Waypost, run
from tests.clients.trees import Tree, counted, download, lose, mirrored


def chart(name: str, version: str, more: str = "") -> bytes:
    """A chart as `helm package` makes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for file, text in {
            "Chart.yaml": f"apiVersion: v2\nname: {name}\nversion: {version}\n{more}",
            "templates/it.yaml": f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n",
        }.items():
            info = tarfile.TarInfo(f"{name}/{file}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


SKATES, BOOTS = chart("skates", "1.2.0"), chart("boots", "2.0.0")


def entry(name: str, version: str, url: str, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return (
        f"  {name}:\n  - apiVersion: v2\n    created: '2026-11-01T10:11:12Z'\n    digest: {digest}\n"
        f"    name: {name}\n    urls:\n    - {url}\n    version: {version}\n"
    )


def publish(root: Path, releases: Tree) -> None:
    """skates in the repository itself, boots on another host."""
    (root / "charts").mkdir(parents=True)
    (root / "charts/skates-1.2.0.tgz").write_bytes(SKATES)
    (root / "charts/skates-1.2.0.tgz.prov").write_text("signed")
    entries = entry("skates", "1.2.0", "charts/skates-1.2.0.tgz", SKATES) + entry(
        "boots", "2.0.0", f"{releases.url}/download/chart.tgz", BOOTS
    )
    (root / "index.yaml").write_text(f"apiVersion: v1\nentries:\n{entries}generated: '2026-11-01T10:11:12Z'\n")


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Tree]:
    """Where a project keeps what it releases: no chart repository, only files."""
    (tmp_path / "releases/download").mkdir(parents=True)
    (tmp_path / "releases/download/chart.tgz").write_bytes(BOOTS)
    one = Tree(tmp_path / "releases")
    yield one
    one.close()


@pytest.fixture
def trees(tmp_path: Path, releases: Tree) -> Iterator[tuple[Tree, Tree]]:
    publish(tmp_path / "tree", releases)
    both = Tree(tmp_path / "tree"), Tree(tmp_path / "tree")
    yield both
    for tree in both:
        tree.close()


@pytest.fixture
def waypost(tmp_path: Path, trees: tuple[Tree, Tree]) -> Iterator[Waypost]:
    one = Waypost(tmp_path, mirrored("helm", [tree.url for tree in trees]))
    yield one
    one.server.stop()


def test_each_chart_counts_once_wherever_it_is(
    tmp_path: Path, waypost: Waypost, trees: tuple[Tree, Tree], releases: Tree, helm: str, home: dict[str, str]
) -> None:
    first, second = trees
    run(home, helm, "repo", "add", "acme", f"http://{waypost.address}")
    (index,) = waypost.take(1)
    assert (index["kind"], index["counted"], index["client"]) == ("index-fetch", False, "helm")
    for name in ("skates", "boots"):
        run(home, helm, "pull", f"acme/{name}", "--destination", home["HOME"])
    pulled = Path(home["HOME"])
    assert (pulled / "skates-1.2.0.tgz").read_bytes() == SKATES
    assert (pulled / "boots-2.0.0.tgz").read_bytes() == BOOTS
    events = waypost.take(2)
    assert counted(events) == [
        download("skates", "1.2.0", "helm", first),
        download("boots", "2.0.0", "helm", releases),
    ]
    assert events[0]["client_version"] == "4.1.4"
    # The index is kept, and who asks again is told so.
    run(home, helm, "repo", "update")
    waypost.take(1)
    assert (first.asked_for("/index.yaml"), second.asked_for("")) == (1, 0)
    waypost.stop()


def test_a_chart_that_others_need_is_locked_to_the_domain(
    tmp_path: Path, waypost: Waypost, trees: tuple[Tree, Tree], releases: Tree, helm: str, home: dict[str, str]
) -> None:
    repository = f"http://{waypost.address}"
    folder = tmp_path / "app"
    folder.mkdir()
    needs = f"dependencies:\n- {{name: boots, version: ^2, repository: '{repository}'}}\n"
    (folder / "Chart.yaml").write_text(f"apiVersion: v2\nname: app\nversion: 0.1.0\n{needs}")
    run(home, helm, "dependency", "update", str(folder))
    lock = (folder / "Chart.lock").read_text()
    assert repository in lock
    assert not any(one.authority in lock for one in (*trees, releases))
    assert (folder / "charts/boots-2.0.0.tgz").read_bytes() == BOOTS
    # helm reads the index once to find the version, and once more to find the chart.
    assert counted(waypost.take(3)) == [download("boots", "2.0.0", "helm", releases)]
    waypost.stop()


def test_while_the_first_upstream_is_down_the_second_serves(
    waypost: Waypost, trees: tuple[Tree, Tree], helm: str, home: dict[str, str]
) -> None:
    first, second = trees
    lose(waypost, first, "/charts/skates-1.2.0.tgz")
    run(home, helm, "repo", "add", "acme", f"http://{waypost.address}")
    run(home, helm, "pull", "acme/skates", "--destination", home["HOME"])
    assert counted(waypost.take(2)) == [download("skates", "1.2.0", "helm", second)]
    waypost.stop()


def test_what_the_index_does_not_name_is_no_chart(waypost: Waypost, releases: Tree) -> None:
    for path in ("/-/skates-1.2.0.tgz", f"/-/{releases.url}/download/chart.tgz", "/-/boots-2.0.1.tgz"):
        assert waypost.ask(path)[0] == 404
    status, headers, _ = waypost.ask("/-/boots-2.0.0.tgz.prov")
    assert (status, headers["location"]) == (307, f"{releases.url}/download/chart.tgz.prov")
    waypost.stop()
