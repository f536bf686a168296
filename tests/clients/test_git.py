"""git, through Waypost, from git's own HTTP backend on loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from tests.clients.pulls import Waypost, run
from tests.clients.trees import Tree, counted, download, lose, mirrored


class Backend(SimpleHTTPRequestHandler):
    """`git http-backend`, a CGI program (RFC 3875)."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        environment = {
            "PATH": "/usr/bin:/bin",
            "GIT_PROJECT_ROOT": str(self.directory),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, timeout=60)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        lines = [line.partition(": ") for line in head.decode().split("\r\n")]
        status = next((value for name, _, value in lines if name == "Status"), "200")
        self.send_response(int(status[:3]))
        for name, _, value in lines:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()


@pytest.fixture
def home(home: dict[str, str]) -> dict[str, str]:
    who = {f"GIT_{role}_{what}": "a@b.example" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {**home, **who, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}


@pytest.fixture
def tree(tmp_path: Path, home: dict[str, str]) -> Iterator[Tree]:
    """Has acme/skates.git, which has one commit."""
    repository = tmp_path / "tree/acme/skates.git"
    work = tmp_path / "work"
    run(home, "git", "init", "--quiet", "--bare", "--initial-branch=main", str(repository))
    run(home, "git", "init", "--quiet", "--initial-branch=main", str(work))
    commit(home, work, "one")
    run(home, "git", "-C", str(work), "push", "--quiet", str(repository), "main")
    one = Tree(tmp_path / "tree", Backend)
    yield one
    one.close()


def commit(home: dict[str, str], work: Path, text: str) -> None:
    (work / "skates").write_text(text)
    run(home, "git", "-C", str(work), "add", "skates")
    run(home, "git", "-C", str(work), "commit", "--quiet", "--message", text)


@pytest.fixture
def second(tree: Tree) -> Iterator[Tree]:
    one = Tree(tree.folder, Backend)
    yield one
    one.close()


@pytest.fixture
def waypost(tmp_path: Path, tree: Tree, second: Tree) -> Iterator[Waypost]:
    config = mirrored("git", [f"{tree.url}/acme", f"{second.url}/acme"])
    one = Waypost(tmp_path, f"{config}[count]\nmerge_seconds = 0\n")
    yield one
    one.server.stop()


@pytest.mark.parametrize("protocol", ["0", "2"])
def test_a_clone_counts_once_and_so_does_a_fetch(
    tmp_path: Path, waypost: Waypost, tree: Tree, home: dict[str, str], protocol: str
) -> None:
    url, clone = f"http://{waypost.address}/skates.git", tmp_path / "clone"
    git = ("git", "-c", f"protocol.version={protocol}")
    run(home, *git, "clone", "--quiet", url, str(clone))
    assert (clone / "skates").read_text() == "one"
    events = waypost.take(1)
    assert counted(events) == [download("skates", None, "git", tree)]
    assert events[0]["client_version"] == run(home, "git", "--version").split()[2]
    # Whoever has the clone goes on asking here.
    assert run(home, "git", "-C", str(clone), "remote", "get-url", "origin").strip() == url
    commit(home, tmp_path / "work", "two")
    run(home, "git", "-C", str(tmp_path / "work"), "push", "--quiet", str(tree.folder / "acme/skates.git"), "main")
    run(home, *git, "-C", str(clone), "pull", "--quiet")
    assert (clone / "skates").read_text() == "two"
    assert counted(waypost.take(1)) == [download("skates", None, "git", tree)]
    assert "POST /acme/skates.git/git-upload-pack" in tree.asked
    waypost.stop()


def test_a_push_is_refused_and_what_is_not_there_is_the_upstreams_to_say(
    tmp_path: Path, waypost: Waypost, tree: Tree, home: dict[str, str]
) -> None:
    work = str(tmp_path / "work")
    said = run(home, "git", "-C", work, "push", f"http://{waypost.address}/skates.git", "main", status=128)
    assert "403" in said
    said = run(home, "git", "clone", f"http://{waypost.address}/boots.git", str(tmp_path / "boots"), status=128)
    assert "not found" in said
    assert tree.asked == ["GET /acme/boots.git/info/refs?service=git-upload-pack"]
    waypost.skip(1)
    waypost.stop()


def test_while_the_first_upstream_is_down_the_second_serves(
    tmp_path: Path, waypost: Waypost, tree: Tree, second: Tree, home: dict[str, str]
) -> None:
    lose(waypost, tree, "/skates.git/info/refs?service=git-upload-pack")
    run(home, "git", "clone", "--quiet", f"http://{waypost.address}/skates.git", str(tmp_path / "clone"))
    assert counted(waypost.take(1)) == [download("skates", None, "git", second)]
    waypost.stop()
