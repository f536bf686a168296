"""Outages of upstreams that clients are sent to: a file that one worker writes, and all go by.

It outlives a restart, so that a restart changes nothing of where clients are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from waypost import whole


class Outage(Struct, frozen=True, omit_defaults=True):
    """An upstream that is down, or was until lately. Moments in seconds since 1970.

    url         that tells whether it is up
    down_since  None: it is up again
    up_since    since when, if that is known
    left        it was down for so long that indexes come from another one now
    """

    host: str
    url: str
    why: str = ""
    down_since: float | None = None
    up_since: float | None = None
    left: bool = False

    @property
    def rank(self) -> float:
        """Indexes come from the upstream of lowest rank: one that nobody left, else the one that is back longest."""
        if not self.left:
            return 0.0
        return float("inf") if self.up_since is None else self.up_since


_decode = msgspec.json.Decoder(list[Outage]).decode


def write(path: Path, outages: Sequence[Outage]) -> bool:
    """Whether it stands there now, whole."""
    return whole.put(path, msgspec.json.encode(outages))


def read(path: Path) -> list[Outage] | None:
    """None if it cannot be told; where no file is, nothing was ever down."""
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        return None
