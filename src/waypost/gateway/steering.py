"""Keeps all workers of one mind about where clients are sent.

Each worker tells which upstreams its clients were sent to lately, in a file of its own. The first worker has those
watched, decides, and writes what it found to one file; every worker goes by that file, the first one too, so that all
change their minds within the same second, or none does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from waypost import whole
from waypost.artifacts.snapshot import Policy
from waypost.gateway.pins import Pins
from waypost.upstream.outage import read, write
from waypost.upstream.watch import Pace, Watch, moved

if TYPE_CHECKING:
    from waypost.data import DataDirectory

logger = logging.getLogger("waypost")

EVERY = 1.0  # seconds between looks

_decode = msgspec.json.Decoder(dict[str, str]).decode


def pace(policy: Policy) -> Pace:
    return Pace(policy.probe_seconds, policy.hold_seconds, policy.return_seconds)


def resume(pins: Pins, watch: Watch | None, data: DataDirectory) -> None:
    """Goes on where workers before left off."""
    outages = read(data.outages) or []
    pins.take(outages)
    if watch is not None:
        watch.restore(moved(outages, time.monotonic() - time.time()))


async def steer(
    pins: Pins, watch: Watch | None, data: DataDirectory, number: int, workers: int, disk: Executor
) -> None:
    """For ever. `watch` is the deciding worker's."""
    loop = asyncio.get_running_loop()
    asked_before = outages_before = None
    while True:
        asked = pins.asked()
        if asked != asked_before and await loop.run_in_executor(disk, tell, data.asked, number, asked):
            asked_before = asked
        if watch is not None:
            watch.want(await loop.run_in_executor(disk, told, data.asked, workers))
            _decide(watch)
            outages = watch.outages()
            # Monotonic moments mean nothing to whoever reads it after a restart of the machine.
            found = moved(outages, time.time() - time.monotonic())
            if outages != outages_before and await loop.run_in_executor(disk, write, data.outages, found):
                outages_before = outages
        known = await loop.run_in_executor(disk, read, data.outages)
        if known is not None:
            pins.take(known)
        await asyncio.sleep(EVERY)


def _decide(watch: Watch) -> None:
    left, back = watch.decide()
    for host in left:
        logger.warning("upstream %s stays down: indexes come from the next one, for all clients", host)
    for host in back:
        logger.info("upstream %s stays up: indexes come from it again", host)


def tell(folder: Path, worker: int, asked: dict[str, str]) -> bool:
    """Whether it stands there now, whole."""
    return whole.put_in(folder, f"worker{worker}.json", msgspec.json.encode(asked))


def told(folder: Path, workers: int) -> dict[str, str]:
    """By all workers together."""
    found: dict[str, str] = {}
    for worker in range(workers):
        try:
            found |= _decode((folder / f"worker{worker}.json").read_bytes())
        except (OSError, ValueError):
            continue
    return found
