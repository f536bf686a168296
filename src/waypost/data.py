"""The data directory: who owns it, and what stands where."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec
from msgspec import Struct

PATIENCE = 1.0  # seconds that a lock is waited for


class DataInUse(Exception):
    """Another Waypost owns the data directory: the operator started two."""


class Running(Struct):
    """What a running server leaves for commands on the same machine: where to ask, with which token, and from which
    file it serves."""

    pid: int
    console: str
    token: str
    config: str = ""


class DataDirectory:
    """Paths below one folder. `own()` makes this process and its children the only writers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root / "spool"
        self.identity = root / "identity"
        self.temporary = root / "tmp"
        self.manifests = root / "manifests"
        self.health = root / "health"
        self.asked = root / "asked"
        self.outages = root / "outages.json"
        self.snapshot = root / "snapshot"
        self.moves = root / "moves"
        self.store = root / "events.duckdb"
        self._running = root / "running.json"
        self._lock: int | None = None

    def create(self) -> None:
        self.root.mkdir(mode=0o750, parents=True, exist_ok=True)
        for folder in (self.spool, self.identity, self.temporary):
            folder.mkdir(mode=0o750, exist_ok=True)

    def own(self) -> None:
        """Takes the lock; it goes when the last process that inherited it is gone, however it ended.

        That is the point: a new server never starts while a worker of the old one may still write.
        Raises DataInUse.
        """
        _fill_standard_streams()
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        # A server that was killed takes a moment to be gone with all its workers, and `running` looks at the lock.
        deadline = time.monotonic() + PATIENCE
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise DataInUse(f"{self.root} belongs to a Waypost that is running; stop it, or choose another --data")
            time.sleep(0.02)
        self._lock = descriptor

    def announce(self, running: Running) -> None:
        temporary = self._running.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode(running))
        os.replace(temporary, self._running)

    def running(self) -> Running | None:
        """The server that owns the directory now, or None. A left-over announcement of a dead one is None."""
        try:
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            pass  # somebody holds it: the announcement is theirs
        else:
            return None
        finally:
            os.close(descriptor)
        try:
            return msgspec.json.decode(self._running.read_bytes(), type=Running)
        except (OSError, msgspec.MsgspecError):
            return None

    def write_snapshot(self, data: bytes) -> None:
        """Atomically, and on disk before the name changes: gateways see the old one or the new one."""
        temporary = self.snapshot.with_suffix(".new")
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.snapshot)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fill_standard_streams() -> None:
    """Where the caller has closed standard input, output or error, the store would get their numbers, and a
    library that complains on "standard error" would write into it."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
