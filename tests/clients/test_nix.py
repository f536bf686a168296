"""nix, through Waypost, from signed binary caches on loopback, into stores in folders of their own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from tests.clients.pulls import HOST, Waypost, run, upstreams
from tests.clients.trees import Tree, counted, download, package

SKATES = "/nix/store/sykfz5c611cz8pxj7y2sg41yb837df2w-skates-1.2"
BOOTS = "/nix/store/0ykfz5c611cz8pxj7y2sg41yb837df2w-boots-2.0-dev"
UNKNOWN = "/nix/store/00000000000000000000000000000000-nothing-1"


class Nix:
    """A machine that has nix and nothing else: an empty store, and no memory of any cache."""

    def __init__(self, folder: Path, key: str = "") -> None:
        folder.mkdir()
        self.folder = folder
        self.home = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "NIX_CONFIG": "experimental-features = nix-command\nsubstituters =\nbuild-users-group =\n"
            f"trusted-public-keys = {key}\nconnect-timeout = 5\ndownload-attempts = 1\n",
        }

    @property
    def store(self) -> str:
        return str(self.folder / "store")

    def run(self, *command: str, status: int = 0) -> str:
        return run(self.home, *command, status=status)

    def copy(self, waypost: Waypost, *paths: str, status: int = 0) -> str:
        source = f"http://{waypost.address}"
        return self.run("nix", "copy", "--store", self.store, "--from", source, *paths, status=status)

    def has(self, path: str) -> bytes:
        return Path(f"{self.store}{path}").read_bytes()

    def forget(self) -> None:
        """What it has, and what it knows of caches."""
        for name in ("store", ".cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A signed cache of two paths, and the key that whoever trusts it has.

    Nothing is built: a store is told of two files. Paths that were added by `nix-store --add` would not do, since
    they are known by their content, and Nix asks for no signature then.
    """
    folder = tmp_path_factory.mktemp("nix")
    nix = Nix(folder / "machine")
    known = ""
    for path, references in ((SKATES, []), (BOOTS, [SKATES])):
        file = Path(f"{nix.store}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"what {path} is")
        digest = nix.run("nix-hash", "--type", "sha256", str(file)).strip()
        dump = nix.run("nix-store", "--dump", str(file))
        known += "\n".join([path, digest, str(len(dump)), "", str(len(references)), *references, ""])
    load = ("nix-store", "--store", nix.store, "--load-db")
    subprocess.run(load, input=known, text=True, env=nix.home, check=True, timeout=60)
    secret, public = folder / "secret", folder / "public"
    nix.run("nix-store", "--generate-binary-cache-key", "acme-1", str(secret), str(public))
    to = f"file://{folder / 'cache'}?secret-key={secret}&write-nar-listing=true"
    nix.run("nix", "copy", "--store", nix.store, "--to", to, BOOTS)
    return folder / "cache", public.read_text()


@pytest.fixture
def trees(cache: tuple[Path, str]) -> Iterator[tuple[Tree, Tree]]:
    both = Tree(cache[0]), Tree(cache[0])
    yield both
    for tree in both:
        tree.close()


@pytest.fixture
def waypost(tmp_path: Path, trees: tuple[Tree, Tree]) -> Iterator[Waypost]:
    # Descriptions are fetched by us, and nothing on a private network is that is not declared.
    more = upstreams({tree.authority: tree.url for tree in trees})
    # Two machines of these tests are one to Waypost, and what they fetch is not to be merged (C6).
    more += "[count]\nmerge_seconds = 0\n"
    one = Waypost(tmp_path, package("nix", [tree.url for tree in trees], more))
    yield one
    one.server.stop()


def hash_of(path: str) -> str:
    return path.removeprefix("/nix/store/").partition("-")[0]


def test_each_archive_counts_once_and_signatures_hold(
    tmp_path: Path, waypost: Waypost, trees: tuple[Tree, Tree], cache: tuple[Path, str]
) -> None:
    nix = Nix(tmp_path / "nix", cache[1])
    nix.copy(waypost, BOOTS)
    assert nix.has(SKATES) == f"what {SKATES} is".encode()
    assert nix.has(BOOTS) == f"what {BOOTS} is".encode()
    assert "acme-1:" in nix.run("nix", "path-info", "--store", nix.store, "--sigs", BOOTS)
    first, second = trees
    events = waypost.take(3)  # with nix-cache-info
    assert sorted(counted(events), key=str) == sorted(
        [download("skates", "1.2", "nix", first), download("boots", "2.0-dev", "nix", first)], key=str
    )
    assert {event["client_version"] for event in events} == {"2.8.0"}
    # Nothing is fetched that is there already.
    nix.copy(waypost, BOOTS)
    # Another machine: descriptions are kept here, and archives are where they were.
    asked = first.asked_for(".narinfo")
    other = Nix(tmp_path / "other", cache[1])
    other.run(
        "nix-store", "--store", other.store, "--realise", BOOTS, "--option", "substituters", f"http://{waypost.address}"
    )
    assert len(counted(waypost.take(3))) == 2
    assert first.asked_for(".narinfo") == asked == 2
    assert not second.asked
    waypost.stop()


def test_who_does_not_trust_the_key_has_nothing(tmp_path: Path, waypost: Waypost) -> None:
    nix = Nix(tmp_path / "nix")
    assert "lacks a valid signature" in nix.copy(waypost, SKATES, status=1)
    waypost.skip(1)  # nix-cache-info: the archive is not asked for
    waypost.stop()


def test_while_the_first_cache_is_down_the_second_serves(
    tmp_path: Path, waypost: Waypost, trees: tuple[Tree, Tree], cache: tuple[Path, str]
) -> None:
    first, second = trees
    first.close()
    nix = Nix(tmp_path / "nix", cache[1])
    nix.copy(waypost, SKATES)
    assert nix.has(SKATES) == f"what {SKATES} is".encode()
    assert counted(waypost.take(2)) == [download("skates", "1.2", "nix", second)]
    waypost.stop()


def test_what_no_cache_has_is_soon_told(tmp_path: Path, waypost: Waypost, trees: tuple[Tree, Tree]) -> None:
    nix = Nix(tmp_path / "nix")
    nix.copy(waypost, UNKNOWN, status=1)
    for _ in range(20):
        assert waypost.ask(f"/{hash_of(UNKNOWN)}.narinfo")[0] == 404
    # Each of two workers may have asked, and the first cache alone decides.
    assert 1 <= len([one for one in trees[0].asked if ".narinfo" in one]) <= 2
    assert not trees[1].asked
    waypost.skip(1)  # nix-cache-info
    waypost.stop()


def test_looking_is_not_counted(waypost: Waypost, trees: tuple[Tree, Tree]) -> None:
    path = f"/{hash_of(SKATES)}.narinfo"
    status, headers, body = waypost.ask(path, "HEAD")
    assert (status, headers["content-type"], body) == (200, "text/x-nix-narinfo", b"")
    described = waypost.ask(path)[2].decode()
    (url,) = (line.removeprefix("URL: ") for line in described.splitlines() if line.startswith("URL: "))
    assert url.startswith("nar-of/skates-1.2/nar/")
    status, headers, _ = waypost.ask(f"/{url}", "HEAD")
    assert (status, headers["location"]) == (307, f"{trees[0].url}/{url.removeprefix('nar-of/skates-1.2/')}")
    for other in (f"/{hash_of(SKATES)}.ls", "/log/x.drv", "/realisations/x.doi", "/debuginfo/x.debug"):
        assert waypost.ask(other)[1]["location"] == f"{trees[0].url}{other}"
    for climbing in ("/nar-of/skates-1.2/../../etc/passwd", "/nar-of/skates-1.2/%2e%2e/x", "/%2e%2e/x"):
        assert waypost.ask(climbing)[0] == 404
    waypost.stop()


class Forge(SimpleHTTPRequestHandler):
    """A server of tarballs that says what to lock, as Forgejo and Gitea do."""

    def end_headers(self) -> None:
        host = self.headers["Host"]
        self.send_header("Link", f'<http://{host}/archive/0123abcd.tar.gz?rev=0123abcd>; rel="immutable"')
        super().end_headers()


TARBALL = """
base_domain = "waypost.example"
owner = "acme"
[[package]]
type = "file"
name = "skates"
domain = "{host}"
proxy = true
routes = [{{ path = "/skates/{{version}}.tar.gz", to = "{to}/archive/{{version}}.tar.gz" }}]
"""


def test_what_a_flake_should_lock_is_said_in_our_name(tmp_path: Path) -> None:
    """nix 2.8 takes no notice of it; docs/ecosystems/nix.md says which one was seen to."""
    archive = tmp_path / "forge/archive"
    archive.mkdir(parents=True)
    (archive / "main.tar.gz").write_bytes(b"a tarball")
    forge = Tree(archive.parent, Forge)
    waypost = Waypost(tmp_path, TARBALL.format(host=HOST, to=forge.url) + upstreams({forge.authority: forge.url}))
    try:
        status, headers, body = waypost.ask("/skates/main.tar.gz")
        assert (status, body) == (200, b"a tarball")
        assert headers["link"] == f'<http://{waypost.address}/skates/0123abcd.tar.gz?rev=0123abcd>; rel="immutable"'
        waypost.skip(1)
        waypost.stop()
    finally:
        waypost.server.stop()
        forge.close()
