"""The documents, held to the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_origin, get_type_hints

import msgspec
import pytest
import typer
from msgspec import Struct
from tests.support.manners import MANNERS

from waypost.artifacts.container import ContainerRow
from waypost.artifacts.file import FileRoute
from waypost.artifacts.kind import HostPolicy, Package, Route
from waypost.artifacts.preset import NAMES as PRESETS
from waypost.artifacts.preset import expand
from waypost.artifacts.reach import page
from waypost.artifacts.registries import REGISTRIES, find
from waypost.artifacts.registry import kinds
from waypost.artifacts.snapshot import Host
from waypost.cli import app
from waypost.console.app import Exposition
from waypost.data import DataDirectory
from waypost.events.tally import Tally
from waypost.gateway.limits import Limits
from waypost.routing.manifest import TYPES
from waypost.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def section(page, title):
    """The lines below a heading, up to the next of any level."""
    text = (ROOT / "docs" / page).read_text()
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {title!r}"
    return found[1]


def tables(text):
    """Tables as lists of rows of cells, without head and rule."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        assert all(len(row) == len(rows[0]) for row in rows), rows[0]
        yield rows[2:]


def table(page, title, number=0):
    return list(tables(section(page, title)))[number]


def code(cell):
    return cell.strip("`")


# docs/configuration.md


def keys(struct, prefix=""):
    """Key → its field, as people write them: `spool.fsync_ms`, `package.name`."""
    hints = get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        kind = hints[field.name]
        inner = get_args(kind)[0] if get_origin(kind) is list else kind
        if isinstance(inner, type) and issubclass(inner, Struct) and inner is not Route:
            yield from keys(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field


def check_keys(rows, expected):
    assert [code(row[0]) for row in rows] == [key for key, _ in expected]
    for (key, default, meaning), (_, field) in zip(rows, expected, strict=True):
        assert meaning, key
        if field.required:
            assert default == "required", key
        elif isinstance(field.default, str | int):
            assert code(default) == str(field.default).lower(), key
        else:
            assert default != "required", key


def test_the_keys_of_the_configuration():
    check_keys(table("configuration.md", "Keys"), list(keys(Settings)))


def test_the_keys_of_routes():
    check_keys(table("configuration.md", "Routes"), list(keys(Route)))


def test_what_presets_become():
    rows = table("configuration.md", "Presets")
    assert {to.strip("`").partition(":")[0] for to, _, _ in rows} == set(PRESETS)
    for to, path, url in rows:
        assert expand(code(to), code(path)).url == code(url)


def test_the_example_of_the_page_about_reach_has_its_fields():
    text = section("configuration.md", "What clients must reach")
    example = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    rows = [
        FileRoute("/x", "https://github.com/x", "skates", others=("https://dl.example.net/x",)),
        ContainerRow("acme/skates", "ghcr.io", "acme/skates", "skates"),
    ]
    assert json.loads(page(Host("get.acme.example", HostPolicy("https://get.acme.example"), rows))) == example


def test_the_example_of_files_can_be_used(tmp_path):
    text = re.search(r"```toml\n(.*?)```", (ROOT / "docs/ecosystems/files.md").read_text(), re.DOTALL)[1]
    (tmp_path / "waypost.toml").write_text('base_domain = "waypost.example"\n' + text)
    explained = waypost(tmp_path, "explain", "https://get.acme.example/latest/skates-linux-amd64.tgz")
    assert "307 to https://github.com/acme/skates/releases/latest/download/skates-linux-amd64.tgz" in explained


def test_the_types_of_packages():
    (row,) = [row for row in table("configuration.md", "Keys") if row[0] == "`package.type`"]
    assert re.findall(r"`(\w+)`", row[2]) == [kind.name for kind in kinds() if kind.declare is not None]
    assert {"type", "name"} == {field.name for field in msgspec.structs.fields(Package) if field.required}


COMMANDS = typer.main.get_command(app).commands


def test_the_commands():
    documented = [code(row[0]).removeprefix("waypost ") for row in table("configuration.md", "Commands")]
    assert documented == list(COMMANDS)


def test_the_environment_variables():
    options = {}
    for command in COMMANDS.values():
        for option in command.params:
            if option.envvar:
                options.setdefault(
                    option.envvar, (option.opts[0], "" if option.default is None else str(option.default))
                )
    documented = {}
    for variable, option, default in table("configuration.md", "Commands", 1):
        documented[code(variable)] = (code(option), re.match(r"(?:`([^`]*)`|none)", default)[1] or "")
    assert documented == options


def test_the_metrics(tmp_path):
    collecting = SimpleNamespace(stored=0, failures=0, last_success=0.0)
    data = DataDirectory(tmp_path)
    families = Exposition(collecting, data, [Tally()]).collect()
    expected = {
        family.name + ("_total" if family.type == "counter" else ""): family.documentation for family in families
    }
    rows = table("configuration.md", "The console's address")
    assert {code(name): meaning for name, meaning in rows} == expected


def test_the_types_of_manifest_rules():
    rows = table("configuration.md", "Scarf Gateway manifests")
    assert [code(row[0]) for row in rows] == [rule.__struct_config__.tag for rule in TYPES]


def test_the_example_of_the_page_can_be_used(tmp_path):
    text = re.search(r"```toml\n(.*?)```", (ROOT / "docs/configuration.md").read_text(), re.DOTALL)[1]
    (tmp_path / "waypost.toml").write_text(text)
    (tmp_path / "manifest.json").write_text('{"rules": []}')
    assert waypost(tmp_path, "check").endswith("all is well\n")


# docs/request-handling.md


def test_the_limits():
    documented = {}
    for name, value, beyond in table("request-handling.md", "Limits"):
        assert beyond
        documented[code(name)] = float(value.split()[0])
    assert documented == {name: float(value) for name, value in msgspec.structs.asdict(Limits()).items()}


# How the page calls the kinds of the registry.
WORDS = {
    "install": "install reports", "pixel": "pixels", "container": "images", "file": "file templates", "file-regex": "regular expressions",
    "python": "Python projects", "python-file": "Python files", "telemetry": "telemetry", "catch-all": "catch-all",
    "npm": "npm packages", "npm-rest": "what is left of an npm registry",
}  # fmt: skip


def test_the_order_of_rules():
    text = (ROOT / "docs/request-handling.md").read_text()
    told = re.sub(r"\s+", " ", re.search(r"asked in this order(.*?)Nothing\s+matched", text, re.DOTALL)[1])
    together = {"install", "pixel"}  # of one order
    places = {kind.name: told.index(WORDS[kind.name]) for kind in kinds() if not kind.root}
    order = [kind.name for kind in kinds() if kind.name in places and kind.name not in together]
    assert sorted(order, key=places.__getitem__) == order
    assert all(places[name] < places[order[0]] for name in together)


# docs/what-we-count.md


def test_the_rules_of_counting():
    rules = [row[0] for row in next(tables((ROOT / "docs/what-we-count.md").read_text()))]
    assert rules == [f"C{number}" for number in range(1, 13)]
    named = {
        rule
        for file in (ROOT / "src/waypost").rglob("*.py")
        for rule in re.findall(r"\bC\d+\b", file.read_text())
    }  # fmt: skip
    assert named <= set(rules)
    assert {"C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C12"} <= named


# docs/promises.md, links, README


def test_every_promise_has_its_test():
    for promise, tests in next(tables((ROOT / "docs/promises.md").read_text())):
        files = re.findall(r"`(tests/[^`]+)`", tests)
        assert files, promise
        for file in files:
            assert (ROOT / file).is_file(), file


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), target


def waypost(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")}
    command = [sys.executable, "-m", "waypost", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def transcripts():
    """(command, what it printed) of README's consoles."""
    for block in re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        for command, _, printed in (part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]):
            yield command, printed


def test_the_commands_of_the_readme_exist():
    text = (ROOT / "README.md").read_text()
    scripts = set(re.findall(r"^(scripts/\w+)", text, re.MULTILINE))
    assert {"scripts/serve", "scripts/test"} <= scripts
    for script in scripts:
        assert os.access(ROOT / script, os.X_OK), script
    for command, _ in transcripts():
        words = command.split()
        if words[0].endswith("waypost"):
            assert words[1] in COMMANDS, command


def test_the_readme_prints_what_explain_prints():
    ((command, printed),) = [one for one in transcripts() if " explain " in one[0]]
    assert waypost(ROOT, *command.split()[1:]) == printed


def test_the_readme_prints_what_add_prints(tmp_path):
    ((command, printed),) = [one for one in transcripts() if " add " in one[0]]
    pasted = re.search(r"'([^']*)' --domain (\S+)", command)
    assert waypost(tmp_path, "add", pasted[1], "--domain", pasted[2]).rstrip() == printed.rstrip()
    (tmp_path / "checked").mkdir()
    assert waypost(tmp_path, "check").endswith("all is well\n")


# docs/containers.md


def listed(words):
    return ", ".join(f"`{word}`" for word in words)


def test_the_registries_that_have_a_name():
    documented = table("containers.md", "Registries by name")
    assert documented == [[one.label, listed(one.hosts), one.login, one.account] for one in REGISTRIES]


def test_what_stands_in_for_them():
    """Each has one, and it is described as it behaves."""
    expected = []
    for one in MANNERS.values():
        layers = f"{one.moved} to {'a path of its own' if one.at_home else 'a storage'}" if one.moved else "itself"
        pages = f"{'whole URL' if one.absolute else 'path'}, by {'a cursor' if one.opaque else 'tag'}"
        if one.realm:
            refused = f"is told {one.ungranted[0]}" if one.ungranted else "gets one that does not open it"
            row = [one.label, f"`{one.realm}`", listed(one.grant), layers, pages, refused]
        else:
            row = [one.label, "none: Basic", "–", layers, pages, "–"]
        expected.append(row)
    assert table("containers.md", "Registries by name", 1) == expected
    stood_in = {find(one.host).label for one in MANNERS.values() if find(one.host)}
    assert stood_in == {one.label for one in REGISTRIES}
    for one in MANNERS.values():
        if row := find(one.host):
            assert row.login == ("bearer" if one.realm else "basic")
