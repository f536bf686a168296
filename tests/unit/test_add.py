"""`waypost add`."""

from __future__ import annotations

import os
import re
import tomllib

import pytest

from waypost.catalog.add import AddError, add, add_to_text, read_pasted
from waypost.catalog.compile import compile_file
from waypost.catalog.explain import explain_request
from waypost.settings import SettingsError

FILE = """\
# Ours. Do not sort.
base_domain = "waypost.example"   # where managed domains end

[[package]]  # the first
type   = "container"
name   = "acme/boots"
domain = "docker.acme.example"
upstream = "ghcr.io/acme/boots"

[server]
trusted_proxies = [
  "127.0.0.1/32",  # the load balancer
]
# The end."""


@pytest.mark.parametrize(
    ("pasted", "name", "upstream"),
    [
        ("docker pull rocket-skates", "rocket-skates", "rocket-skates"),
        ("docker pull acme/rocket-skates:1.2", "acme/rocket-skates", "acme/rocket-skates"),
        (
            "docker pull -q quay.io/acme/rocket-skates@sha256:" + "0" * 64,
            "acme/rocket-skates",
            "quay.io/acme/rocket-skates",
        ),
        ("sudo podman pull docker.io/acme/x", "acme/x", "docker.io/acme/x"),
        ("docker://ghcr.io/acme/x", "acme/x", "ghcr.io/acme/x"),
        ("localhost:5000/x:edge", "x", "localhost:5000/x"),
        ("  acme/x  ", "acme/x", "acme/x"),
        ("https://hub.docker.com/_/redis", "redis", "redis"),
        ("https://github.com/Acme/skates/pkgs/container/boots", "acme/boots", "ghcr.io/acme/boots"),
        ("https://quay.io/repository/acme/x?tab=tags", "acme/x", "quay.io/acme/x"),
    ],
)
def test_images_keep_their_spelling(pasted, name, upstream):
    entry = read_pasted(pasted, "d.example")
    assert entry.keys == {"type": "container", "name": name, "domain": "d.example", "upstream": upstream}
    command, tag = "podman" if pasted.startswith("podman") else "docker", ""
    if tagged := re.search(r"[a-z](:[a-z0-9.]+)$", pasted):
        tag = tagged[1]
        assert "users may pull any of them" in entry.note
    assert entry.use == f"{command} pull {{host}}/{name}{tag}"


@pytest.mark.parametrize(
    ("url", "name", "path", "to"),
    [
        ("https://dl.example/skates.tgz", "skates", "/skates.tgz", "https://dl.example/skates.tgz"),
        (
            "https://dl.example:8443/v1.2.3/skates-1.2.3-linux.tar.gz", "skates-linux",
            "/v{version}/skates-{version}-linux.tar.gz", "https://dl.example:8443/v{version}/skates-{version}-linux.tar.gz",
        ),
        ("http://dl.example/SKATES_v10.2-rc1.zip", "SKATES", "/SKATES_v{version}.zip", "http://dl.example/SKATES_v{version}.zip"),
        ("https://1.2.3.4/x-1.2.3.4.zip", "x", "/x-{version}.zip", "https://1.2.3.4/x-{version}.zip"),
        ("https://dl.example/1.2.3/", "dl.example", "/{version}/", "https://dl.example/{version}/"),
        ("https://dl.example", "dl.example", "/", "https://dl.example/"),
        (
            "https://github.com/acme/boots/archive/refs/tags/v1.2.zip", "github.com",
            "/acme/boots/archive/refs/tags/v{version}.zip", "https://github.com/acme/boots/archive/refs/tags/v{version}.zip",
        ),
        ("https://dl.example/sha256.txt", "sha256", "/sha256.txt", "https://dl.example/sha256.txt"),
    ],
)  # fmt: skip
def test_urls_become_routes_with_their_version_in_them(url, name, path, to):
    entry = read_pasted(url, None)
    assert entry.name == name
    assert entry.keys["routes"] == [{"path": path, "to": to}]
    assert bool(entry.note) == ("{version}" in path)


def test_a_line_of_sources_list_becomes_its_repository(tmp_path):
    line = "deb [arch=amd64 signed-by=/etc/apt/keyrings/acme.asc] https://deb.acme.example/debian/ stable main extra"
    path = tmp_path / "waypost.toml"
    added = add(path, line, "apt.acme.example", 8080)
    (package,) = tomllib.loads(path.read_text())["package"]
    assert package == {
        "type": "deb",
        "name": "deb.acme.example/debian",
        "domain": "apt.acme.example",
        "upstream": "https://deb.acme.example/debian",
    }
    assert added.entry.use == ("deb [arch=amd64 signed-by=/etc/apt/keyrings/acme.asc] {base}/ stable main extra")
    # Whoever tries us gets a domain for it alone.
    other = tmp_path / "other.toml"
    assert add(other, "deb https://deb.acme.example ./", None, 8080).base_url == "http://deb.localhost:8080"


@pytest.mark.parametrize(
    ("url", "to", "use"),
    [
        ("github.com/acme/boots/releases/download/v1.2/b.tgz", "github:acme/boots@v{version}", "/1.2/b.tgz"),
        ("github.com/acme/boots/releases/download/1.2/b-1.2.tgz", "github:acme/boots", "/1.2/b-1.2.tgz"),
        ("github.com/acme/boots/releases/download/cli%2Fv1.2/b", "github:acme/boots@cli/v{version}", "/1.2/b"),
        ("github.com/acme/boots/releases/download/night%2Fly/b", "github:acme/boots", "/night%2Fly/b"),
        ("github.com/acme/boots/releases/latest/download/b.tgz", "github:acme/boots", "/latest/b.tgz"),
        ("gitlab.com/acme/x/boots/-/releases/v1/downloads/b", "gitlab:acme/x/boots", "/v1/b"),
        ("gitlab.com/acme/x/boots/-/releases/permalink/latest/downloads/b", "gitlab:acme/x/boots", "/latest/b"),
    ],
)
def test_files_of_releases_become_presets(tmp_path, url, to, use):
    added = add(tmp_path / "waypost.toml", f"curl -LO https://{url}", "get.acme.example", 8080)
    assert added.entry.name == "boots"
    assert added.entry.keys["routes"] == [{"path": "/{version}/{file}", "to": to}]
    assert added.entry.use == f"curl -LO {{base}}{use}"
    # What users are told to type leads where the pasted URL led.
    snapshot = compile_file(tmp_path / "waypost.toml", 8080).snapshot
    answer = explain_request(snapshot, "GET", f"http://get.acme.example{use}", (), lambda *_: None)[1]
    assert answer == f"  307 to https://{url}".replace("cli%2Fv", "cli/v")


@pytest.mark.parametrize(
    ("pasted", "says"),
    [
        ("", "neither an image name"),
        ("npm run skates", "`npm` is not supported yet"),
        ("npm install skates boots", "name of one package"),
        ("pip list", "`pip` is not supported yet"),
        ("pip install skates boots", "name of one project"),
        ("deb cdrom:[Debian] bookworm main", "expected a line such as"),
        ("deb https://deb.acme.example/debian", "expected a line such as"),
        ("deb [x={a}] https://deb.acme.example/debian stable", "expected a line such as"),
        ("deb https://u:p@deb.acme.example/debian stable main", "no password"),
        ("docker run x", "neither an image name"),
        ("docker pull a b", "names 2 images"),
        ("docker pull 'x", "quotation mark"),
        ("Acme/X", "lower-case"),
        ("ftp://dl.example/x", "is a URL"),
        ("https://hub.docker.com/u/acme", "a page of Docker Hub, but not of one image"),
        ("https://", "plain URL"),
        ("https://[::1/x", "expected a URL"),
        ("https://user:pw@dl.example/x", "no password"),
        ("https://dl.example/x?y", "plain URL"),
        ("https://dl.example/x#y", "plain URL"),
        ("https://dl.example/{x}", "plain URL"),
        ("https://dl.example/a b", "plain URL"),
    ],
)
def test_what_cannot_be_added_says_why(pasted, says):
    with pytest.raises(AddError, match=says):
        read_pasted(pasted, "d.example")


@pytest.mark.parametrize(
    ("pasted", "name", "upstream"),
    [
        ("pip install skates --index-url https://pypi.example/simple", "skates", "https://pypi.example/simple/"),
        ("python3 -m pip install 'My.Skates[fast]>=1' -i https://x.example/", "My.Skates", "https://x.example/"),
        ("uv pip install skates -i https://x.example", "skates", "https://x.example/"),
    ],
)
def test_python_projects(pasted, name, upstream):
    entry = read_pasted(pasted, "d.example")
    assert entry.keys == {"type": "python", "name": name, "domain": "d.example", "upstream": upstream}
    assert entry.use == f"pip install {name} --index-url {{base}}/simple/"
    assert "fallback" in entry.note


def test_a_python_project_is_tried_where_pip_asks_without_tls(tmp_path):
    path = tmp_path / "waypost.toml"
    added = add(path, "pip install skates -i https://x.example", None, 8080)
    assert added.base_url == "http://localhost:8080"
    assert tomllib.loads(path.read_text())["package"][0]["type"] == "python"


@pytest.mark.parametrize(
    ("pasted", "name", "upstream", "use"),
    [
        (
            "npm install @acme/skates --registry https://npm.example/",
            "@acme/skates",
            "https://npm.example",
            "npm install @acme/skates --@acme:registry={base}/",
        ),
        (
            "yarn add skates@1 --registry https://npm.example",
            "skates",
            "https://npm.example",
            "npm install skates --registry={base}/",
        ),
    ],
)
def test_npm_packages(tmp_path, pasted, name, upstream, use):
    entry = read_pasted(pasted, "d.example")
    assert entry.keys == {"type": "npm", "name": name, "domain": "d.example", "upstream": upstream}
    assert entry.use == use
    assert ("fallback" in entry.note) is (name == "skates")
    added = add(tmp_path / "waypost.toml", pasted, None, 8080)
    assert added.base_url == "http://localhost:8080"


def test_what_was_there_stays_to_the_byte(tmp_path):
    path = tmp_path / "waypost.toml"
    path.write_text(FILE)
    path.chmod(0o640)
    added = add(path, "docker pull quay.io/acme/skates", "docker.acme.example", 8080)
    assert path.read_text() == (
        FILE + '\n\n[[package]]\ntype = "container"\nname = "acme/skates"\ndomain = "docker.acme.example"\n'
        'upstream = "quay.io/acme/skates"\n'
    )
    assert (added.made, added.base_url) == (False, "http://docker.acme.example:8080")
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["waypost.toml"]


def test_line_ends_stay(tmp_path):
    path = tmp_path / "waypost.toml"
    path.write_bytes(FILE.replace("\n", "\r\n").encode())
    add(path, "acme/skates", "docker.acme.example", 8080)
    text = path.read_bytes().decode()
    assert text.startswith(FILE.replace("\n", "\r\n"))
    assert "\n" not in text.replace("\r\n", "")
    assert len(tomllib.loads(text)["package"]) == 2


def test_a_file_that_is_not_there_is_made(tmp_path):
    path = tmp_path / "waypost.toml"
    added = add(path, "docker pull acme/skates", None, 8080)
    assert (added.made, added.base_url) == (True, "http://localhost:8080")
    assert tomllib.loads(path.read_text())["base_domain"] == "localhost"
    assert add(path, "https://dl.example/y.tgz", None, 8080).base_url == "http://get.localhost:8080"
    assert add(path, "curl -fsSLO https://dl.example/z.tgz", None, 8080).entry.name == "z"
    add(path, "https://dl.example/x.tgz", "get.acme.example", 8080)
    other = tmp_path / "other.toml"
    add(other, "https://dl.example/x.tgz", "get.acme.example", 8080)
    assert tomllib.loads(other.read_text())["base_domain"] == "acme.example"


def test_several_manifests_beside_the_file_are_still_found(tmp_path):
    (tmp_path / "manifest.json").write_text('{"rules": []}')
    path = tmp_path / "waypost.toml"
    path.write_text('base_domain = "waypost.example"\nowner = "acme"\nmanifests = ["manifest.json"]\n')
    assert add(path, "acme/x", None, 80).base_url == "http://acme.docker.waypost.example"


@pytest.mark.parametrize(
    ("text", "pasted", "domain", "says"),
    [
        (FILE, "acme/boots", "d.example", "acme/boots is in the file already; change its upstream there"),
        (FILE, "acme/skates", None, "no owner to make a host of; say with --domain"),
        (FILE, "acme/skates", "D.example", "--domain: found 'D.example'"),
        (FILE, "acme/skates", "https://d.example", "--domain: found"),
        ("base_domain = ", "acme/skates", "d.example", "the file is not TOML"),
        ("package = []", "acme/skates", "d.example", r"not written as \[\[package\]\]"),
        ("package = 3", "acme/skates", "d.example", r"not written as \[\[package\]\]"),
    ],
)
def test_a_file_that_cannot_take_it_is_left_alone(tmp_path, text, pasted, domain, says):
    path = tmp_path / "waypost.toml"
    path.write_text(text)
    with pytest.raises(AddError, match=says):
        add(path, pasted, domain, 8080)
    assert path.read_text() == text
    assert os.listdir(tmp_path) == ["waypost.toml"]


def test_a_package_that_would_not_fit_is_not_written(tmp_path):
    path = tmp_path / "waypost.toml"
    add(path, "https://dl.example/1.0/x.tgz", "get.example", 8080)
    before = path.read_text()
    with pytest.raises(SettingsError, match="can match the same path"):
        add(path, "https://dl.example/x.tgz/1.0", "get.example", 8080)
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["waypost.toml"]


def test_an_empty_file_is_no_trouble():
    entry = read_pasted("acme/x", "d.example")
    assert add_to_text("\n", entry).startswith("[[package]]\n")
