"""`waypost add`: from the command that users type today to a [[package]] in the file, comments and order kept."""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import tomlkit
from msgspec import Struct
from tomlkit.items import Array

from waypost.artifacts import npm_command
from waypost.artifacts.npm_command import NpmCommandError
from waypost.artifacts.preset import LATEST, Shown, shown
from waypost.artifacts.reference import ImageNameError, as_written
from waypost.artifacts.registries import shown_at
from waypost.artifacts.requirement import RequirementError, is_command, parse_command
from waypost.catalog.candidate import put
from waypost.settings import HOST

VERSION = re.compile(r"(?<![0-9A-Za-z.])v?(\d+(?:\.\d+)+(?:[-+](?:rc|alpha|beta|pre)[0-9.]*)?)(?![0-9A-Za-z]|\.\d)")
DEFAULT_BASE = "localhost"
_TAKES = "`waypost add` takes a `docker pull`, `pip install` or `npm install` line, an image name or a URL"


class AddError(Exception):
    """The operator asked for something that cannot be added; the message says what to do."""


class Entry(Struct, frozen=True):
    """What will be written. `keys` in the order in which they stand in the file."""

    name: str
    keys: dict[str, object]
    domain: str | None
    use: str  # what users type, with {base} for http(s)://HOST[:PORT] and {host} for HOST[:PORT]
    note: str = ""


class Added(Struct, frozen=True):
    """What happened. `made`: the file did not exist before. `base_url` is how users reach the host."""

    entry: Entry
    made: bool
    base_url: str


def add(path: Path, pasted: str, domain: str | None, port: int) -> Added:
    """Writes the package into the file, or makes the file; `port` is that of the public listener.

    Raises AddError, SettingsError (its lines are those that the file would have had) or OSError; then nothing
    is written.
    """
    if domain is not None and not HOST.match(domain):
        raise AddError(f"--domain: found {domain!r}; expected a host name in lower case, such as get.acme.example")
    entry = read_pasted(pasted, domain)
    made = not path.exists()
    before = "" if made else path.read_bytes().decode()
    if domain is None and (made or _is_for_trying(before)):
        entry = read_pasted(pasted, default_domain(entry))
    if made:
        before = new_text(entry.domain)
    compiled = put(path, add_to_text(before, entry), port)
    host = entry.domain or compiled.hosts[str(entry.keys["type"]), entry.name][0]
    return Added(entry, made, compiled.base_url(host))


def read_pasted(text: str, domain: str | None) -> Entry:
    """A `docker pull …` line, an image's name or web page, or a file's URL → an entry. Raises AddError."""
    text = text.strip()
    command = text.split(maxsplit=1)[0] if text else ""
    if text.startswith(("http://", "https://")):
        return _container(text, domain) if shown_at(text) else _file(text, domain)
    if command in ("curl", "wget"):
        urls = re.findall(r"https?://[^\s'\"]+", text)
        if len(urls) != 1:
            raise AddError(f"found {len(urls)} URLs in {text!r}; expected one: each is a package or a route of its own")
        return _file(urls[0], domain)
    if is_command(text):
        return _python(text, domain)
    if command == "deb":
        return _deb(text, domain)
    if npm_command.is_command(text):
        return _npm(text, domain)
    if command in ("pip", "uv", "poetry", "npm", "yarn", "pnpm", "helm", "cargo", "gem", "go", "brew", "apt", "git"):
        raise AddError(f"`{command}` is not supported yet; {_TAKES}")
    return _container(text, domain)


def _container(text: str, domain: str | None) -> Entry:
    try:
        upstream, name = as_written(text)
    except ImageNameError as error:
        raise AddError(f"{error} {_TAKES}.") from None
    keys = {"type": "container", "name": name, "domain": domain, "upstream": upstream}
    command = "podman" if text.startswith("podman") else "docker"
    tag = None if "@" in text else re.search(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", text)
    note = "a package is all its tags: users may pull any of them" if tag else ""
    return Entry(name, _given(keys), domain, f"{command} pull {{host}}/{name}{tag[0] if tag else ''}", note)


def _file(url: str, domain: str | None) -> Entry:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise AddError(f"found {url!r}; expected a URL ({error})") from None
    if not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment or re.search(r"[{}\s]", url):
        raise AddError(f"found {url!r}; expected the plain URL of a file: no password, query, fragment, braces, blanks")
    released = shown(url)
    if released is not None:
        return _release(released, domain)
    path = parts.path or "/"
    version = VERSION.search(path)
    note = ""
    if version:
        path = path.replace(version[1], "{version}")
        note = f"{version[1]} was taken for the version: {{version}} now stands for any"
    name = _file_name(path) or parts.hostname
    routes = _routes(path, f"{parts.scheme}://{parts.netloc}{path}")
    keys = {"type": "file", "name": name, "domain": domain, "routes": routes}
    return Entry(name, _given(keys), domain, f"curl -LO {{base}}{parts.path or '/'}", note)


def _release(released: Shown, domain: str | None) -> Entry:
    """All files of all releases, since their addresses differ in tag and name only."""
    to, version = released.preset, released.tag or LATEST
    if (found := VERSION.search(version)) and released.tag is not None:
        version = found[1]
        tag = released.tag.replace(version, "{version}")
        to += "" if tag == "{version}" else f"@{tag}"
    name = posixpath.basename(released.project)
    keys = {"type": "file", "name": name, "domain": domain, "routes": _routes("/{version}/{file}", to)}
    use = f"curl -LO {{base}}/{quote(version, safe='')}/{released.file}"
    note = f"{{version}} and {{file}} stand for any; /{LATEST}/{{file}} is of the release that is then the latest"
    return Entry(name, _given(keys), domain, use, note)


def _routes(path: str, to: str) -> Array:
    route = tomlkit.inline_table()
    route.update({"path": path, "to": to})
    routes = tomlkit.array()
    routes.append(route)
    return routes


def _python(text: str, domain: str | None) -> Entry:
    try:
        project, upstream = parse_command(text)
    except RequirementError as error:
        raise AddError(str(error)) from None
    keys = {"type": "python", "name": project, "domain": domain, "upstream": upstream}
    note = f"what {project} needs comes from the `fallback` of its [[domain]], a public index"
    return Entry(project, _given(keys), domain, f"pip install {project} --index-url {{base}}/simple/", note)


def _deb(line: str, domain: str | None) -> Entry:
    """A line of sources.list(5): `deb [options] URL SUITE COMPONENT…`."""
    found = re.fullmatch(r"deb\s+(?:\[[^\]]*\]\s+)?(?P<url>https?://[^\s@]+?)/?\s+\S.*", line)
    if found is None or "{" in line or "}" in line:
        raise AddError(
            f"found {line!r}; expected a line such as `deb https://deb.acme.example/debian stable main`, no password"
        )
    root = found["url"]
    name = urlsplit(root).netloc + urlsplit(root).path
    keys = {"type": "deb", "name": name, "domain": domain, "upstream": root}
    return Entry(name, _given(keys), domain, line[: found.start("url")] + "{base}" + line[found.end("url") :])


def _npm(text: str, domain: str | None) -> Entry:
    try:
        name, registry = npm_command.parse_command(text)
    except NpmCommandError as error:
        raise AddError(str(error)) from None
    keys = {"type": "npm", "name": name, "domain": domain, "upstream": registry}
    scope, slash, _ = name.partition("/")
    # What has a scope can be had from a registry of its own. Everything else comes from one.
    option = f"--{scope}:registry" if slash else "--registry"
    note = f"what {name} needs comes from the `fallback` of its [[domain]], a public registry"
    return Entry(name, _given(keys), domain, f"npm install {name} {option}={{base}}/", "" if slash else note)


def _file_name(path: str) -> str:
    """`/v{version}/skates-{version}-linux.tar.gz` → `skates-linux`: what an entry may be called."""
    stem = re.sub(r"(\.tar)?\.[a-z0-9]+$", "", posixpath.basename(path))
    return re.sub(r"[-_.]v?\{version\}|^v?\{version\}[-_.]?", "", unquote(stem)).strip("-_.")


def _given(keys: dict[str, Any]) -> dict[str, object]:
    return {key: value for key, value in keys.items() if value is not None}


def add_to_text(text: str, entry: Entry) -> str:
    """The file with the entry at its end, and what was there before as it was, to the byte.

    Raises AddError if the text is no TOML or has the package already.
    """
    try:
        document = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise AddError(f"the file is not TOML: {error}") from None
    packages = document.get("package", [])
    if not isinstance(packages, list) or re.search(r"^\s*package\s*=", text, re.MULTILINE):
        raise AddError("`package` is not written as [[package]] tables; nothing can be put after it")
    for package in packages:
        if isinstance(package, dict) and (package.get("type"), package.get("name")) == (entry.keys["type"], entry.name):
            where = "upstream" if "upstream" in entry.keys else "routes"
            raise AddError(f"{entry.name} is in the file already; change its {where} there")
    if entry.domain is None and "owner" not in document:
        raise AddError("the file names no owner to make a host of; say with --domain HOST which one users will use")
    table = tomlkit.table()
    for key, value in entry.keys.items():
        table.add(key, value)
    added = "[[package]]\n" + tomlkit.dumps(table)
    before = f"{text.rstrip()}\n\n" if text.strip() else ""
    if "\r\n" in text:
        before, added = f"{text.rstrip()}\r\n\r\n", added.replace("\n", "\r\n")
    return before + added


def new_text(domain: str | None) -> str:
    """The beginning of a file that did not exist."""
    base = domain.split(".", 1)[1] if domain and domain.count(".") > 1 else DEFAULT_BASE
    return (
        f"# Waypost. What is published where; edits are taken up within a second.\nbase_domain = {base!r}\n\n".replace(
            "'", '"'
        )
    )


def default_domain(entry: Entry) -> str:
    """Where an entry goes on a machine where somebody tries us.

    Images, Python projects and npm packages at `localhost` itself: container clients and Node do not look up names
    below it, and it is the one name that clients and pip ask without TLS.
    """
    kind = entry.keys["type"]
    if kind in ("container", "python", "npm"):
        return DEFAULT_BASE
    return f"{'get' if kind == 'file' else kind}.{DEFAULT_BASE}"


def _is_for_trying(text: str) -> bool:
    """Whether this is a file that `new_text` began: no owner, and nothing but this machine."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return document.get("base_domain") == DEFAULT_BASE and "owner" not in document
