"""Who, privately: keyed hashes of a client's address, under a key that is destroyed when its period is over.

endpoint_id is a hash of the address, origin_id of address and User-Agent. Without the key neither can be tested
against an address, and there is a new key each period (month, day, or never). For 15 minutes after a period ended
the old key is kept, so that a source which was just seen can keep its identity; then its file is removed and it is
dropped from memory. Addresses live here in memory only, in a bounded cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

GRACE_US = 15 * 60 * 1_000_000
KEY_BYTES = 32
CACHE_ENTRIES = 65_536
RETRY_US = 60 * 1_000_000
_FOREVER = 1 << 62


class Who(NamedTuple):
    """16 bytes each. The *_was are the same under the key before; None but for 15 minutes after it was replaced."""

    origin_id: bytes
    endpoint_id: bytes
    origin_was: bytes | None
    endpoint_was: bytes | None


class Period(NamedTuple):
    """A span of time that has one key. `start` and `end` in microseconds since 1970 UTC."""

    name: str
    start: int
    end: int


def _us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def _day(now_us: int) -> Period:
    start = datetime.fromtimestamp(now_us // 1_000_000, UTC).replace(hour=0, minute=0, second=0)
    return Period(start.strftime("%Y-%m-%d"), _us(start), _us(start + timedelta(days=1)))


def _month(now_us: int) -> Period:
    start = datetime.fromtimestamp(now_us // 1_000_000, UTC).replace(day=1, hour=0, minute=0, second=0)
    end = (start + timedelta(days=31)).replace(day=1)
    return Period(start.strftime("%Y-%m"), _us(start), _us(end))


def _never(now_us: int) -> Period:
    return Period("never", -_FOREVER, _FOREVER)


PERIODS: dict[str, Callable[[int], Period]] = {"day": _day, "month": _month, "never": _never}
_SHAPES = {"day": r"\d{4}-\d\d-\d\d", "month": r"\d{4}-\d\d", "never": "never"}


class Identity:
    """Turns addresses into identities.

    folder    DATA/identity; made if it is missing.
    rotation  "day", "month" or "never".
    volatile  True while the key could be neither read nor written: it lives in memory only, workers disagree
              about who is who, and a restart begins anew. Serving goes on; try again happens by itself.
    """

    def __init__(self, folder: Path, rotation: str) -> None:
        self.volatile = False
        self._folder = folder
        self._rotation = rotation
        self._period_of = PERIODS[rotation]
        self._period: Period | None = None
        self._key = b""
        self._key_was: bytes | None = None
        self._change_at = -_FOREVER
        self._who = lru_cache(CACHE_ENTRIES)(self._hash)

    def of(self, address: str, user_agent: str | None, now_us: int) -> Who:
        """The identities of a source at a moment. Never raises."""
        if now_us >= self._change_at:
            self._turn(now_us)
        return self._who(address, user_agent)

    def _hash(self, address: str, user_agent: str | None) -> Who:
        endpoint = address.encode("utf-8", "surrogateescape")
        origin = endpoint + b"\0" + (user_agent or "").encode("utf-8", "surrogateescape")
        key, was = self._key, self._key_was
        return Who(
            hashlib.blake2b(origin, key=key, digest_size=16).digest(),
            hashlib.blake2b(endpoint, key=key, digest_size=16).digest(),
            None if was is None else hashlib.blake2b(origin, key=was, digest_size=16).digest(),
            None if was is None else hashlib.blake2b(endpoint, key=was, digest_size=16).digest(),
        )

    def _turn(self, now_us: int) -> None:
        """Something is due: the first use, a new period, the end of the old key, or another try to write the key."""
        period = self._period
        if period is None or now_us >= period.end:
            following = self._period_of(now_us)
            self._key_was = self._before(period, following, now_us)
            self._period = period = following
            self._key = self._obtain(period.name, secrets.token_bytes(KEY_BYTES))
        elif self.volatile:
            self._key = self._obtain(period.name, self._key)
        self._change_at = period.end
        if now_us - period.start >= GRACE_US:
            self._key_was = None
        else:
            self._change_at = min(self._change_at, period.start + GRACE_US)
        if self.volatile:
            self._change_at = min(self._change_at, now_us + RETRY_US)
        self._destroy(period, now_us)
        # Also drops every address seen so far, which no longer belongs to this state.
        self._who.cache_clear()

    def _before(self, period: Period | None, following: Period, now_us: int) -> bytes | None:
        """The key of the period before, while it is still of use."""
        if now_us - following.start >= GRACE_US:
            return None
        if period is not None:
            return self._key if period.end == following.start else None
        return self._read(self._period_of(following.start - 1).name)

    def _obtain(self, name: str, proposal: bytes) -> bytes:
        """The key of a period: the one in its file, else our proposal. Whichever process comes first decides."""
        path = self._folder / f"{name}.key"
        draft = self._folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
        self.volatile = False
        key = self._read(name)
        if key is not None:
            return key
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if os.write(fd, proposal) != KEY_BYTES:
                    raise OSError("short write")
                os.fsync(fd)
            finally:
                os.close(fd)
            with contextlib.suppress(FileExistsError):
                # link(2) fails if the name is taken, and nobody ever sees half a key.
                os.link(draft, path)
        except OSError:
            self.volatile = True
        with contextlib.suppress(OSError):
            draft.unlink()
        key = self._read(name)
        if key is None:
            self.volatile = True
            return proposal
        return key

    def _read(self, name: str) -> bytes | None:
        try:
            key = (self._folder / f"{name}.key").read_bytes()
        except OSError:
            return None
        return key if len(key) == KEY_BYTES else None

    def _destroy(self, period: Period, now_us: int) -> None:
        """Remove the keys of periods that are over.

        A period that lies ahead of our clock is left alone: another process may be past midnight already.
        """
        kept = {period.name}
        if self._key_was is not None:
            kept.add(self._period_of(period.start - 1).name)
        ours = re.compile(_SHAPES[self._rotation])
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*.key"):
                ahead = ours.fullmatch(path.stem) and path.stem > period.name
                if path.stem not in kept and not ahead:
                    path.unlink(missing_ok=True)
