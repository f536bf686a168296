"""Any number of routes, spread over hosts as on a large installation, and requests that they answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from waypost.artifacts.file import FileRoute
from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.snapshot import Host, Policy, encode, encode_host
from waypost.routing.request import Request

PER_HOST = 100
# Incoming template, target, and a path that it matches. {i} numbers the routes of a host, {h} the hosts.
SHAPES = (
    (
        "/tool-{h}-{i}/{{version}}/{{platform}}/skates.tar.gz",
        "https://dl-{h}.example.net/{i}/skates-{{version}}-{{platform}}.tar.gz",
        "/tool-{h}-{i}/{v}/linux-amd64/skates.tar.gz",
    ),
    (
        "/releases/{{version}}/tool-{h}-{i}-{{platform}}.zip",
        "https://dl-{h}.example.net/{i}/{{version}}/{{platform}}.zip",
        "/releases/{v}/tool-{h}-{i}-linux-amd64.zip",
    ),
    (
        "/mirror/tool-{h}-{i}/{{+path}}",
        "https://dl-{h}.example.net/{i}/{{+path}}",
        "/mirror/tool-{h}-{i}/{v}/deep/er/skates.deb",
    ),
)


def host_name(host: int) -> str:
    return f"get-{host}.acme.example"


def row(host: int, route: int) -> FileRoute:
    incoming, outgoing, _ = SHAPES[route % len(SHAPES)]
    return FileRoute(incoming.format(h=host, i=route), outgoing.format(h=host, i=route), f"tool-{host}-{route}", "acme")


def snapshot(hosts: int, per_host: int = PER_HOST, changed: int | None = None) -> bytes:
    """`changed`: a host whose first route leads elsewhere than it did."""

    def blobs() -> Iterator[tuple[str, bytes]]:
        for host in range(hosts):
            rows = [row(host, route) for route in range(per_host)]
            if host == changed:
                rows[0] = FileRoute(rows[0].path, "https://elsewhere.example.net/{version}", rows[0].package, "acme")
            name = host_name(host)
            yield name, encode_host(Host(name, HostPolicy(f"https://{name}"), rows))

    return encode(Policy(), blobs())


def write_manifest(path: Path, hosts: int, per_host: int = PER_HOST) -> None:
    """The same routes as a Scarf Gateway manifest."""
    temporary = path.with_suffix(".new")
    with temporary.open("w") as file:
        separator = '{"rules": [\n'
        for host in range(hosts):
            for route in range(per_host):
                one = row(host, route)
                rule = {
                    "type": "file-v1",
                    "package-id": f"{host:08d}-0000-4000-8000-{route:012d}",
                    "package-name": one.package,
                    "owner": one.owner,
                    "domain": host_name(host),
                    "incoming-path": one.path,
                    "outgoing-url": one.to,
                }
                file.write(f"{separator}{json.dumps(rule)}")
                separator = ",\n"
        file.write("\n]}\n")
    temporary.replace(path)


def path(host: int, route: int, version: int) -> str:
    return SHAPES[route % len(SHAPES)][2].format(h=host, i=route, v=f"{version % 9}.{version}")


def request(host: int, route: int, version: int) -> Request:
    headers = [("user-agent", "curl/8.14.1"), ("accept", "*/*")]
    return Request("GET", host_name(host), path(host, route, version), None, headers)


def requests(count: int, hosts: int, per_host: int = PER_HOST, seed: int = 1) -> list[Request]:
    """Random ones over all routes."""
    random = Random(seed)
    return [request(random.randrange(hosts), random.randrange(per_host), random.randrange(500)) for _ in range(count)]
