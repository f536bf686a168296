"""From waypost.toml and its manifests to a snapshot."""

from __future__ import annotations

import json

import pytest

from waypost.artifacts.container import ContainerRow
from waypost.artifacts.file import FileRoute
from waypost.artifacts.pixel import PixelRow
from waypost.artifacts.registry import kinds
from waypost.artifacts.snapshot import Snapshot, UpstreamRow, decode_host
from waypost.artifacts.telemetry import InstallRow
from waypost.catalog.compile import compile_file
from waypost.settings import SettingsError

BASE = 'base_domain = "waypost.example"\n'
TYPES = ", ".join(kind.name for kind in kinds() if kind.declare is not None)


def write(folder, text, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps({"rules": content}))
    path = folder / "waypost.toml"
    path.write_text(BASE + text)
    return path


def compiled(folder, text, port=8080, **files):
    return compile_file(write(folder, text, **files), port)


def problems(folder, text, **files):
    with pytest.raises(SettingsError) as caught:
        compiled(folder, text, **files)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def host(one, name):
    return decode_host(Snapshot(one.snapshot).blob(name))


def package(name, text='domain = "get.example"\nroutes = [{ path = "/x" }]', kind="file"):
    return f'[[package]]\ntype = "{kind}"\nname = "{name}"\n{text}\n'


def rule(path, to=None, domain="get.example", **more):
    return {"type": "file-v1", "package-id": "id", "domain": domain, "incoming-path": path, "outgoing-url": to, **more}


def test_pixels_and_install_reports_are_always_there(tmp_path):
    one = compiled(tmp_path, "")
    assert host(one, "static.waypost.example").rows == [PixelRow()]
    assert host(one, "waypost.example").rows == [InstallRow()]
    assert one.summary == "0 rules on 0 hosts"  # nothing that somebody declared
    assert one.files == (tmp_path / "waypost.toml",)


def test_rows_of_a_package_stand_on_each_of_its_domains(tmp_path):
    text = (
        'domains = ["a.example", "b.example"]\nroutes = [{ path = "/x" }, { path = "/y", to = "https://t.example/y" }]'
    )
    one = compiled(tmp_path, package("skates", text))
    rows = [FileRoute("/x", None, "skates"), FileRoute("/y", "https://t.example/y", "skates")]
    assert host(one, "a.example").rows == host(one, "b.example").rows == rows
    assert one.hosts == {("file", "skates"): ["a.example", "b.example"]}


def test_hosts_are_made_of_owner_and_base(tmp_path):
    text = (
        'owner = "acme"\n'
        + package("one", 'routes = [{ path = "/x" }]')
        + package("two", 'owner = "other"\nroutes = [{ path = "/x" }]')
        + package("three", 'upstream = "ghcr.io/acme/three"', "container")
    )
    one = compiled(tmp_path, text)
    assert one.hosts == {
        ("file", "one"): ["acme.gateway.waypost.example"],
        ("file", "two"): ["other.gateway.waypost.example"],
        ("container", "three"): ["acme.docker.waypost.example"],
    }
    assert host(one, "acme.docker.waypost.example").rows == [
        ContainerRow("three", "ghcr.io", "acme/three", "three", "acme")
    ]
    assert host(one, "other.gateway.waypost.example").rows[0].owner == "other"


def test_without_an_owner_a_domain_is_needed(tmp_path):
    assert problems(tmp_path, package("x", 'routes = [{ path = "/x" }]')) == [
        "waypost.toml:2: package[0].domain: found nothing; expected a domain, or an owner from whose name one can be made"
    ]


@pytest.mark.parametrize(
    ("port", "text", "url"),
    [
        (8080, "", "http://get.example:8080"),
        (80, "", "http://get.example"),
        (8080, '[[domain]]\nhost = "get.example"\nbase_url = "https://get.example/"\n', "https://get.example"),
    ],
)
def test_how_users_reach_a_host(tmp_path, port, text, url):
    one = compiled(tmp_path, text + package("x"), port)
    assert one.base_url("get.example") == url
    with pytest.raises(KeyError):
        one.base_url("unknown.example")


def test_the_policy_is_what_the_file_says(tmp_path):
    text = """
[server]
trusted_proxies = ["10.0.0.0/8"]
[identity]
rotation = "day"
[spool]
fsync_ms = 5
max_bytes = 2_000_000
[count]
merge_seconds = 3
[[upstream]]
host = "ghcr.io"
connect = "http://127.0.0.1:5001"
"""
    policy = Snapshot(compiled(tmp_path, text).snapshot).policy
    assert (policy.trusted_proxies, policy.rotation, policy.fsync_ms) == (("10.0.0.0/8",), "day", 5)
    assert (policy.spool_max_bytes, policy.merge_seconds) == (2_000_000, 3)
    assert policy.upstreams == (UpstreamRow("ghcr.io", "http://127.0.0.1:5001"),)


def test_manifests_come_after_declared_packages(tmp_path):
    one = compiled(
        tmp_path,
        'manifests = ["a.json", "b.json"]\n' + package("declared"),
        a=[rule("/a")],
        b=[rule("/b", domain="other.example")],
    )
    assert [row.path for row in host(one, "get.example").rows] == ["/x", "/a"]
    assert [row.path for row in host(one, "other.example").rows] == ["/b"]
    assert one.files == tuple(tmp_path / name for name in ("waypost.toml", "a.json", "b.json"))


def test_one_package_twice_is_refused(tmp_path):
    assert problems(tmp_path, package("x") + package("x")) == [
        "waypost.toml:9: package[1].name: found 'x'; expected each package once; package[0] in line 2 has this name already"
    ]
    other_type = package("x", 'domain = "d.example"\nupstream = "ghcr.io/acme/x"', "container")
    compiled(
        tmp_path,
        package("x") + other_type + package("x", 'domain = "y.example"\nroutes = [{ path = "/x" }]\nowner = "other"'),
    )


def test_clashing_packages_are_refused_with_both_lines(tmp_path):
    clash = "can match the same path, and neither has more literal text or fewer variables"
    assert problems(tmp_path, package("one") + package("two")) == [
        f"waypost.toml:7: package[1]: on get.example, /x (package one) and /x (package two) {clash}; package[0] is in line 2"
    ]
    routes = 'domain = "get.example"\nroutes = [{ path = "/{a}" }, { path = "/{b}" }]'
    assert problems(tmp_path, package("one", routes)) == [
        f"waypost.toml:2: package[0]: on get.example, /{{a}} (package one) and /{{b}} (package one) {clash}"
    ]
    image = 'domain = "d.example"\nupstream = "ghcr.io/acme/x"\n'
    assert problems(
        tmp_path, package("x", image, "container") + package("x", image + 'owner = "other"', "container")
    ) == [
        "waypost.toml:8: package[1]: on d.example, the image x is declared twice, and needs a name of its own; package[0] is in line 2"
    ]


def test_in_manifests_the_first_wins_with_a_warning(tmp_path):
    one = compiled(tmp_path, 'manifests = ["a.json"]\n' + package("declared"), a=[rule("/x"), rule("/y"), rule("/y")])
    assert len(one.warnings) == 2
    assert "get.example: /x (package declared) and /x (package id) can match" in one.warnings[0]
    assert "get.example: /y (package id) and /y (package id) can match" in one.warnings[1]
    assert all(warning.endswith("; the first one wins") for warning in one.warnings)


def test_declared_packages_alone_bring_no_warnings(tmp_path):
    assert compiled(tmp_path, package("x")).warnings == ()


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    text = (
        'manifests = ["a.json", "b.json"]\n'
        + package("x", 'domain = "d.example"')
        + package("y", "", "zip")
        + package("z", 'domain = "d.example"', "container")
    )
    assert problems(tmp_path, text, a='{"rules": 1}') == [
        'a.json: Expected `array`, got `int` - at `$.rules`; expected a JSON object {"rules": [...]}',
        "waypost.toml:2: manifests[1]: found 'b.json'; expected a readable file (No such file or directory)",
        "waypost.toml:3: package[0].routes: found nothing; expected at least one route: routes = [{ path = …, to = … }]",
        f"waypost.toml:8: package[1].type: found 'zip'; expected one of {TYPES}",
        "waypost.toml:11: package[2].upstream: found nothing; expected the image that is published, such as ghcr.io/acme/x",
    ]


def test_every_route_that_cannot_work_is_told(tmp_path):
    routes = 'domain = "d.example"\nroutes = [\n{ path = "a" },\n{ path = "/b", to = "https://t.example/{x}" },\n{ path = "/c" },\n]'
    assert problems(tmp_path, package("x", routes)) == [
        "waypost.toml:7: package[0].routes[0].path: found 'a'; expected a path template: A path begins with '/'.",
        "waypost.toml:8: package[0].routes[1].to: found 'https://t.example/{x}'; expected a URL template: "
        "The incoming path binds no variable 'x'.",
    ]


def test_a_domain_twice_in_one_package_is_refused(tmp_path):
    assert problems(tmp_path, package("x", 'domains = ["a.example", "a.example"]\nroutes = [{ path = "/x" }]')) == [
        "waypost.toml:5: package[0].domains[1]: found 'a.example'; expected each domain once"
    ]


SECURE = '[[domain]]\nhost = "get.example"\nbase_url = "https://get.example"\n'


def test_https_never_leads_to_http(tmp_path):
    routes = (
        'domain = "get.example"\nroutes = [\n{ path = "/a", to = "http://t.example/a" },\n{ path = "/b", to = "https://t.example/b" },\n'
        '{ path = "/c", to = "http://t.example/c", proxy = true },\n{ path = "/d", to = "HTTP://t.example/d" },\n'
        '{ path = "/e", to = ["https://t.example/e", "http://t.example/e"] },\n]'
    )
    advice = "expected https://…, since get.example is on https; or proxy = true, and what it has passes through us"
    assert problems(tmp_path, SECURE + package("x", routes)) == [
        f"waypost.toml:10: package[0].routes[0].to: found 'http://t.example/a'; {advice}",
        f"waypost.toml:13: package[0].routes[3].to: found 'HTTP://t.example/d'; {advice}",
        f"waypost.toml:14: package[0].routes[4].to: found 'http://t.example/e'; {advice}",
    ]
    compiled(tmp_path, package("x", routes))
    compiled(tmp_path, SECURE + package("x", routes + "\nproxy = true"))

    tree = 'domains = ["plain.example", "get.example"]\nupstream = ["https://one.example", "http://two.example"]'
    assert problems(tmp_path, SECURE + package("x", tree, "deb")) == [
        f"waypost.toml:9: package[0].upstream[1]: found 'http://two.example'; {advice}"
    ]
    compiled(tmp_path, SECURE + package("x", tree + "\nproxy = true", "deb"))


def test_of_manifests_that_is_a_warning(tmp_path):
    rules = [rule("/a", "http://t.example/a"), rule("/b", "https://t.example/b"), rule("/c", "http://t.example/c")]
    rules += [{"type": "file-v2", "package-id": "id", "domain": "get.example", "incoming-path": "^/r", "outgoing-url": "http://t.example/r"}]  # fmt: skip
    manifest = 'manifests = ["a.json"]\n'
    proxied = 'domain = "get.example"\nroutes = [{ path = "/p", to = "http://t.example/p", proxy = true }]'
    one = compiled(tmp_path, manifest + SECURE + package("x", proxied), a=rules)
    assert one.warnings == ("get.example is on https, and never leads to http://t.example/a and 2 more",)
    assert len(host(one, "get.example").rows) == 5
    assert compiled(tmp_path, manifest, a=rules).warnings == ()
