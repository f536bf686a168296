"""Mirrors on loopback that can be down, and a Waypost that soon finds out."""

from __future__ import annotations

from collections.abc import Iterable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

from tests.clients.pulls import Waypost, upstreams
from tests.clients.trees import Tree, package
from tests.support.server import until


class Mirror(Tree):
    """A tree that answers 503 to everything while it is `down`."""

    def __init__(self, folder: Path) -> None:
        self.down = False
        mirror = self

        class Handler(SimpleHTTPRequestHandler):
            def send_head(self):  # type: ignore[no-untyped-def]
                if mirror.down:
                    self.send_error(503)
                    return None
                return super().send_head()

        super().__init__(folder, Handler)


# Seconds, so that nobody waits. How long things take in these tests says nothing of what is set in earnest.
PACE = "[mirrors]\nprobe_seconds = 1\nhold_seconds = {hold}\nreturn_seconds = {back}\n"


def config(kind: str, mirrors: Iterable[Tree], hold: int = 1, back: int = 1) -> str:
    """One tree on all these mirrors. They are declared: else nobody asks private addresses how they are."""
    mirrors = list(mirrors)
    declared = upstreams({one.authority: one.url for one in mirrors})
    return package(kind, [one.url for one in mirrors], PACE.format(hold=hold, back=back) + declared)


def leads_to(waypost: Waypost, path: str, headers: dict[str, str] | None = None) -> set[str]:
    """Where clients are sent, whichever worker they meet. They wish not to be counted."""
    asked = [waypost.ask(path, "GET", DNT="1", **(headers or {})) for _ in range(12)]
    assert {status for status, _, _ in asked} == {307}
    return {lines["location"].removesuffix(path) for _, lines, _ in asked}


def moves(waypost: Waypost, path: str, mirror: Tree) -> None:
    """Waits until every worker sends everybody to this mirror for the path."""
    until(lambda: leads_to(waypost, path) == {mirror.url}, what=f"{path} to come from {mirror.url}", seconds=40)
