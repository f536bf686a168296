"""Where clients are sent when there are several upstreams: the same way from all workers.

Everything here comes from what one worker has found out and all read (upstream/outage.py), and nothing from the
client: whoever asks for a part of an index is sent where everybody is sent, without being remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from waypost.upstream.outage import Outage
from waypost.upstream.watch import MOST_WATCHED

# Seconds for which an upstream is of interest after somebody was sent to it, or past it.
ASKED_SECONDS = 600.0


class Pins:
    """Outages as all workers know them, and which upstreams this worker's clients could be sent to lately.

    clock  in seconds, monotonic
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._outages: dict[str, Outage] = {}
        self._asked: dict[str, tuple[str, float]] = {}

    def take(self, outages: Iterable[Outage]) -> None:
        """Goes by these from now on."""
        self._outages = {one.host: one for one in outages}

    def is_down(self, host: str) -> bool:
        outage = self._outages.get(host)
        return outage is not None and outage.down_since is not None

    def rank(self, host: str) -> float:
        """Of several upstreams the first of lowest rank is the one that all are sent to."""
        outage = self._outages.get(host)
        return 0.0 if outage is None else outage.rank

    def note(self, roots: Iterable[str]) -> None:
        """Somebody may be sent to one of these upstreams. Nothing of who it is comes here."""
        now = self._clock()
        for root in roots:
            host = urlsplit(root).netloc
            if host in self._asked or len(self._asked) < MOST_WATCHED:
                self._asked[host] = (root, now)

    def asked(self) -> dict[str, str]:
        """host → root of those that are of interest."""
        now = self._clock()
        for host, (_, when) in list(self._asked.items()):
            if now - when > ASKED_SECONDS:
                del self._asked[host]
        return {host: root for host, (root, _) in self._asked.items()}
