"""Who comes by https is sent to no http: what would lead there is found before anybody comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from waypost.artifacts.kind import DeclarationError, Package
from waypost.catalog.certificates import Certificates
from waypost.catalog.imported import target_of
from waypost.settings import Settings


class Secure:
    """Which hosts users reach by https: as `base_url` says, else those that have a certificate."""

    def __init__(self, settings: Settings, certificates: Certificates) -> None:
        self._base_urls = {domain.host: domain.base_url for domain in settings.domain if domain.base_url is not None}
        self._certificates = certificates

    def __contains__(self, host: str) -> bool:
        base_url = self._base_urls.get(host)
        return self._certificates.cover(host) if base_url is None else base_url.startswith("https:")


def check_package(package: Package, hosts: Iterable[str], secure: Secure) -> None:
    """Raises an ExceptionGroup of DeclarationErrors."""
    found = [] if package.proxy else list(_plain(package))
    host = next((host for host in hosts if host in secure), None) if found else None
    if host is not None:
        expected = f"https://…, since {host} is on https; or proxy = true, and what it has passes through us"
        raise ExceptionGroup(package.name, [DeclarationError(key, url, expected) for key, url in found])


def downgrades(hosts: Mapping[str, Sequence[Struct]], imported: Iterable[str], secure: Secure) -> Iterator[str]:
    """Of rules of manifests, what is refused of a package: a file written for others still serves the rest."""
    for host in sorted(host for host in imported if host in secure):
        plain = [target for row in hosts[host] if _is_plain(target := target_of(row) or "")]
        if plain:
            more = f" and {len(plain) - 1} more" if len(plain) > 1 else ""
            yield f"{host} is on https, and never leads to {plain[0]}{more}"


def _plain(package: Package) -> Iterator[tuple[str, str]]:
    """Key and URL of what clients would be sent to by plain http."""
    if isinstance(package.upstream, str):
        upstreams = {"upstream": package.upstream}
    else:
        upstreams = {f"upstream[{number}]": one for number, one in enumerate(package.upstream or [])}
    for key, url in upstreams.items():
        if _is_plain(url):
            yield key, url
    for number, route in enumerate(package.routes):
        for url in [route.to] if isinstance(route.to, str) else route.to or ():
            if _is_plain(url) and not route.proxy:
                yield f"routes[{number}].to", url


def _is_plain(url: str) -> bool:
    return url.lower().startswith("http:")
