"""`waypost move` without registries: what it refuses, what it remembers, what it does without and with a server."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from waypost.cli import app
from waypost.console.client import FOLLOW_EVERY
from waypost.moving import watch
from waypost.moving.line import MoveError
from waypost.moving.memory import Moved, Moves
from waypost.moving.watch import Watched

# Nothing listens there; the address is declared, so that it may be asked at all.
FILE = """\
base_domain = "waypost.example"

[[package]]
type = "container"
name = "acme/boots"
domain = "docker.example"
upstream = "ghcr.io/acme/boots"  # boots

[[upstream]]
host = "ghcr.io"
connect = "http://127.0.0.1:1"
[[upstream]]
host = "quay.io"
connect = "http://127.0.0.1:1"
"""
MOVED = FILE.replace("ghcr.io/acme/boots", "quay.io/acme/boots")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("waypost.moving.asking.PAUSES", ())
    for name in ("WAYPOST_CONFIG", "WAYPOST_DATA", "WAYPOST_LISTEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "waypost.toml").write_text(FILE)
    return tmp_path


def run(*arguments, status=0):
    """(stdout, stderr) of `waypost move acme/boots …`"""
    done = CliRunner().invoke(app, ["move", "acme/boots", *arguments], prog_name="waypost")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, done.output
    return done.stdout, done.stderr


def test_what_is_not_known_refuses(here):
    stdout, stderr = run("quay.io/acme/boots", status=2)
    assert stdout == (
        "acme/boots: from ghcr.io/acme/boots to quay.io/acme/boots\nsame: 0 of 0, 0 of them pulled lately\n"
    )
    assert stderr.startswith("waypost: people might notice, so it was not moved, and nothing was changed:\n")
    assert "\n  it is not known what is in use: waypost-data holds no events yet" in stderr
    assert "\n  the tags of the old upstream are not known: The upstream ghcr.io cannot serve this now" in stderr
    assert (here / "waypost.toml").read_text() == FILE
    assert not (here / "waypost-data").exists()


def test_there_and_back_without_a_server(here):
    stdout, _ = run("quay.io/acme/boots", "--force")
    assert 'Changed waypost.toml: upstream = "quay.io/acme/boots". To go back: waypost move acme/boots --undo' in stdout
    assert "No server runs on waypost-data" in stdout
    assert (here / "waypost.toml").read_text() == MOVED
    run("reg.example/x/y", "--force")
    stdout, _ = run("--undo")
    assert 'Changed waypost.toml back: upstream = "quay.io/acme/boots", as before 20' in stdout
    assert (here / "waypost.toml").read_text() == MOVED
    run("--undo")
    assert (here / "waypost.toml").read_text() == FILE
    assert "no move of acme/boots is remembered in waypost-data/moves" in run("--undo", status=2)[1]


def test_undo_leaves_alone_what_was_changed_meanwhile(here):
    run("quay.io/acme/boots", "--force")
    other = MOVED.replace("quay.io/acme/boots", "elsewhere.example/b")
    (here / "waypost.toml").write_text(other)
    assert 'upstream of acme/boots is "elsewhere.example/b" meanwhile' in run("--undo", status=2)[1]
    assert (here / "waypost.toml").read_text() == other
    (here / "waypost.toml").write_text(MOVED)
    run("--undo")
    assert (here / "waypost.toml").read_text() == FILE


def test_dry_run_changes_nothing_even_by_force(here):
    stdout, _ = run("quay.io/acme/boots", "--force", "--dry-run")
    assert stdout.endswith("Nothing was changed (--dry-run).\n")
    assert (here / "waypost.toml").read_text() == FILE
    assert not (here / "waypost-data").exists()


def test_what_cannot_be_written_is_not_remembered(here):
    (here / ".waypost.toml.candidate").mkdir()
    _, stderr = run("quay.io/acme/boots", "--force", status=1)
    assert ".waypost.toml.candidate cannot be written: Is a directory" in stderr
    assert "no move of acme/boots is remembered" in run("--undo", status=2)[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "found neither"),
        (("quay.io/x/y", "--undo"), "found both"),
        (("--undo", "--force"), "it takes --watch alone"),
        (("--undo", "--from", "x/y"), "it takes --watch alone"),
        (("quay.io/x/y", "--since", "soon"), "--since: found 'soon'"),
        (("ghcr.io/acme/boots",), "acme/boots is at ghcr.io/acme/boots already"),
    ],
)
def test_what_makes_no_sense(arguments, says):
    assert says in run(*arguments, status=2)[1]


@pytest.mark.parametrize(("text", "says"), [(FILE + "x = ", "not TOML"), (None, "No such file"), (b"\xff", "UTF-8")])
@pytest.mark.parametrize("arguments", [("quay.io/x/y",), ("--undo",)])
def test_a_configuration_that_cannot_be_used(here, text, says, arguments):
    Moves(here / "waypost-data/moves").remember(Moved("acme/boots", '"a/b"', "c/d", "then"))
    if text is None:
        (here / "waypost.toml").unlink()
    else:
        (here / "waypost.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    stderr = run(*arguments, status=2)[1]
    assert "the configuration cannot be used" in stderr
    assert says in stderr


# Memory


def test_moves_are_remembered_one_after_the_other(tmp_path):
    moves = Moves(tmp_path / "moves")
    first = Moved("acme/boots", "'a/b'", ["c/d", "a/b"], "2026-11-21T00:00:00Z")
    second = Moved("acme/boots", '["c/d", "a/b"]', "c/d", "2026-11-22T00:00:00Z")
    moves.remember(first)
    moves.remember(second)
    moves.remember(Moved("acme", "1", "2", "3"))
    assert Moves(tmp_path / "moves").last("acme/boots") == second
    moves.forget_last("acme/boots")
    assert moves.last("acme/boots") == first
    moves.forget_last("acme/boots")
    assert [one.name for one in (tmp_path / "moves").iterdir()] == ["acme.json"]


def test_a_memory_that_cannot_be_read_is_said_to_be(tmp_path):
    (tmp_path / "acme%2Fboots.json").write_text("{")
    with pytest.raises(MoveError, match=r"acme%2Fboots\.json cannot be read"):
        Moves(tmp_path).last("acme/boots")


# A running server


class Server:
    """What a console answers, question by question; the last answer again and again."""

    def __init__(self, metrics, pages=()):
        self._metrics = list(metrics)
        self._pages = pages

    def metrics(self):
        return self._metrics.pop(0) if len(self._metrics) > 1 else self._metrics[0]

    def pages(self, after):
        assert after == "end"
        yield []
        yield from self._pages
        while True:
            yield []


@pytest.fixture
def clock(monkeypatch):
    """Time that passes by sleeping alone."""
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def reloads(*numbers):
    return {"waypost_reloads_total": list(numbers)}


def test_it_is_taken_up_when_every_worker_has_it(clock):
    server = Server([reloads(1, 0), reloads(2, 0), reloads(2, 1)])
    assert Watched(server, "").taken_up()
    assert clock == [FOLLOW_EVERY]


@pytest.mark.parametrize("never", [reloads(1, 0), {}])
def test_a_server_that_does_not_take_it_up(clock, never):
    assert not Watched(Server([reloads(1, 0), never]), "").taken_up()
    assert clock[0] > watch.LONGEST


def test_which_file_a_server_reads(tmp_path):
    (tmp_path / "link.toml").symlink_to("waypost.toml")
    watched = Watched(Server([{}]), str(tmp_path / "waypost.toml"))
    assert watched.reads(tmp_path / "link.toml")
    assert not watched.reads(tmp_path)
    assert Watched(Server([{}]), "").reads(tmp_path)
    assert not Watched(Server([{}]), str(tmp_path / "gone.toml")).reads(tmp_path / "waypost.toml")


def pulled(**other):
    event = {"counted": True, "package": "acme/boots", "upstream": "quay.io", "time": "2026-11-22T12:00:01.000000Z"}
    return event | {"version": "1.0", "client": "skopeo", "client_version": "1.9.3"} | other


def test_pulls_through_the_new_upstream_are_told_and_trouble_too(clock):
    digest = f"sha256:{'a' * 64}"
    page = [
        pulled(),
        pulled(counted=False),
        pulled(package="acme/hats"),
        pulled(upstream="ghcr.io"),
        pulled(version=None, digest=digest, client=None, client_version=None),
    ]
    name = "waypost_fetch_failures_total"
    server = Server([{name: [1, 1]}, {name: [1, 1]}, {name: [2, 4]}], [page])
    said = []
    assert Watched(server, "").watch("acme/boots", "quay.io", 3, said.append) == 2
    assert said == [
        "Watching for 3 s; Ctrl-C ends it.",
        "  12:00:01  acme/boots:1.0  through quay.io, by skopeo 1.9.3",
        f"  12:00:01  acme/boots@{digest}  through quay.io",
        f"  ! 4 requests to upstreams that failed, of all packages ({name})",
    ]
    assert clock[0] == 3


def test_ctrl_c_ends_the_watching(clock, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupted)
    assert Watched(Server([{}], [[pulled()]]), "").watch("acme/boots", "quay.io", 60, lambda line: None) == 1
