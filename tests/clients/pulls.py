"""What clients are pointed at, and what a pull leaves behind.

The domain is `127.0.0.1`: clients take that for a registry without TLS, and no hosts file needs a line.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.clients.registries import Image
from tests.support.server import WaypostServer, until

from waypost.console.client import numbers

HOST = "127.0.0.1"

Event = dict[str, Any]


def upstreams(connect: Mapping[str, str]) -> str:
    """The lines of waypost.toml that lead each host to where it really is."""
    return "".join(f'[[upstream]]\nhost = "{host}"\nconnect = "{url}"\n' for host, url in connect.items())


class Waypost:
    """A running Waypost, and the events that it has stored since it was last asked."""

    workers = 2

    def __init__(self, folder: Path, config: str, tls: bool = False) -> None:
        """`tls`: clients are pointed at https."""
        self.server = WaypostServer(folder, config, workers=self.workers, tls=tls)
        try:
            self.server.start()
        except BaseException:
            self.server.stop()
            raise
        self.address = f"{HOST}:{self.server.tls_port if tls else self.server.port}"
        self._taken = 0

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        status, lines, body = self.server.get(self.address, path, method, headers)
        return status, {name.lower(): value for name, value in lines.items()}, body

    def events(self) -> list[Event]:
        return list(numbers(self.server.data.root).events(False))

    def take(self, many: int) -> list[Event]:
        """The next `many` events, in the order in which they happened. If there are more, `stop` fails."""
        until(lambda: len(self.events()) >= self._taken + many, what=f"{many} events")
        new = self.events()[self._taken : self._taken + many]
        self._taken += many
        return sorted(new, key=lambda event: (event["time"], event["id"]))

    def skip(self, many: int) -> None:
        """Waits for so many events, and leaves them unread. If there are more, `stop` fails."""
        self._taken += many
        until(lambda: self.server.metric("waypost_stored_total") >= self._taken, seconds=60, what=f"{many} events")

    def stop(self) -> None:
        status = self.server.stop()
        assert status == 0
        assert len(self.events()) == self._taken


def run(home: Mapping[str, str], *command: str, status: int = 0) -> str:
    done = subprocess.run(command, env=home, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


FACTS = ("kind", "counted", "owner", "package", "domain", "digest", "artifact", "upstream", "status")
PULLS = ("version", "tag", "platform")


def essence(event: Event) -> Event:
    """What was fetched, and of a pull also what the whole of it was."""
    names = FACTS + PULLS if event["counted"] else FACTS
    return {name: event[name] for name in names if event.get(name) is not None}


def pull(image: Image, package: str, registry: str, tag: str | None) -> list[Event]:
    """All that a cold pull of this machine's image leaves behind: manifests, then blobs by digest."""
    same = {"owner": "acme", "package": package, "domain": HOST, "upstream": registry, "status": 200}
    manifest = {**same, "kind": "manifest-fetch"}
    opener = {"counted": True, "digest": image.top, "artifact": "index", "version": tag or image.top}
    told = {"platform": image.platforms[image.native], **({"tag": tag} if tag else {})}
    layers = [
        {**same, "kind": "blob-fetch", "counted": False, "digest": digest} for digest in sorted(native_blobs(image))
    ]
    return [
        {**manifest, **opener, **told},
        {**manifest, "counted": False, "digest": image.native, "artifact": "image"},
        *layers,
    ]


def in_order(events: list[Event]) -> list[Event]:
    """Manifests as they came, then blobs by digest: clients fetch those side by side."""
    manifests = [essence(event) for event in events if event["kind"] != "blob-fetch"]
    blobs = [essence(event) for event in events if event["kind"] == "blob-fetch"]
    return manifests + sorted(blobs, key=lambda event: str(event["digest"]))


def native_blobs(image: Image) -> set[str]:
    manifest = json.loads(image.manifests[image.native][1])
    return {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
