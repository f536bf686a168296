"""waypost.toml and its manifests → the snapshot that gateways serve. Everything that is wrong is found here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from waypost.artifacts.kind import Clash, DeclarationError, HostPolicy, Kind
from waypost.artifacts.pixel import PixelRow
from waypost.artifacts.registry import kinds
from waypost.artifacts.snapshot import Host, Policy, Snapshot, UpstreamRow, by_kind, decode_host, encode, encode_host
from waypost.artifacts.telemetry import InstallRow
from waypost.catalog.imported import read_manifest
from waypost.routing.manifest import ManifestError
from waypost.settings import Package, Problem, Settings, SettingsError, SettingsFile, load

# How a default host is made of owner and base domain: {type} → label. Other types take their own name.
_LABELS = {"container": "docker", "file": "gateway", "python": "gateway"}


class Compiled(Struct, frozen=True):
    """A configuration that holds together.

    files     everything that was read: the configuration is looked at again when one of them changes
    warnings  sentences about what works, but perhaps not as meant
    hosts     name of a declared package → its hosts
    """

    snapshot: bytes
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    summary: str
    hosts: dict[str, list[str]]

    def base_url(self, host: str) -> str:
        """How users reach a host of the snapshot."""
        blob = Snapshot(self.snapshot).blob(host)
        if blob is None:
            raise KeyError(host)
        return decode_host(blob).policy.base_url


def compile_file(path: Path, port: int) -> Compiled:
    """Reads and compiles; `port` is that of the public listener. Raises SettingsError with every problem found."""
    file = load(path)
    settings = file.settings
    problems: list[Problem] = []
    warnings: list[str] = []
    declared: dict[str, list[Struct]] = {}
    packages: dict[tuple[str, str | None, str], int] = {}
    hosts_of: dict[str, list[str]] = {}
    origin: dict[int, int] = {}  # id of a row → index of its package

    _always_there(settings, declared)
    for index, package in enumerate(settings.package):
        key = (package.type, package.owner or settings.owner, package.name)
        if key in packages:
            expected = f"each package once; `{package.name}` is package[{packages[key]}] already"
            problems.append(file.problem(f"package[{index}].name", package.name, expected))
            continue
        packages[key] = index
        try:
            for host, row in _declared(settings, package):
                declared.setdefault(host, []).append(row)
                origin[id(row)] = index
            hosts_of[package.name] = _domains(settings, package)
        except DeclarationError as error:
            problems.append(file.declaration_problem(index, error))
    for host, rows in declared.items():
        for clash in _clashes(rows):
            problems.append(_clash_problem(file, host, clash.why, origin[id(clash.one)], origin[id(clash.other)]))

    files = [path, *(path.parent / name for name in settings.manifests)]
    hosts = {host: list(rows) for host, rows in declared.items()}
    imported = set()
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
    if problems:
        raise SettingsError(problems)
    # In manifests the first of two equal rules wins: worth a warning, since the second never answers.
    for host in sorted(imported):
        warnings.extend(f"{host}: {clash.why}; the first one wins" for clash in _clashes(hosts[host]))

    policies = {domain.host: domain.base_url for domain in settings.domain}
    blobs = (
        (host, encode_host(Host(host, HostPolicy(_base_url(policies.get(host), host, port)), rows)))
        for host, rows in hosts.items()
    )
    return Compiled(
        encode(_policy(settings), blobs),
        tuple(files),
        tuple(warnings),
        f"{sum(map(len, hosts.values()))} rules on {len(hosts)} hosts",
        hosts_of,
    )


def _always_there(settings: Settings, hosts: dict[str, list[Struct]]) -> None:
    hosts.setdefault(f"static.{settings.base_domain}", []).append(PixelRow())
    hosts.setdefault(settings.base_domain, []).append(InstallRow())


def _declared(settings: Settings, package: Package) -> Iterator[tuple[str, Struct]]:
    kind = _kind(package.type)
    assert kind.declare is not None
    if package.owner is None:
        package.owner = settings.owner
    rows = kind.declare(package)
    for host in _domains(settings, package):
        for row in rows:
            yield host, row


def _kind(name: str) -> Kind:
    for kind in kinds():
        if kind.name == name and kind.declare is not None:
            return kind
    known = ", ".join(kind.name for kind in kinds() if kind.declare is not None)
    raise DeclarationError("type", name, f"one of {known}")


def _domains(settings: Settings, package: Package) -> list[str]:
    if package.domain is not None:
        return [package.domain]
    if package.domains:
        return package.domains
    if package.owner is None:
        raise DeclarationError("domain", "nothing", "a domain, or an owner from whose name one can be made")
    return [f"{package.owner}.{_LABELS.get(package.type, package.type)}.{settings.base_domain}"]


def _base_url(declared: str | None, host: str, port: int) -> str:
    if declared is not None:
        return declared.rstrip("/")
    return f"http://{host}" if port == 80 else f"http://{host}:{port}"


def _clashes(rows: list[Struct]) -> list[Clash]:
    return [clash for kind, group in by_kind(rows) for clash in kind.clashes(group)]


def _clash_problem(file: SettingsFile, host: str, why: str, one: int, other: int) -> Problem:
    first, second = f"package[{one}]", f"package[{other}]"
    where = "" if one == other else f"; {first} is in line {file.line(first)}"
    return Problem(str(file.path), file.line(second), second, "", f"on {host}, {why}{where}")


def _manifest_problem(manifest: Path, error: Exception) -> Problem:
    assert isinstance(error, ManifestError)
    return Problem(str(manifest), error.line, error.where, "", error.message)


def _policy(settings: Settings) -> Policy:
    return Policy(
        trusted_proxies=tuple(settings.server.trusted_proxies),
        rotation=settings.identity.rotation,
        fsync_ms=settings.spool.fsync_ms,
        spool_max_bytes=settings.spool.max_bytes,
        merge_seconds=settings.count.merge_seconds,
        upstreams=tuple(UpstreamRow(upstream.host, upstream.connect) for upstream in settings.upstream),
    )
