"""waypost.toml → Settings. Every error names file, line, key, what was found and what was expected.

The keys and their defaults are those of docs/configuration.md, which a test compares with these Structs.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from waypost.artifacts.kind import Collection, DeclarationError, Package, Route
from waypost.routing.expression import TemplateError
from waypost.routing.outgoing import Outgoing

HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\Z|\[[0-9a-f:.]+\]\Z"
)

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]


class Problem(Struct, frozen=True, order=True):
    """One thing that is wrong with a file, in the words that the operator reads.

    `line` is 0 if unknown. `found` is "" where `expected` is a whole sentence of its own.
    """

    file: str
    line: int
    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        key = f" {self.key}:" if self.key else ""
        found = f"found {self.found}; expected " if self.found else ""
        return f"{where}:{key} {found}{self.expected}"


class SettingsError(Exception):
    """The operator's files cannot be used. Nothing of them is applied. `problems` are all of those found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, sorted(problems))))
        self.problems = sorted(problems)


class Server(Struct, forbid_unknown_fields=True):
    """[server]"""

    trusted_proxies: list[str] = []


class Identity(Struct, forbid_unknown_fields=True):
    """[identity]"""

    rotation: Literal["day", "month", "never"] = "month"


class Spool(Struct, forbid_unknown_fields=True):
    """[spool]"""

    fsync_ms: Positive = 1000
    max_bytes: Annotated[int, Meta(ge=1_048_576)] = 1_073_741_824


class Count(Struct, forbid_unknown_fields=True):
    """[count]"""

    merge_seconds: NotNegative = 10


class Containers(Struct, forbid_unknown_fields=True):
    """[containers]"""

    tag_ttl: NotNegative = 60
    cache_bytes: NotNegative = 1_073_741_824


class CertificateFiles(Struct, forbid_unknown_fields=True):
    """One entry of tls.certificates."""

    domain: str
    certificate: str
    key: str


class Tls(Struct, forbid_unknown_fields=True):
    """[tls]"""

    mode: Literal["off", "files"] = "off"
    certificates: list[CertificateFiles] = []


class Mirrors(Struct, forbid_unknown_fields=True):
    """[mirrors]"""

    probe_seconds: Positive = 20
    hold_seconds: NotNegative = 30
    return_seconds: NotNegative = 600


class Domain(Struct, forbid_unknown_fields=True):
    """[[domain]]: only where a domain differs from the defaults."""

    host: str
    base_url: str | None = None
    login: Literal["none", "pass-through"] = "none"
    login_upstream: str | None = None
    fallback: str | None = None
    http: Literal["redirect", "serve"] = "redirect"
    hsts: bool = False


class Upstream(Struct, forbid_unknown_fields=True):
    """[[upstream]]: a host that clients or we may be sent to."""

    host: str
    connect: str | None = None
    username: str | None = None
    password_env: str | None = None
    password_file: str | None = None


class Settings(Struct, forbid_unknown_fields=True, kw_only=True):
    """The whole file. Paths in it are relative to the file's folder."""

    base_domain: str
    owner: str | None = None
    manifests: list[str] = []
    server: Server = msgspec.field(default_factory=Server)
    identity: Identity = msgspec.field(default_factory=Identity)
    spool: Spool = msgspec.field(default_factory=Spool)
    count: Count = msgspec.field(default_factory=Count)
    containers: Containers = msgspec.field(default_factory=Containers)
    tls: Tls = msgspec.field(default_factory=Tls)
    mirrors: Mirrors = msgspec.field(default_factory=Mirrors)
    domain: list[Domain] = []
    package: list[Package] = []
    collection: list[Collection] = []
    upstream: list[Upstream] = []


# Keys that the contract names and that later work brings: refused with "not yet", not as a typing mistake.
NOT_YET = {
    "database", "geo", "retention", "console",
    "tls.email", "tls.accept_terms", "tls.directory", "tls.fallback_directory", "tls.ca_file", "tls.eab",
    "tls.key_type", "tls.dns",
}  # fmt: skip


class SettingsFile:
    """A read file: its settings, and where each key stands in it."""

    def __init__(self, path: Path, settings: Settings, lines: dict[str, int]) -> None:
        self.path = path
        self.settings = settings
        self._lines = lines

    def line(self, key: str) -> int:
        return _nearest(self._lines, key)

    def problem(self, key: str, found: object, expected: str) -> Problem:
        return Problem(str(self.path), self.line(key), key, _show(found), expected)

    def declaration_problem(self, key: str, error: DeclarationError) -> Problem:
        """A package type's own complaint about what `key` ("package[0]") declares."""
        return self.problem(f"{key}.{error.key}", error.found, error.expected)


def load(path: Path) -> SettingsFile:
    """Reads and checks a file. Raises SettingsError with every problem found."""
    try:
        text = path.read_text("utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError as error:
        advice = f"{error.strerror}; `waypost add 'docker pull acme/skates'` makes one"
        raise SettingsError([Problem(str(path), 0, "", "", advice)]) from None
    except OSError as error:
        raise SettingsError([Problem(str(path), 0, "", "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise SettingsError([Problem(str(path), 0, "", f"byte {error.start} is not UTF-8", "UTF-8 text")]) from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, where = str(error).partition(" (at ")
        place = re.match(r"line (\d+), column (\d+)", where)
        number = int(place[1]) if place else text.count("\n") + 1
        column = f" at column {place[2]}" if place else ""
        said = f"not TOML: {message[:1].lower()}{message[1:]}{column}"
        raise SettingsError([Problem(str(path), number, "", "", said)]) from None
    lines = key_lines(text)
    problems: list[Problem] = []

    def complain(key: str, found: object, expected: str) -> None:
        problems.append(Problem(str(path), _nearest(lines, key), key, _show(found), expected))

    _check(document, Settings, "", complain)
    if not problems:
        settings = msgspec.convert(document, Settings)
        _check_values(settings, complain)
    if problems:
        raise SettingsError(problems)
    return SettingsFile(path, settings, lines)


def _check(value: Any, expected: Any, key: str, complain: Any) -> None:
    """Walks value and type together, so that one mistake does not hide the next (msgspec stops at the first)."""
    if isinstance(expected, type) and issubclass(expected, Struct):
        if not isinstance(value, dict):
            complain(key, value, f"a table with {_words(expected.__struct_fields__)}")
            return
        hints = get_type_hints(expected, include_extras=True)
        for name in value:
            inner = f"{key}.{name}" if key else name
            if name not in hints:
                if re.sub(r"\[\d+\]", "", inner) in NOT_YET:
                    complain(inner, name, "to be left out: this version does not have it yet")
                else:
                    complain(inner, name, f"one of {_words(expected.__struct_fields__)}")
            else:
                _check(value[name], hints[name], inner, complain)
        for field in msgspec.structs.fields(expected):
            if field.required and field.name not in value:
                complain(f"{key}.{field.name}" if key else field.name, "nothing", "this key; it is required")
    elif get_origin(expected) is list and isinstance(value, dict):
        complain(key, value, f"a list; a table of it begins with [[{key}]], in two brackets")
    elif get_origin(expected) is list and isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, get_args(expected)[0], f"{key}[{index}]", complain)
    else:
        try:
            msgspec.convert(value, expected)
        except msgspec.ValidationError as error:
            complain(key, value, _expectation(error, expected))


_TYPE_WORDS = {
    "str": "a string",
    "int": "a whole number",
    "bool": "true or false",
    "array": "a list",
    "null": "nothing",
}


def _expectation(error: msgspec.ValidationError, expected: Any) -> str:
    if get_origin(expected) is Literal:
        values = get_args(expected)
        return f"one of {_words(values)}" if len(values) > 1 else f"{values[0]}; nothing else is supported yet"
    words = re.search(r"Expected `([^`]*)`([^,-]*)", str(error))
    if not words:
        return str(error)
    names = [_TYPE_WORDS.get(name.strip(), name.strip()) for name in words[1].split("|")]
    return " or ".join(name for name in names if name != "nothing") + words[2].rstrip()


def _check_values(settings: Settings, complain: Any) -> None:
    """What types alone cannot say."""
    _host(settings.base_domain, "base_domain", complain)
    for index, network in enumerate(settings.server.trusted_proxies):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            advice = "a network, such as 127.0.0.1/32 or fd00::/8"
            if "host bits" in str(error):
                advice = f"a network, perhaps {ipaddress.ip_network(network, strict=False)}"
            complain(f"server.trusted_proxies[{index}]", network, advice)
    _certificates(settings.tls, complain)
    seen: dict[str, int] = {}
    for index, domain in enumerate(settings.domain):
        _host(domain.host, f"domain[{index}].host", complain)
        if domain.host in seen:
            complain(f"domain[{index}].host", domain.host, "each host once; merge the two [[domain]] tables")
        seen[domain.host] = index
        if domain.base_url is not None and not re.fullmatch(r"https?://[a-z0-9.\[\]:_-]+/?", domain.base_url):
            complain(f"domain[{index}].base_url", domain.base_url, "http(s)://HOST or http(s)://HOST:PORT, lower case")
        if domain.fallback is not None and not _is_folder(domain.fallback):
            complain(f"domain[{index}].fallback", domain.fallback, "a URL with a slash at its end")
        if domain.login_upstream is not None and domain.login == "none":
            complain(f"domain[{index}].login_upstream", domain.login_upstream, 'login = "pass-through" beside it')
    for index, package in enumerate(settings.package):
        if not package.name.strip() or not package.name.isprintable():
            complain(f"package[{index}].name", package.name, "a name")
        _domains(package, f"package[{index}]", complain)
    for index, collection in enumerate(settings.collection):
        _domains(collection, f"collection[{index}]", complain)
    hosts: set[str] = set()
    for index, upstream in enumerate(settings.upstream):
        if not re.fullmatch(r"[a-z0-9.\[\]_-]+(:\d+)?", upstream.host.replace("::", "")):
            complain(
                f"upstream[{index}].host",
                upstream.host,
                "a host name in lower case, with :PORT where its URLs have one",
            )
        if upstream.host in hosts:
            complain(f"upstream[{index}].host", upstream.host, "each host once; merge the two [[upstream]] tables")
        hosts.add(upstream.host)
        if upstream.connect is not None and not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:_-]+/?", upstream.connect):
            complain(f"upstream[{index}].connect", upstream.connect, "http(s)://HOST or http(s)://HOST:PORT")
        _account(upstream, f"upstream[{index}]", complain)


def _certificates(tls: Tls, complain: Any) -> None:
    if tls.mode == "off" and tls.certificates:
        complain("tls.certificates", f"{len(tls.certificates)} of them", 'mode = "files" beside them')
    if tls.mode == "files" and not tls.certificates:
        complain("tls.certificates", "nothing", "certificates = [{ domain = …, certificate = …, key = … }]")
    seen = set()
    for index, one in enumerate(tls.certificates):
        key = f"tls.certificates[{index}].domain"
        if not HOST.match(one.domain.removeprefix("*.")):
            complain(key, one.domain, "a host name in lower case, or one with *. in front of it")
        if one.domain in seen:
            complain(key, one.domain, "each domain once")
        seen.add(one.domain)


def _is_folder(url: str) -> bool:
    """Whether paths can be put behind a URL."""
    try:
        Outgoing.parse(f"{url}{{+path}}", ("path",))
    except TemplateError:
        return False
    return re.fullmatch(r"https?://[!-~]+/", url) is not None and not set(url) & set("{}?#")


def _account(upstream: Upstream, key: str, complain: Any) -> None:
    """A name and one place for its password, or none of it."""
    places = [name for name in ("password_env", "password_file") if getattr(upstream, name) is not None]
    if upstream.username is None and places:
        complain(f"{key}.username", "nothing", f"the name that {places[0]} is the password of")
    if upstream.username is not None and len(places) != 1:
        expected = "either password_env (a variable of the environment) or password_file (its first line)"
        complain(f"{key}.{places[1]}" if places else f"{key}.username", "both" if places else "no password", expected)
    # RFC 7617 section 2: the first colon ends the name.
    if upstream.username is not None and (not upstream.username or ":" in upstream.username):
        complain(f"{key}.username", upstream.username, "a name without a colon")
    for name in places:
        if not getattr(upstream, name):
            complain(f"{key}.{name}", getattr(upstream, name), "a name")


def _domains(entry: Package | Collection, key: str, complain: Any) -> None:
    if entry.domain is not None and entry.domains:
        complain(f"{key}.domains", entry.domains, "either domain or domains, not both")
    if entry.domain is not None:
        _host(entry.domain, f"{key}.domain", complain)
    for number, host in enumerate(entry.domains):
        _host(host, f"{key}.domains[{number}]", complain)
        if host in entry.domains[:number]:
            complain(f"{key}.domains[{number}]", host, "each domain once")


def _host(host: str, key: str, complain: Any) -> None:
    if not HOST.match(host):
        complain(key, host, "a host name in lower case, without scheme, port and path, such as get.acme.example")


def _words(names: Any) -> str:
    return ", ".join(str(name) for name in names)


def _show(value: object) -> str:
    text = "nothing" if value in (None, "nothing") else repr(msgspec.to_builtins(value))
    return text if len(text) <= 120 else text[:117] + "…"


_TABLE = re.compile(r"\s*\[\s*([A-Za-z0-9_.\-\"' ]+?)\s*\]\s*(#.*)?$")
_ARRAY_TABLE = re.compile(r"\s*\[\[\s*([A-Za-z0-9_.\-\"' ]+?)\s*\]\]\s*(#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_\-]+|\"[^\"]*\"|'[^']*')\s*=")
_ITEM = re.compile(r"\s*[\[,]?\s*(\{|\"|')")


def key_lines(text: str) -> dict[str, int]:
    """Key path ("package[0].routes[1]") → line number from 1, for error messages.

    tomllib gives no positions, so this reads headers and keys by their shape. It may be fooled by text that
    looks like TOML inside a multi-line string; then a message names a wrong line, nothing worse.
    """
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    prefix = ""
    last_key = ""
    items = 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := _ARRAY_TABLE.match(line):
            name = header[1]
            counts[name] = counts.get(name, -1) + 1
            prefix = f"{name}[{counts[name]}]"
            lines.setdefault(prefix, number)
            last_key = ""
        elif header := _TABLE.match(line):
            prefix = header[1]
            lines.setdefault(prefix, number)
            last_key = ""
        elif key := _KEY.match(line):
            name = key[1].strip("\"'")
            last_key = f"{prefix}.{name}" if prefix else name
            lines.setdefault(last_key, number)
            items = 0
            if re.match(r"\s*\[\s*[{\"']", line[key.end() :]):
                lines.setdefault(f"{last_key}[0]", number)
                items = 1
        elif last_key and _ITEM.match(line):
            lines.setdefault(f"{last_key}[{items}]", number)
            items += 1
    return lines


def _nearest(lines: dict[str, int], key: str) -> int:
    """The line of a key, or of the closest thing that contains it; 0 if nothing does."""
    while key:
        if key in lines or f"{key}[0]" in lines:
            return lines.get(key) or lines[f"{key}[0]"]
        cut = max(key.rfind("."), key.rfind("["))
        key = key[:cut] if cut > 0 else ""
    return 0


__all__ = [
    "Domain",
    "Package",
    "Problem",
    "Route",
    "Settings",
    "SettingsError",
    "SettingsFile",
    "Upstream",
    "key_lines",
    "load",
]
