"""The console process: owns the event store, collects into it, and answers on the console's address."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import uvicorn

from waypost.artifacts.snapshot import Snapshot
from waypost.console.app import application
from waypost.counting.collector import HOLD_BACK_US, Collector, Settings
from waypost.events.tally import Tally
from waypost.stores.duckdb import DuckStore

if TYPE_CHECKING:
    from waypost.data import DataDirectory

logger = logging.getLogger("waypost")

IDLE = 0.1  # seconds between looks at the spool when nothing waits
RETRY = 2.0  # seconds after a failure of the store


class Collecting(threading.Thread):
    """Drives the collector until told to stop. A failing store is tried again, for ever: the spool waits."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(name="collector", daemon=True)
        self._collector = collector
        self._ending = threading.Event()
        self.stored = 0
        self.failures = 0
        self.last_success = time.time()

    def run(self) -> None:
        failing = False
        while not self._ending.is_set():
            try:
                stored = self._collector.step()
            except Exception:
                self.failures += 1
                if not failing:
                    logger.exception("events cannot be stored now; they wait in the spool")
                failing = True
                self._ending.wait(RETRY)
                continue
            if failing:
                logger.info("events are stored again")
            failing = False
            self.last_success = time.time()
            self.stored += stored
            if not stored and not self._collector.backlog:
                self._ending.wait(IDLE)

    def finish(self) -> None:
        """Stores what the spool still holds, then ends."""
        self._ending.set()
        self.join()
        try:
            time.sleep(HOLD_BACK_US / 1_000_000)  # the last facts are old enough then
            while (stored := self._collector.step()) or self._collector.backlog:
                self.stored += stored
        except Exception:
            logger.exception("what is left in the spool will be stored at the next start")


def run(listening: list[socket.socket], data: DataDirectory, token: str, tallies: Sequence[Tally]) -> None:
    """The life of the console process, until SIGTERM."""
    policy = Snapshot(data.snapshot.read_bytes()).policy
    store = DuckStore(data.store, data.temporary)
    collecting = Collecting(Collector(data.spool, store, Settings(policy.merge_seconds)))
    collecting.start()
    app = application(store, collecting, data, token, tallies)
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2, server_header=False
        )
    )
    # uvicorn raises the signal that ended it once more; without a handler that would end us before the spool is read.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides.
    try:
        server.run(sockets=listening)
    finally:
        collecting.finish()
        store.close()
