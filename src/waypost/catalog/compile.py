"""waypost.toml and its manifests → the snapshot that gateways serve. Everything that is wrong is found here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from waypost.artifacts import container
from waypost.artifacts.file import KIND as FILE
from waypost.artifacts.file import FileRoute
from waypost.artifacts.kind import Clash, Collection, DeclarationError, HostPolicy, Kind
from waypost.artifacts.npm import NpmRestRow
from waypost.artifacts.pixel import PixelRow
from waypost.artifacts.registry import kinds
from waypost.artifacts.snapshot import Host, Policy, Snapshot, UpstreamRow, by_kind, decode_host, encode, encode_host
from waypost.artifacts.telemetry import InstallRow
from waypost.catalog.certificates import Certificates
from waypost.catalog.downgrades import Secure, check_package, downgrades
from waypost.catalog.imported import read_manifest
from waypost.catalog.logins import Logins, account_warnings
from waypost.routing.manifest import ManifestError
from waypost.settings import HOST, Package, Problem, Settings, SettingsError, SettingsFile, Upstream, load

# How a default host is made of owner and base domain: {type} → label. Other types take their own name.
_LABELS = {"container": "docker", "file": "gateway", "python": "gateway"}


class Compiled(Struct, frozen=True):
    """A configuration that holds together.

    files     everything that was read: the configuration is looked at again when one of them changes
    warnings  sentences about what works, but perhaps not as meant
    hosts     (type, name) of a declared package → its hosts
    certificates  how many there are
    """

    snapshot: bytes
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    summary: str
    hosts: dict[tuple[str, str], list[str]]
    certificates: int = 0

    def base_url(self, host: str) -> str:
        """How users reach a host of the snapshot."""
        blob = Snapshot(self.snapshot).blob(host)
        if blob is None:
            raise KeyError(host)
        return decode_host(blob).policy.base_url


def compile_file(path: Path, port: int, tls_port: int | None = None) -> Compiled:
    """Reads and compiles; `port` is that of the public listener, `tls_port` that of the one for https, if there is one.

    Raises SettingsError with every problem found.
    """
    file = load(path)
    settings = file.settings
    certificates = Certificates(file)
    secure = Secure(settings, certificates)
    declared = _Declared(file, secure)
    for index, package in enumerate(settings.package):
        declared.package(index, package)
    for index, collection in enumerate(settings.collection):
        declared.collection(index, collection)
    declared.check_clashes()

    files = [path, *(path.parent / name for name in settings.manifests)]
    hosts = {host: list(rows) for host, rows in declared.rows.items()}
    imported = set()
    problems = declared.problems
    for index, manifest in enumerate(files[1:]):
        try:
            for one in read_manifest(manifest):
                hosts.setdefault(one.host, []).append(one.row)
                imported.add(one.host)
        except OSError as error:
            found = settings.manifests[index]
            problems.append(file.problem(f"manifests[{index}]", found, f"a readable file ({error.strerror})"))
        except ExceptionGroup as group:
            problems.extend(_manifest_problem(manifest, error) for error in group.exceptions)
    logins = Logins(file, hosts)
    problems += [*logins.problems, *certificates.problems]
    if problems:
        raise SettingsError(problems)
    # In manifests the first of two equal rules wins: worth a warning, since the second never answers.
    warnings = [
        f"{host}: {clash.why}; the first one wins" for host in sorted(imported) for clash in _clashes(hosts[host])
    ]
    warnings += downgrades(hosts, imported, secure)
    policy = _policy(settings, path.parent, certificates)
    if certificates.rows and tls_port is None:
        warnings.append("certificates are declared, but nothing listens for https: give --listen-tls HOST:PORT")
    warnings += [*logins.warnings, *account_warnings(policy), *certificates.warnings]

    domains = {domain.host: domain for domain in settings.domain}

    def policy_of(host: str) -> HostPolicy:
        domain = domains.get(host)
        encrypted = tls_port is not None and certificates.cover(host)
        base_url = _base_url(domain.base_url if domain else None, host, port, tls_port if encrypted else None)
        fallback = domain.fallback if domain else None
        secure = encrypted and base_url.startswith("https:") and (domain is None or domain.http == "redirect")
        return logins.policy(host, HostPolicy(base_url, fallback=fallback, secure=secure))

    blobs = ((host, encode_host(Host(host, policy_of(host), rows))) for host, rows in hosts.items())
    return Compiled(
        encode(policy, blobs),
        (*files, *certificates.files),
        tuple(warnings),
        _summary(hosts),
        declared.hosts,
        len(certificates.rows),
    )


def _summary(hosts: dict[str, list[Struct]]) -> str:
    """How much there is, without what is always there."""
    counts = [sum(not isinstance(row, PixelRow | InstallRow | NpmRestRow) for row in rows) for rows in hosts.values()]
    rules, used = sum(counts), sum(count > 0 for count in counts)
    return f"{rules:,} rule{'s' * (rules != 1)} on {used:,} host{'s' * (used != 1)}"


class _Declared:
    """What the file itself declares, gathered: rows by host, and everything that is wrong with them.

    rows      host → its rows
    hosts     (type, name) of a package → its hosts
    """

    def __init__(self, file: SettingsFile, secure: Secure) -> None:
        self._file = file
        self._settings = file.settings
        self._origin: dict[int, str] = {}  # id of a row → the key of its declaration
        self._names: dict[tuple[str, str | None, str], str] = {}
        self._secure = secure
        self.problems: list[Problem] = []
        self.hosts: dict[tuple[str, str], list[str]] = {}
        # Always there: pixels, and the reports of scarf-js.
        base = self._settings.base_domain
        self.rows: dict[str, list[Struct]] = {f"static.{base}": [PixelRow()]}
        self.rows.setdefault(base, []).append(InstallRow())

    def package(self, index: int, package: Package) -> None:
        key = f"package[{index}]"
        package.owner = package.owner or self._settings.owner
        first = self._names.setdefault((package.type, package.owner, package.name), key)
        if first != key:
            expected = f"each package once; {first} in line {self._file.line(first)} has this name already"
            self.problems.append(self._file.problem(f"{key}.name", package.name, expected))
            return
        try:
            rows = _declare(package)
            check_package(package, _domains(self._settings, package, package.type), self._secure)
            self.hosts[package.type, package.name] = self._place(key, package, package.type, rows)
        except* DeclarationError as group:
            self.problems.extend(self._file.declaration_problem(key, error) for error in _leaves(group))

    def collection(self, index: int, collection: Collection) -> None:
        key = f"collection[{index}]"
        collection.owner = collection.owner or self._settings.owner
        try:
            self._place(key, collection, "container", container.collect(collection))
        except DeclarationError as error:
            self.problems.append(self._file.declaration_problem(key, error))

    def _place(self, key: str, entry: Package | Collection, kind: str, rows: Sequence[Struct]) -> list[str]:
        hosts = _domains(self._settings, entry, kind)
        for host in hosts:
            for row in rows:
                self.rows.setdefault(host, []).append(row)
                self._origin[id(row)] = key
        return hosts

    def check_clashes(self) -> None:
        for host, rows in self.rows.items():
            for clash in [*_clashes(rows), *_meeting(rows)]:
                first, second = self._origin[id(clash.one)], self._origin[id(clash.other)]
                where = "" if first == second else f"; {first} is in line {self._file.line(first)}"
                line = self._file.line(second)
                self.problems.append(Problem(str(self._file.path), line, second, "", f"on {host}, {clash.why}{where}"))
        for index, domain in enumerate(self._settings.domain):
            users = [kind.name for kind, _ in by_kind(self.rows.get(domain.host, [])) if kind.falls_back]
            if domain.fallback is not None and len(users) > 1:
                expected = f"one index, and {' and '.join(users)} have one each; give them domains of their own"
                self.problems.append(self._file.problem(f"domain[{index}].fallback", domain.fallback, expected))


def _declare(package: Package) -> Sequence[Struct]:
    kind = next((kind for kind in kinds() if kind.name == package.type and kind.declare is not None), None)
    if kind is None or kind.declare is None:
        known = ", ".join(kind.name for kind in kinds() if kind.declare is not None)
        raise DeclarationError("type", package.type, f"one of {known}")
    return kind.declare(package)


def _domains(settings: Settings, entry: Package | Collection, kind: str) -> list[str]:
    if entry.domain is not None:
        return [entry.domain]
    if entry.domains:
        return entry.domains
    if entry.owner is None:
        raise DeclarationError("domain", "nothing", "a domain, or an owner from whose name one can be made")
    host = f"{entry.owner}.{_LABELS.get(kind, kind)}.{settings.base_domain}"
    if not HOST.match(host):
        raise DeclarationError("owner", entry.owner, f"a name in lower case that {host} can be made of; or a domain")
    return [host]


def _base_url(declared: str | None, host: str, port: int, tls_port: int | None) -> str:
    if declared is not None:
        return declared.rstrip("/")
    if tls_port is not None:
        return f"https://{host}" if tls_port == 443 else f"https://{host}:{tls_port}"
    return f"http://{host}" if port == 80 else f"http://{host}:{port}"


def _clashes(rows: list[Struct]) -> list[Clash]:
    groups = by_kind(rows)
    found = [clash for kind, group in groups for clash in kind.clashes(group)]
    for root, own in groups:
        if root.root:
            found += [
                Clash(own[0], group[0], f"a {root.name} package has its whole domain to itself; use another for this")
                for kind, group in groups
                if kind is not root and kind.declare is not None
            ]
    return found


def _meeting(rows: list[Struct]) -> list[Clash]:
    """Paths that two kinds would have for themselves, and routes of files that one of them would never let through."""
    groups = by_kind(rows)
    claimed: dict[str, tuple[Kind, Struct]] = {}
    found = []
    for kind, own in groups:
        for row in own:
            for path in kind.claims(row):
                first, holder = claimed.setdefault(path, (kind, row))
                if first is not kind:
                    found.append(Clash(holder, row, f"{path} would be of type {first.name} and of type {kind.name}"))
    for row in (row for row in rows if claimed and isinstance(row, FileRoute)):
        for path in _beginnings(row.path):
            first, holder = claimed.get(path, (FILE, row))
            if first.order < FILE.order:
                why = f"the route {row.path} would never answer, since all of {path} is of type {first.name}"
                found.append(Clash(holder, row, why))
    return found


def _beginnings(template: str) -> list[str]:
    """The paths that all matches of a template are at or below, as far as they may be claimed: two segments."""
    literal, brace, _ = template.partition("{")
    segments = literal.split("?")[0].split("/")[1:]
    whole = segments[:-1] if brace else segments
    return ["/" + "/".join(whole[:many]) for many in (1, 2) if len(whole) >= many]


def _leaves(group: ExceptionGroup[DeclarationError]) -> Iterator[DeclarationError]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _manifest_problem(manifest: Path, error: Exception) -> Problem:
    assert isinstance(error, ManifestError)
    return Problem(str(manifest), error.line, error.where, "", error.message)


def _upstream(upstream: Upstream, folder: Path) -> UpstreamRow:
    # Docker Hub's images are asked for under another name than people know it by.
    host = container.registry_called(upstream.host) if upstream.username is not None else None
    file = None if upstream.password_file is None else str((folder / upstream.password_file).resolve())
    return UpstreamRow(host or upstream.host, upstream.connect, upstream.username, upstream.password_env, file)


def _policy(settings: Settings, folder: Path, certificates: Certificates) -> Policy:
    return Policy(
        trusted_proxies=tuple(settings.server.trusted_proxies),
        rotation=settings.identity.rotation,
        fsync_ms=settings.spool.fsync_ms,
        spool_max_bytes=settings.spool.max_bytes,
        merge_seconds=settings.count.merge_seconds,
        tag_ttl=settings.containers.tag_ttl,
        cache_bytes=settings.containers.cache_bytes,
        probe_seconds=settings.mirrors.probe_seconds,
        hold_seconds=settings.mirrors.hold_seconds,
        return_seconds=settings.mirrors.return_seconds,
        upstreams=tuple(_upstream(upstream, folder) for upstream in settings.upstream),
        certificates=tuple(certificates.rows),
        hsts=frozenset(domain.host for domain in settings.domain if domain.hsts),
    )
