"""Repositories that are folders of files: a server for them, and what a client's run leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.clients.pulls import HOST, Event, Waypost, upstreams
from tests.support.server import until

from waypost.gateway.steering import EVERY


class Tree:
    """A folder on a port of loopback. `asked`: what it was asked for, as "GET /path"."""

    def __init__(self, folder: Path, handler: type[SimpleHTTPRequestHandler] = SimpleHTTPRequestHandler) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer((HOST, 0), partial(_watched(handler, self.asked.append), directory=folder))
        self.authority = f"{HOST}:{self._server.server_address[1]}"
        self.url = f"http://{self.authority}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def asked_for(self, ending: str) -> int:
        """How many GETs there were of files that end so, whatever their query."""
        return sum(one.startswith("GET ") and one.partition("?")[0].endswith(ending) for one in self.asked)

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


def _watched(handler: type[SimpleHTTPRequestHandler], watch: Callable[[str], object]) -> type[SimpleHTTPRequestHandler]:
    class Watched(handler):  # type: ignore[misc, valid-type]
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: object) -> None:
            watch(f"{self.command} {self.path}")

        def log_message(self, *_: object) -> None:
            pass

    return Watched


def package(kind: str, upstreams: Iterable[str], more: str = "") -> str:
    """A waypost.toml with one tree, whose domain is `HOST`."""
    urls = ", ".join(f'"{url}"' for url in upstreams)
    return f"""
base_domain = "waypost.example"
owner = "acme"
[[package]]
type = "{kind}"
name = "skates"
domain = "{HOST}"
upstream = [{urls}]
{more}
"""


def mirrored(kind: str, roots: Iterable[str]) -> str:
    """The same with several upstreams, which are looked at more often than people would want."""
    hosts = {root.split("/")[2]: "/".join(root.split("/")[:3]) for root in roots}
    return package(kind, roots, "[mirrors]\nprobe_seconds = 1\nhold_seconds = 1\n" + upstreams(hosts))


def lose(waypost: Waypost, tree: Tree, *paths: str) -> None:
    """A tree goes away. Returns when nobody is led there any more, whichever worker is asked."""

    def left() -> bool:
        return all(tree.url not in waypost.ask(path, "HEAD")[1]["location"] for path in paths for _ in range(8))

    assert not left()
    tree.close()
    until(left, seconds=40, what=f"clients to be led past {tree.url}")
    # Eight connections may all have met one worker; another one hears of it within EVERY.
    time.sleep(2 * EVERY)
    until(left, seconds=10, what=f"every worker to lead clients past {tree.url}")


# What of an event says which download it was, and whose.
_DOWNLOAD = ("package", "artifact", "version", "platform", "client", "upstream")


def counted(events: Iterable[Event]) -> list[Event]:
    """Of the counted events, in order, which downloads they were."""
    return [{name: event.get(name) for name in _DOWNLOAD} for event in events if event["counted"]]


def download(artifact: str, version: str | None, client: str, upstream: Tree, platform: str | None = None) -> Event:
    return dict(zip(_DOWNLOAD, ("skates", artifact, version, platform, client, upstream.authority), strict=True))
