"""The commands: exit statuses, errors on stderr without a traceback, and what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import pytest
from typer.testing import CliRunner

from waypost import __version__
from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.snapshot import Host, Policy, encode, encode_host
from waypost.cli import app
from waypost.data import DataDirectory
from waypost.events.event import Event, new_id, now_us
from waypost.stores.duckdb import DuckStore
from waypost.stores.store import Row, Verdict
from waypost.supervisor import Address

RUNNER = CliRunner()
GOOD = """\
base_domain = "waypost.example"  # ours

[[package]]
type = "file"
name = "skates"
domain = "get.example"
routes = [{ path = "/{version}/x.tgz", to = "https://dl.example/{version}.tgz" }]
"""
COMMANDS = ("serve", "check", "add", "move", "explain", "stats", "events")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Commands run in a folder of their own, and nothing of the environment reaches them."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("WAYPOST_"):
            monkeypatch.delenv(name)
    return tmp_path


def run(*arguments, status=0):
    """(stdout, stderr) of a command."""
    done = RUNNER.invoke(app, list(arguments), prog_name="waypost")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, done.output
    return done.stdout, done.stderr


def refused(*arguments, status=2):
    """What a command that does not work says: all on stderr."""
    stdout, stderr = run(*arguments, status=status)
    assert stdout == ""
    return stderr


def process(*arguments):
    """The same in a process of its own."""
    return subprocess.run([sys.executable, "-m", "waypost", *arguments], capture_output=True, text=True, timeout=60)


def test_as_people_run_it(here):
    """Nothing but the sentence, and the status."""
    done = process("check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "waypost: the configuration cannot be used:\n"
        "waypost.toml: No such file or directory; `waypost add 'docker pull acme/skates'` makes one\n"
    )


def test_help_is_prose():
    stdout, _ = run("--help")
    assert "One address for ever" in stdout
    for command in COMMANDS:
        assert command in stdout
        text, _ = run(command, "--help")
        said = " ".join(text.split())
        assert ". " in said or said.endswith(".")
        for line in text.splitlines():
            assert not line.rstrip().endswith("..."), line


def test_every_option_and_argument_is_explained():
    for command in COMMANDS:
        text, _ = run(command, "--help")
        listed = [line for line in text.splitlines() if line.startswith("  -")]
        assert listed
        for line in listed:
            # Either words stand beside the option, or below it.
            assert len(line.split("  ")[-1]) > 10 or line == listed[0] or line.strip().split()[0].startswith("-"), line


def test_no_command_shows_the_help():
    stdout, stderr = run(status=2)
    assert "Usage: waypost" in stdout + stderr


def test_the_version():
    assert run("--version")[0] == f"waypost {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("foo",),
        ("serve", "--foo"),
        ("serve", "--workers", "-1"),
        ("serve", "--workers", "x"),
        ("add",),
        ("explain",),
        ("stats", "a", "b"),
        ("check", "extra"),
    ],
)
def test_what_is_no_command_line(arguments):
    assert "Error: " in refused(*arguments)


# check


def test_check_of_a_good_file(here):
    (here / "waypost.toml").write_text(GOOD)
    assert run("check") == ("waypost.toml: 1 rule on 1 host; all is well\n", "")


def test_check_of_another_file(here, monkeypatch):
    (here / "other.toml").write_text(GOOD)
    assert run("check", "--config", "other.toml")[0].startswith("other.toml: ")
    monkeypatch.setenv("WAYPOST_CONFIG", "other.toml")
    assert run("check")[0].startswith("other.toml: ")


def test_check_tells_several_mistakes_with_their_lines(here):
    (here / "waypost.toml").write_text(GOOD.replace('"file"', '"zip"') + "[spool]\nfsync_ms = 0\n[geo]\n")
    assert refused("check").splitlines() == [
        "waypost: the configuration cannot be used:",
        "waypost.toml:9: spool.fsync_ms: found 0; expected a whole number >= 1",
        "waypost.toml:10: geo: found 'geo'; expected to be left out: this version does not have it yet",
    ]


def test_check_warns_on_stderr_and_is_content(here):
    rule = {"type": "file-v1", "package-id": "p", "domain": "m.example", "incoming-path": "/x", "outgoing-url": None}
    (here / "manifest.json").write_text(json.dumps({"rules": [rule, rule]}))
    (here / "waypost.toml").write_text('manifests = ["manifest.json"]\n' + GOOD)
    stdout, stderr = run("check")
    assert stdout.endswith("all is well\n")
    assert stderr.startswith("waypost: m.example: /x (package p) and /x (package p) can match the same path")
    assert stderr.endswith("the first one wins\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base_domain = x", "waypost.toml:1: not TOML: invalid value at column 15"),
        ('\ufeffbase_domain = "UPPER"', "waypost.toml:1: base_domain: found 'UPPER'; expected a host name"),
        (GOOD + "[package]\n", "waypost.toml:8: not TOML: cannot declare"),
        ('base_domain = "a.example"\n[package]\n', "waypost.toml:2: package: found {}; expected a list; a table of it begins with [[package]]"),
        ('base_domain = "a.example"\n[[packages]]\n', "waypost.toml:2: packages: found 'packages'; expected one of base_domain"),
        (GOOD.replace('"skates"', '" "'), "waypost.toml:5: package[0].name: found ' '; expected a name"),
        (GOOD + '[[domain]]\nhost = "x.example"\nlogin = "pass-through"\n', "waypost.toml:10: domain[0].login: found 'pass-through'; expected an image or a collection on this domain, whose registry can check a login"),
        (GOOD + '[[domain]]\nhost = "x.example"\nlogin_upstream = "ghcr.io"\n', "waypost.toml:10: domain[0].login_upstream: found 'ghcr.io'; expected login = \"pass-through\" beside it"),
        (GOOD + '[[upstream]]\nhost = "ghcr.io"\nusername = "acme"\n', "waypost.toml:10: upstream[0].username: found 'no password'; expected either password_env (a variable of the environment) or password_file (its first line)"),
        (GOOD + '[[upstream]]\nhost = "ghcr.io"\npassword_env = "X"\n', "waypost.toml:8: upstream[0].username: found nothing; expected the name that password_env is the password of"),
        (GOOD + '[server]\ntrusted_proxies = ["10.1.2.3/8"]\n', "waypost.toml:9: server.trusted_proxies[0]: found '10.1.2.3/8'; expected a network, perhaps 10.0.0.0/8"),
        (GOOD.replace('domain = "get.example"', 'owner = "Ac me"'), "waypost.toml:6: package[0].owner: found 'Ac me'; expected a name in lower case that Ac me.gateway.waypost.example can be made of"),
        (GOOD.replace("[{", '[{ path = "/a", to = "github:a" }, {'), "waypost.toml:7: package[0].routes[0].to: found 'github:a'; expected github:OWNER/REPOSITORY, github:OWNER/REPOSITORY/archive"),
        (GOOD.replace("[{", '[{ path = "/a", to = 1 }, {'), "waypost.toml:7: package[0].routes[0].to: found 1; expected a string or a list"),
        ('manifests = ["none.json"]\n' + GOOD, "waypost.toml:1: manifests[0]: found 'none.json'; expected a readable file (No such file or directory)"),
        ('manifests = ["."]\n' + GOOD, "waypost.toml:1: manifests[0]: found '.'; expected a readable file (Is a directory)"),
    ],
)  # fmt: skip
def test_mistakes_of_operators(here, text, says):
    (here / "waypost.toml").write_text(text)
    assert says in refused("check")


# add


def test_add_writes_and_says_what_users_type(here):
    (here / "waypost.toml").write_text(GOOD)
    stdout, _ = run("add", "docker pull quay.io/acme/boots:1.0", "--domain", "docker.example")
    assert (
        stdout == "Added to waypost.toml: acme/boots\nNote: a package is all its tags: users may pull any of them.\n"
        "From now on users type:\n\n    docker pull docker.example:8080/acme/boots:1.0\n\n"
    )
    text = (here / "waypost.toml").read_text()
    assert text.startswith(GOOD)
    assert tomllib.loads(text)["package"][1]["upstream"] == "quay.io/acme/boots"
    run("check")


def test_add_without_a_file_makes_one(here):
    stdout, _ = run("add", "https://dl.example/v1.2/skates-1.2.tgz", "--config", "new.toml")
    assert stdout == (
        "Made new.toml: skates\nNote: 1.2 was taken for the version: {version} now stands for any.\n"
        "From now on users type:\n\n    curl -LO http://get.localhost:8080/v1.2/skates-1.2.tgz\n\n"
    )
    run("check", "--config", "new.toml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("",), "neither an image name nor a `docker pull …` command. `waypost add` takes"),
        (("gem install x",), "`gem` is not supported yet"),
        (("acme/x",), "say with --domain HOST which one users will use"),
        (("https://dl.example/x-1.0.tgz", "--domain", "X y"), "--domain: found 'X y'"),
        (("https://dl.example/1.0/x.tgz", "--domain", "get.example"), "nothing was written, since waypost.toml could not be used then:\nwaypost.toml:9: package[1]: on get.example, "),
        (("acme/x", "--domain", "d.example", "--config", "none/waypost.toml"), "none/waypost.toml cannot be written: No such file or directory"),
        (("acme/x", "--domain", "d.example", "--config", "."), "cannot be written: Is a directory"),
    ],
)  # fmt: skip
def test_add_of_what_cannot_be_added(here, arguments, says):
    (here / "waypost.toml").write_text(GOOD)
    assert says in refused("add", *arguments)
    assert (here / "waypost.toml").read_text() == GOOD
    assert os.listdir(here) == ["waypost.toml"]


def test_add_refuses_duplicates(here):
    run("add", "acme/x", "--domain", "d.example")
    before = (here / "waypost.toml").read_text()
    assert "acme/x is in the file already; change its upstream there" in refused(
        "add", "quay.io/acme/x", "--domain", "d.example"
    )
    assert (here / "waypost.toml").read_text() == before


# explain


def test_explain(here):
    (here / "waypost.toml").write_text(GOOD)
    stdout, _ = run("explain", "http://get.example/1.2/x.tgz", "-X", "get", "-H", "Range: bytes=0-")
    assert stdout.splitlines() == [
        "GET http://get.example/1.2/x.tgz",
        "  307 to https://dl.example/1.2.tgz",
        "  why: file: /{version}/x.tgz → https://dl.example/{version}.tgz (version=1.2), package skates",
        "  counted: binary-download of skates, version 1.2, variables version=1.2",
    ]
    assert "expected 'Name: value'" in refused("explain", "http://get.example/", "-H", "x")
    assert "expected a URL such as" in refused("explain", "http://[")


# serve


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080, "127.0.0.1:8080", "http://127.0.0.1:8080")),
        ("[::1]:8080", ("::1", 8080, "[::1]:8080", "http://[::1]:8080")),
        ("[::]:80", ("::", 80, "[::]:80", "http://[::1]:80")),
        ("0.0.0.0:0", ("0.0.0.0", 0, "0.0.0.0:0", "http://127.0.0.1:0")),
        (":8080", ("0.0.0.0", 8080, "0.0.0.0:8080", "http://127.0.0.1:8080")),
        ("localhost:8080", ("localhost", 8080, "localhost:8080", "http://localhost:8080")),
    ],
)
def test_addresses(text, parsed):
    address = Address.parse(text)
    assert (address.host, address.port, str(address), address.url) == parsed


@pytest.mark.parametrize("option", ["--listen", "--console"])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("8080", "expected HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080"),
        ("127.0.0.1:x", "expected HOST:PORT"),
        ("127.0.0.1:65536", "expected HOST:PORT"),
        ("127.0.0.1:²", "expected HOST:PORT"),
        ("", "expected HOST:PORT"),
        ("::1:8080", "an IPv6 address needs brackets, such as [::1]:8080"),
        ("[::1:8080", "an IPv6 address needs brackets"),
    ],
)
def test_addresses_that_are_none(here, option, value, says):
    (here / "waypost.toml").write_text(GOOD)
    other = {"--listen": "--console", "--console": "--listen"}[option]
    assert says in refused("serve", option, value, other, "127.0.0.1:0")


@pytest.mark.parametrize(
    ("listen", "console"), [("203.0.113.1:8080", "127.0.0.1:0"), ("127.0.0.1:0", "203.0.113.1:8080")]
)
def test_addresses_that_cannot_be_listened_on(here, listen, console):
    (here / "waypost.toml").write_text(GOOD)
    done = process("serve", "--listen", listen, "--console", console)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("waypost: cannot listen on 203.0.113.1:8080: ")
    assert done.stderr.endswith("; choose another --listen, --listen-tls or --console\n")
    assert done.stderr.count("\n") == 1


def test_a_bad_configuration_changes_nothing(here):
    (here / "waypost.toml").write_text("nonsense")
    assert "not TOML" in refused("serve")
    assert os.listdir(here) == ["waypost.toml"]


def test_a_data_directory_that_cannot_be_used(here):
    (here / "waypost.toml").write_text(GOOD)
    (here / "file").write_text("")
    arguments = ("serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0")
    assert "cannot use the data directory file: File exists" in refused(*arguments, "--data", "file")
    assert "cannot use the data directory file/x: Not a directory" in refused(*arguments, "--data", "file/x")


# stats and events


@pytest.fixture
def store(here):
    """A store with two downloads, in the default data directory."""
    directory = DataDirectory(here / "waypost-data")
    directory.create()
    directory.write_snapshot(encode(Policy(), [("x", encode_host(Host("x", HostPolicy("http://x"), [])))]))
    one = DuckStore(directory.store, directory.temporary)
    now = now_us()
    rows = []
    for number, version in enumerate(["1.0", "2.0"]):
        event = Event(
            id=new_id(now - number),
            time=now - number,
            kind="binary-download",
            package="skates",
            domain="get.example",
            origin_id=bytes([number]) * 16,
            version=version,
        )
        rows.append(Row(event, Verdict(True, version=version), "curl", "8", "person-or-machine"))
    one.commit(rows, [], {})
    one.close()
    return directory


def test_stats(store):
    stdout, _ = run("stats")
    assert stdout.splitlines()[1].split() == ["skates", "2", "2"]
    assert [line.split()[0] for line in run("stats", "skates")[0].splitlines()[1:3]] == ["1.0", "2.0"]
    assert json.loads(run("stats", "--format", "json", "--by", "day")[0])["total"]["downloads"] == 2
    assert run("stats", "--format", "csv", "--since", "all")[0].startswith("package,downloads,sources")
    assert "Nothing was counted of boots" in run("stats", "boots")[0]


def test_events(store):
    events = [json.loads(line) for line in run("events")[0].splitlines()]
    assert sorted(event["version"] for event in events) == ["1.0", "2.0"]
    assert len(run("events", "--format", "csv")[0].splitlines()) == 3
    assert "--follow needs a running server" in refused("events", "--follow", status=1)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("stats",), 1, "waypost-data holds no events yet; is --data the folder that `waypost serve` uses?"),
        (("events", "--data", "none"), 1, "none holds no events yet"),
        (("stats", "--by", "colour"), 2, "--by: found 'colour'; expected one of version, country"),
        (("stats", "--since", "yesterday"), 2, "--since: found 'yesterday'; expected 30d"),
        (("stats", "--format", "xml"), 2, "--format: found 'xml'; expected one of table, json, csv"),
        (("events", "--format", "table"), 2, "--format: found 'table'; expected ndjson or csv"),
    ],
)
def test_numbers_that_cannot_be_told(arguments, status, says):
    assert says in refused(*arguments, status=status)


def test_a_damaged_store_is_said_to_be_one(here):
    (here / "waypost-data").mkdir()
    (here / "waypost-data" / "events.duckdb").write_text("garbage")
    assert "cannot open waypost-data/events.duckdb" in refused("stats", status=1)
