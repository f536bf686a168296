"""How upstreams stand, as each worker has found: a file for each worker, written when that changes.

The console shows it, and so does `waypost explain`. It is told as well as the disk allows: what can no longer be kept
up to date is removed, since nothing said is better than something wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from waypost import whole


class Standing(Struct, frozen=True, omit_defaults=True):
    """How one host stands. `down_since`: seconds since 1970; None: it is up."""

    host: str
    down_since: float | None = None
    why: str = ""


_decode = msgspec.json.Decoder(list[Standing]).decode


def tell(folder: Path, worker: int, standings: Sequence[Standing]) -> bool:
    """Whether it stands there now, whole."""
    stands = whole.put_in(folder, _path(folder, worker).name, msgspec.json.encode(standings))
    if not stands:
        forget(folder, worker)
    return stands


def forget(folder: Path, worker: int) -> None:
    """What a worker told that is no more, or can tell no more."""
    path = _path(folder, worker)
    _remove(path, whole.aside(path))


def forget_all(folder: Path) -> None:
    """What the workers of a server before told."""
    _remove(*folder.glob("worker*"))


def _remove(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def told(folder: Path) -> dict[int, list[Standing]]:
    """By worker. One that has not told, or whose file cannot be read, is missing."""
    found = {}
    for path in folder.glob("worker*.json"):
        try:
            found[int(path.stem.removeprefix("worker"))] = _decode(path.read_bytes())
        except (OSError, ValueError):
            continue
    return dict(sorted(found.items()))


def said(host: str, told: Mapping[int, Sequence[Standing]], now: float) -> str:
    """What workers say of a host, in words. `now` in seconds since 1970."""
    views = [one for standings in told.values() for one in standings if one.host == host]
    down = [(one.down_since, one.why) for one in views if one.down_since is not None]
    if not views:
        return f"{host} has not been asked for anything yet"
    if not down:
        return f"{host} is up"
    since, why = min(down)
    where = "" if len(down) == len(views) else f" in {len(down)} of {len(views)} workers that asked it"
    return f"{host} is down for {max(0, now - since):.0f} s{where}: {why}"


def _path(folder: Path, worker: int) -> Path:
    return folder / f"worker{worker}.json"
