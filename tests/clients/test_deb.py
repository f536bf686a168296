"""apt, through Waypost, from signed repositories on loopback."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients.mirrors import Mirror, config, leads_to, moves
from tests.clients.pulls import Waypost, run
from tests.clients.signer import Signer, signer
from tests.clients.trees import counted, download

__all__ = ["signer"]

ARCH = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
INDEX = "/dists/stable/InRelease"
# name, version, architecture, and the file in the pool: skates has a version with all that may be in one, boots a
# file name with its epoch.
SKATES = ("skates", "2:1.2~rc1-3+b1", ARCH, f"pool/s/skates_1.2~rc1-3+b1_{ARCH}.deb")
OLD_SKATES = ("skates", "2:1.1-1", ARCH, f"pool/s/skates_1.1-1_{ARCH}.deb")
BOOTS = ("boots", "1:7", "all", "pool/b/boots_1%3a7_all.deb")


def build(root: Path, name: str, version: str, arch: str, file: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder, "opt", name)
        content.parent.mkdir()
        content.write_text(version)
        control = Path(folder, "DEBIAN", "control")
        control.parent.mkdir()
        control.write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: Acme <acme@acme.example>\n"
            f"Depends: {'boots' if name == 'skates' else ''}\nDescription: {name}\n"
        )
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", folder, str(root / file)], check=True, capture_output=True
        )


def publish(
    root: Path, signer: Signer, *packages: tuple[str, str, str, str], by_hash: bool = False, age: int = 0
) -> Path:
    """A signed repository with these packages, by apt-ftparchive, as it was `age` seconds ago.

    by_hash  indexes have their hash for a name, and no other
    """
    root.mkdir()
    for package in packages:
        build(root, *package)
    binary = root / "dists/stable/main" / f"binary-{ARCH}"
    binary.mkdir(parents=True)
    listed = subprocess.run(["apt-ftparchive", "packages", "pool"], cwd=root, check=True, capture_output=True)
    (binary / "Packages").write_bytes(listed.stdout)
    date = time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(time.time() - age))
    options = {"Suite": "stable", "Codename": "stable", "Components": "main", "Architectures": ARCH, "Date": date}
    release = subprocess.run(
        ["apt-ftparchive", *(f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in options.items()),
         "release", "dists/stable"],
        cwd=root, check=True, capture_output=True,
    )  # fmt: skip
    (root / "dists/stable/Release").write_bytes((b"Acquire-By-Hash: yes\n" if by_hash else b"") + release.stdout)
    if by_hash:
        (binary / "by-hash/SHA512").mkdir(parents=True)
        shutil.move(binary / "Packages", binary / "by-hash/SHA512" / hashlib.sha512(listed.stdout).hexdigest())
    signer.clearsign(root / "dists/stable/Release", root / "dists/stable/InRelease")
    return root


def publish_flat(root: Path, signer: Signer, name: str, version: str, arch: str, file: str) -> Path:
    """A signed repository without dists and pool, as many vendors have."""
    root.mkdir()
    build(root, name, version, arch, file)
    for what, where in (("packages", "Packages"), ("release", "Release")):
        made = subprocess.run(["apt-ftparchive", what, "."], cwd=root, check=True, capture_output=True)
        (root / where).write_bytes(made.stdout)
    signer.clearsign(root / "Release", root / "InRelease")
    return root


class Apt:
    """A machine's apt, in a folder of its own."""

    def __init__(self, folder: Path, source: str, signer: Signer) -> None:
        self._folder = folder
        for name in ("etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/trusted.gpg.d",
                     "var/lib/apt/lists/partial", "var/lib/dpkg", "var/cache/apt/archives/partial", "var/log/apt"):  # fmt: skip
            (folder / name).mkdir(parents=True)
        (folder / "var/lib/dpkg/status").touch()
        shutil.copy(signer.public, folder / "acme.asc")
        (folder / "etc/apt/sources.list").write_text(f"deb [signed-by={folder}/acme.asc] {source}\n")
        (folder / "apt.conf").write_text(
            f'Dir "{folder}";\nDir::State::status "{folder}/var/lib/dpkg/status";\nAPT::Architecture "{ARCH}";\n'
            f'APT::Architectures "{ARCH}";\nAPT::Sandbox::User "";\nAcquire::Languages "none";\nAcquire::Retries "0";\n'
        )

    def __call__(self, *arguments: str, status: int = 0) -> str:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self._folder), "LC_ALL": "C",
                       "APT_CONFIG": str(self._folder / "apt.conf")}  # fmt: skip
        return run(environment, "apt-get", "-q", *arguments, status=status)

    def update(self) -> str:
        # Without it apt takes an index that it could not have for a warning.
        return self("update", "--error-on=any")

    def install(self, name: str) -> str:
        return self("install", "--yes", "--download-only", name)

    def has(self, file: Path) -> bool:
        """Whether it has downloaded this very file."""
        return any(one.read_bytes() == file.read_bytes() for one in self._folder.glob("var/cache/apt/archives/*.deb"))

    def indexes(self) -> set[str]:
        return {one.name.rpartition("_")[2] for one in self._folder.glob("var/lib/apt/lists/*") if one.is_file()}


@pytest.fixture
def mirrors(tmp_path: Path, signer: Signer) -> Iterator[tuple[Mirror, Mirror]]:
    """The second one is an update behind, and has no names by hash."""
    both = (
        Mirror(publish(tmp_path / "first", signer, SKATES, BOOTS, by_hash=True)),
        Mirror(publish(tmp_path / "second", signer, OLD_SKATES, BOOTS, age=3600)),
    )
    yield both
    for one in both:
        one.close()


@pytest.fixture
def waypost(tmp_path: Path, mirrors: tuple[Mirror, Mirror]) -> Iterator[Waypost]:
    (tmp_path / "waypost").mkdir()
    one = Waypost(tmp_path / "waypost", config("deb", mirrors))
    yield one
    one.stop()


def machine(folder: Path, waypost: Waypost, signer: Signer) -> Apt:
    return Apt(folder, f"http://{waypost.address} stable main", signer)


def test_packages_are_installed_and_counted(
    tmp_path: Path, waypost: Waypost, mirrors: tuple[Mirror, Mirror], signer: Signer
) -> None:
    first, second = mirrors
    apt = machine(tmp_path / "apt", waypost, signer)
    apt.update()
    assert apt.indexes() >= {"InRelease", "Packages"}
    apt.install("skates")
    assert apt.has(first.folder / SKATES[3])
    assert apt.has(first.folder / BOOTS[3])
    assert first.asked_for("/Packages") == 0
    index, *files = waypost.take(3)
    assert (index["kind"], index["counted"], index["rule"], index["client"]) == ("index-fetch", False, "C3", "apt")
    assert sorted(counted(files), key=str) == sorted(
        [
            download("skates", "1.2~rc1-3+b1", "apt", first, ARCH),
            download("boots", "1:7", "apt", first, "all"),
        ],
        key=str,
    )
    assert not [one for one in second.asked if one.startswith("GET")]

    # Once more: nothing is new, and nothing is fetched but the beginning of the index.
    assert apt.update().startswith("Hit:1 ")
    apt.install("skates")
    assert [event["kind"] for event in waypost.take(1)] == ["index-fetch"]


def test_while_the_first_is_down_all_comes_from_the_second(
    tmp_path: Path, waypost: Waypost, mirrors: tuple[Mirror, Mirror], signer: Signer
) -> None:
    first, second = mirrors
    apt = machine(tmp_path / "before", waypost, signer)
    apt.update()
    assert [event["upstream"] for event in waypost.take(1)] == [first.authority]
    assert leads_to(waypost, INDEX) == {first.url}

    first.down = True
    moves(waypost, INDEX, second)
    # A file goes with its index, and a hash leads to the same bytes wherever they are.
    assert leads_to(waypost, f"/{BOOTS[3]}".replace("%", "%25")) == {second.url}
    assert leads_to(waypost, "/dists/stable/main/binary-amd64/by-hash/SHA512/00") == {second.url}
    first.asked.clear()
    fresh = machine(tmp_path / "meanwhile", waypost, signer)
    fresh.update()
    fresh.install("skates")
    assert fresh.has(second.folder / OLD_SKATES[3])
    _, *files = waypost.take(3)
    assert sorted(counted(files), key=str) == sorted(
        [
            download("skates", "1.1-1", "apt", second, ARCH),
            download("boots", "1:7", "apt", second, "all"),
        ],
        key=str,
    )
    assert {one.partition(" ")[0] for one in first.asked} <= {"HEAD"}
    # apt never goes back to an older index, and keeps what it has.
    assert apt.update().startswith("Hit:1 ")
    assert waypost.take(1)[0]["upstream"] == second.authority

    first.down = False
    moves(waypost, INDEX, first)
    apt.update()
    apt.install("skates")
    assert apt.has(first.folder / SKATES[3])
    _, *files = waypost.take(3)
    assert {one["upstream"] for one in counted(files)} == {first.authority}


def test_flat_repositories(tmp_path: Path, signer: Signer) -> None:
    # apt asks for /./InRelease and /./boots_7_all.deb then.
    flat = Mirror(publish_flat(tmp_path / "flat", signer, "boots", "7", "all", "boots_7_all.deb"))
    (tmp_path / "waypost").mkdir()
    waypost = Waypost(tmp_path / "waypost", config("deb", [flat]))
    try:
        apt = Apt(tmp_path / "apt", f"http://{waypost.address} ./", signer)
        apt.update()
        apt.install("boots")
        assert apt.has(flat.folder / "boots_7_all.deb")
        _, file = waypost.take(2)
        assert counted([file]) == [download("boots", "7", "apt", flat, "all")]
    finally:
        flat.close()
        waypost.stop()
