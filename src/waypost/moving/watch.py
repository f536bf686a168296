"""A running server after a move: has it taken the change up, and do the first pulls go through the new upstream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from waypost.console.client import FOLLOW_EVERY, Asked
from waypost.console.question import END

Say = Callable[[str], None]

# Seconds until a server that has not taken up the configuration is said to have not: a million routes take ten.
LONGEST = 60.0
# Metric → what it means when it grows while we watch. They are of all packages, and say so.
TROUBLE = {
    "waypost_fetch_failures_total": "requests to upstreams that failed",
    "waypost_manifest_stale_total": "manifests that no upstream could confirm, served as they were known",
    "waypost_events_dropped_total": "events that were lost",
}


class Watched:
    """A server as it was before a change. `config` is the file that it reads, "" if it did not say."""

    def __init__(self, server: Asked, config: str) -> None:
        """Raises NoNumbers."""
        self._server = server
        self.config = config
        before = server.metrics()
        self._reloads = before.get("waypost_reloads_total", [])
        self._told = {name: sum(before.get(name, ())) for name in TROUBLE}

    def reads(self, config: Path) -> bool:
        try:
            return not self.config or config.samefile(self.config)
        except OSError:
            return False

    def taken_up(self) -> bool:
        """Waits until every worker serves from a configuration that is newer than the one before. Raises NoNumbers."""
        deadline = time.monotonic() + LONGEST
        while True:
            reloads = self._server.metrics().get("waypost_reloads_total", [])
            if reloads and all(now > then for now, then in zip(reloads, self._reloads, strict=False)):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(FOLLOW_EVERY)

    def watch(self, package: str, registry: str, seconds: float, say: Say) -> int:
        """Says each pull of a package through a registry as it is stored, and what else grows. How many pulls it were.

        Raises NoNumbers.
        """
        deadline = time.monotonic() + seconds
        pages = self._server.pages(END)
        next(pages)  # empty: what was stored before this moment is passed over
        say(f"Watching for {seconds:g} s; Ctrl-C ends it.")
        pulls = 0
        try:
            for page in pages:
                for line in _pulls(page, package, registry):
                    pulls += 1
                    say(line)
                for line in self._trouble():
                    say(line)
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                time.sleep(min(FOLLOW_EVERY, left))
        except KeyboardInterrupt:
            pass
        return pulls

    def _trouble(self) -> Iterator[str]:
        metrics = self._server.metrics()
        for name, meaning in TROUBLE.items():
            now = sum(metrics.get(name, ()))
            if now > self._told[name]:
                yield f"  ! {now - self._told[name]:.0f} {meaning}, of all packages ({name})"
                self._told[name] = now


def _pulls(page: list[dict[str, Any]], package: str, registry: str) -> Iterator[str]:
    for event in page:
        if event.get("counted") and (event.get("package"), event.get("upstream")) == (package, registry):
            version = event.get("version") or event.get("digest") or ""
            at = f"{package}{'@' if ':' in version else ':'}{version}"
            by = " ".join(filter(None, (event.get("client"), event.get("client_version"))))
            yield f"  {event['time'][11:19]}  {at}  through {registry}" + (f", by {by}" if by else "")
