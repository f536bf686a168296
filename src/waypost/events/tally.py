"""What a worker has done so far, as numbers in a page of memory that it shares with the console.

The supervisor makes one for each worker before it starts anything, and a restarted worker goes on from the numbers
of the one before, so that counters never run backwards. No file is needed: a full disk is when these numbers
matter most. Every number is one aligned 64-bit store by one writer, so that readers need no lock.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping

# name → help text of the exposition. docs/configuration.md lists them; a test compares.
COUNTERS = {
    "requests": "Requests answered, whatever the answer.",
    "redirects": "Answers that sent the client elsewhere.",
    "refused": "Answers with a status of 400 or more.",
    "unparsable": "Requests refused because the bytes were no acceptable HTTP/1.1, or too many.",
    "turned_away": "Connections refused because there were too many.",
    "events": "Events written to the spool.",
    "events_dropped": "Events lost because the spool was full or the disk refused them.",
    "fetches": "Requests sent to upstreams, for tokens and by HEAD too.",
    "fetch_failures": "Answers of 5xx because upstreams failed or timed out.",
    "manifest_hits": "Manifests answered from what was kept.",
    "manifest_stale": "Those of them that no upstream could confirm.",
    "page_hits": "Indexes answered from what was kept.",
    "page_stale": "Those of them that no upstream could confirm.",
    "probes": "Questions to upstreams, whether they are up.",
    "reloads": "Snapshots taken into use.",
}
_STATE = ("at_ms", "connections", "hosts", "upstreams_down")
_PLACES = {name: place for place, name in enumerate((*_STATE, *COUNTERS))}


class Tally:
    """The numbers of one worker, whichever life of it is writing.

    at_ms        when it last told, in milliseconds since 1970; 0 before the first time
    connections  open now
    hosts        in the snapshot that it serves from
    upstreams_down  how many it asks last now, since they fail
    and one number for each name of COUNTERS.
    """

    def __init__(self) -> None:
        """To be called before processes are forked, so that they share it."""
        self._values = memoryview(mmap.mmap(-1, 8 * len(_PLACES))).cast("Q")

    def __getitem__(self, name: str) -> int:
        return self._values[_PLACES[name]]

    def counters(self) -> dict[str, int]:
        return {name: self[name] for name in COUNTERS}

    def tell(self, numbers: Mapping[str, int]) -> None:
        for name, value in numbers.items():
            self._values[_PLACES[name]] = value
