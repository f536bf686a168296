from __future__ import annotations

import re

import pytest

from waypost.settings import SettingsError, key_lines, load

GOOD = """\
base_domain = "waypost.example"

[[package]]
type = "container"
name = "acme/rocket-skates"
domain = "docker.acme.example"
upstream = "ghcr.io/acme/rocket-skates"

[[package]]
type = "file"
name = "rocket-skates-cli"
domain = "get.acme.example"
routes = [
  { path = "/a", to = "https://dl.example.net/a" },
  { path = "/b", to = "https://dl.example.net/b" },
]

[server]
trusted_proxies = ["127.0.0.1/32"]
"""


def problems(tmp_path, text):
    path = tmp_path / "waypost.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(path)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_a_good_file_has_its_values_and_the_defaults(tmp_path):
    path = tmp_path / "waypost.toml"
    path.write_text(GOOD)
    settings = load(path).settings
    assert [package.name for package in settings.package] == ["acme/rocket-skates", "rocket-skates-cli"]
    assert settings.package[1].routes[1].to == "https://dl.example.net/b"
    assert settings.server.trusted_proxies == ["127.0.0.1/32"]
    assert (settings.count.merge_seconds, settings.spool.fsync_ms, settings.identity.rotation) == (10, 1000, "month")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["waypost.toml: base_domain: found nothing; expected this key; it is required"]),
        ('base_domain = "UPPER.example"', ["waypost.toml:1: base_domain: found 'UPPER.example'; expected a host name"]),
        ('base_domain = "a.example"\nfoo = 1', ["waypost.toml:2: foo: found 'foo'; expected one of base_domain, owner"]),
        ("base_domain = 3", ["waypost.toml:1: base_domain: found 3; expected a string"]),
        ('base_domain = "a.example"\n[count]\nmerge_seconds = -1', ["waypost.toml:3: count.merge_seconds: found -1; expected a whole number >= 0"]),
        ('base_domain = "a.example"\n[identity]\nrotation = "year"', ["waypost.toml:3: identity.rotation: found 'year'; expected one of day, month, never"]),
        ('base_domain = "a.example"\n[geo]\ncity = true', ["waypost.toml:2: geo: found 'geo'; expected to be left out: this version does not have it yet"]),
        ('base_domain = "a.example"\npackage = "x"', ["waypost.toml:2: package: found 'x'; expected a list"]),
        ('base_domain = "a.example"\n[[package]]\nname = "x"', ["waypost.toml:2: package[0].type: found nothing; expected this key"]),
        ('base_domain = "a.example"\n[server]\ntrusted_proxies = ["10.0.0.0/8", "x"]', ["waypost.toml:3: server.trusted_proxies[1]: found 'x'; expected a network"]),
        ('base_domain = "a.example"\n[[upstream]]\nhost = "Ghcr.io"', ["waypost.toml:3: upstream[0].host: found 'Ghcr.io'; expected a host name"]),
        ('base_domain = "a.example"\n[[domain]]\nhost = "d.example"\nbase_url = "d.example"', ["waypost.toml:4: domain[0].base_url: found 'd.example'; expected http(s)://HOST"]),
        *(
            (f'base_domain = "a.example"\n[[domain]]\nhost = "d.example"\nfallback = "{url}"', [f"waypost.toml:4: domain[0].fallback: found '{url}'; expected a URL with a slash"])
            for url in ("https://x.example", "x.example/", "https://x.example/{y}/", "https://me:pw@x.example/", "https://x.example/?y/", "https://x.example:99999/", "https://x.example/é/")
        ),
        ("base_domain = ", ["waypost.toml:1: not TOML: invalid value"]),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_line_key_found_and_expected(tmp_path, text, expected):
    found = problems(tmp_path, text)
    assert len(found) == len(expected)
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


def test_several_mistakes_are_reported_at_once(tmp_path):
    text = GOOD.replace('"container"', "1").replace('"/b"', "2").replace("trusted_proxies", "trusted_proxy")
    found = problems(tmp_path, text)
    assert [re.match(r"waypost.toml:(\d+): ([^:]+):", line).groups() for line in found] == [
        ("4", "package[0].type"),
        ("15", "package[1].routes[1].path"),
        ("19", "server.trusted_proxy"),
    ]


def test_a_file_that_is_not_there_says_how_to_get_one(tmp_path):
    with pytest.raises(SettingsError, match=r"No such file.*waypost add"):
        load(tmp_path / "waypost.toml")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "waypost.toml"
    path.write_bytes(b"base_domain = '\xff'")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load(path)


def test_lines_of_keys():
    lines = key_lines(GOOD)
    assert lines["package[1].routes[1]"] == 15
    assert lines["package[0].upstream"] == 7
    assert lines["server"] == 18
