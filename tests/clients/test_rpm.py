"""dnf and zypper, through Waypost, from repositories on loopback made by createrepo_c."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.clients.mirrors import Mirror, config, leads_to, moves
from tests.clients.pulls import Waypost, run
from tests.clients.signer import Signer, signer
from tests.clients.trees import counted, download

__all__ = ["signer"]

INDEX = "/repodata/repomd.xml"
SPEC = """\
Name: skates
Version: {version}
Release: {release}
Summary: Rocket skates
License: Apache-2.0
AutoReqProv: no
%description
Rocket skates.
%install
mkdir -p %{{buildroot}}/opt/skates
echo {version} > %{{buildroot}}/opt/skates/version
%files
/opt/skates/version
"""
ARCH = subprocess.run(["rpm", "--eval", "%_arch"], capture_output=True, text=True, check=True).stdout.strip()


def publish(root: Path, signer: Signer, version: str, release: str) -> Path:
    """A repository with one package, and a signed index."""
    root.mkdir()
    spec = root.with_suffix(".spec")
    spec.write_text(SPEC.format(version=version, release=release))
    defined = {"_topdir": root.with_suffix(".build"), "_rpmdir": root / "Packages"}
    run({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(root.parent)}, "rpmbuild", "-bb", "--quiet",
        *(word for name, value in defined.items() for word in ("--define", f"{name} {value}")), str(spec))  # fmt: skip
    subprocess.run(["createrepo_c", "--quiet", str(root)], check=True, capture_output=True)
    signer.detach(root / INDEX[1:])
    (root / f"{INDEX[1:]}.key").write_bytes(signer.public.read_bytes())
    return root


class Machine:
    """Somewhere to install to.

    client  what it is counted as
    cold    how often it fetches repomd.xml to install something; dnf again after it took in the key
    warm    and if it has all already
    """

    client: str
    cold: int
    warm: int

    def __init__(self, folder: Path, url: str, signer: Signer) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LC_ALL": "C",
        }
        self.declare(url, signer)

    def declare(self, url: str, signer: Signer) -> None:
        raise NotImplementedError

    def install(self) -> None:
        raise NotImplementedError

    def has(self, mirror: Mirror) -> bool:
        """Whether what a mirror has was downloaded as it is, and installed."""
        (package,) = mirror.folder.glob("Packages/*/*.rpm")
        kept = [one.read_bytes() for one in self.folder.rglob(package.name)]
        version = package.name.split("-")[1]
        return kept == [package.read_bytes()] and (self.root / "opt/skates/version").read_text() == f"{version}\n"


class Dnf(Machine):
    client, cold, warm = "dnf", 2, 1

    def declare(self, url: str, signer: Signer) -> None:
        (self.folder / "dnf.conf").write_text(
            f"[main]\nplugins=0\nkeepcache=1\nreposdir={self.folder}/none\ncachedir={self.folder}/cache\n"
            f"logdir={self.folder}/log\npersistdir={self.folder}/persist\n"
            f"[skates]\nname=skates\nbaseurl={url}\ngpgcheck=0\nrepo_gpgcheck=1\ngpgkey=file://{signer.public}\n"
        )

    def install(self) -> None:
        run(self.environment, "dnf", "--assumeyes", "--refresh", "--config", str(self.folder / "dnf.conf"),
            "--installroot", str(self.root), "--releasever", "1", "install", "skates")  # fmt: skip


class Zypper(Machine):
    client, cold, warm = "zypper", 1, 1

    def _run(self, *arguments: str) -> None:
        run(self.environment, "zypper", "--non-interactive", "--no-gpg-checks", "--root", str(self.root), *arguments)

    def declare(self, url: str, signer: Signer) -> None:
        self._run("addrepo", "--keep-packages", url, "skates")

    def install(self) -> None:
        self._run("refresh")
        self._run("install", "skates")


@pytest.fixture
def mirrors(tmp_path: Path, signer: Signer) -> Iterator[tuple[Mirror, Mirror]]:
    """The second one is an update behind."""
    both = (
        Mirror(publish(tmp_path / "first", signer, "1.2", "3.acme")),
        Mirror(publish(tmp_path / "second", signer, "1.1", "1.acme")),
    )
    yield both
    for one in both:
        one.close()


@pytest.fixture
def waypost(tmp_path: Path, mirrors: tuple[Mirror, Mirror]) -> Iterator[Waypost]:
    (tmp_path / "waypost").mkdir()
    one = Waypost(tmp_path / "waypost", config("rpm", mirrors))
    yield one
    one.stop()


@pytest.mark.parametrize("make", [Dnf, Zypper], ids=["dnf", "zypper"])
def test_packages_are_installed_and_counted(
    tmp_path: Path,
    waypost: Waypost,
    mirrors: tuple[Mirror, Mirror],
    signer: Signer,
    make: Callable[[Path, str, Signer], Machine],
) -> None:
    first, second = mirrors
    machine = make(tmp_path / "machine", f"http://{waypost.address}/", signer)
    machine.install()
    assert machine.has(first)
    *indexes, file = waypost.take(machine.cold + 1)
    assert {(one["kind"], one["rule"], one["client"]) for one in indexes} == {("index-fetch", "C3", machine.client)}
    assert counted([file]) == [download("skates", "1.2-3.acme", machine.client, first, ARCH)]
    assert not [one for one in second.asked if one.startswith("GET")]

    # Once more: nothing is new, and nothing is fetched but the beginning of the index.
    machine.install()
    assert {event["kind"] for event in waypost.take(machine.warm)} == {"index-fetch"}


def test_while_the_first_is_down_all_comes_from_the_second(
    tmp_path: Path, waypost: Waypost, mirrors: tuple[Mirror, Mirror], signer: Signer
) -> None:
    first, second = mirrors
    assert leads_to(waypost, INDEX) == {first.url}
    first.down = True
    moves(waypost, INDEX, second)
    assert leads_to(waypost, f"/repodata/{'0' * 64}-primary.xml.gz") == {second.url}
    first.asked.clear()
    for make in (Dnf, Zypper):
        machine = make(tmp_path / make.client, f"http://{waypost.address}/", signer)
        machine.install()
        assert machine.has(second)
        *_, file = waypost.take(machine.cold + 1)
        assert counted([file]) == [download("skates", "1.1-1.acme", machine.client, second, ARCH)]
    assert {one.partition(" ")[0] for one in first.asked} <= {"HEAD"}
