"""`waypost serve`: one process that starts the others, restarts them when they die, and watches the configuration.

It holds the listening sockets, so that connections wait instead of failing while a worker is restarted. It is
plain and single-threaded, so that it may fork at any time, and it serves nobody itself.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

from waypost.catalog.compile import Compiled
from waypost.data import DataDirectory, Running
from waypost.events import standings
from waypost.events.spool import recover_all, recover_writer
from waypost.events.tally import Tally
from waypost.process import Child, fate
from waypost.reading import Reading
from waypost.tls.contexts import make_context

logger = logging.getLogger("waypost")

CONFIG_POLL = 0.25  # seconds between looks at the files
LOOKING = 0.05  # of one core, at most: thousands of files are looked at less often
DRAIN = 20.0  # seconds that workers, then the console, get to finish what they are doing
BACKLOG = 4096  # connections that wait to be accepted, as far as the kernel allows


class ListenError(Exception):
    """The operator's address cannot be listened on."""


class Address(Struct, frozen=True):
    """HOST:PORT or [V6]:PORT, as on the command line."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises ValueError with a sentence."""
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"found {text!r}; expected HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ValueError(f"found {text!r}; an IPv6 address needs brackets, such as [::1]:8080")
        return cls(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104  what ":8080" means

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where a command on the same machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{Address(host, self.port)}"


def listen(address: Address, count: int) -> tuple[list[socket.socket], Address]:
    """`count` sockets on one address, one for each worker; the kernel spreads connections over them.

    Raises ListenError. Port 0 takes a free one, which is returned.
    """
    try:
        info = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"{address}: {error.strerror}") from None
    family, kind, protocol, _, where = info[0]
    sockets: list[socket.socket] = []
    try:
        # Without SO_REUSEPORT first: otherwise a second server of ours would silently take half of the requests.
        with socket.socket(family, kind, protocol) as probe:
            _prepare(probe, family)
            probe.bind(where)
            where = probe.getsockname()
        for _ in range(count):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            _prepare(one, family)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(where)
            one.listen(BACKLOG)
            one.setblocking(False)
    except OSError as error:
        for one in sockets:
            one.close()
        raise ListenError(f"{address}: {error.strerror}") from None
    return sockets, Address(address.host, where[1])


def _prepare(one: socket.socket, family: int) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        # [::] answers IPv4 too, whatever the machine's default.
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)


class Supervisor:
    """Everything that `waypost serve` keeps running. Built with sockets already listening."""

    def __init__(
        self,
        config: Path,
        data: DataDirectory,
        public: tuple[list[socket.socket], Address],
        encrypted: tuple[list[socket.socket], Address] | None,
        console: tuple[list[socket.socket], Address],
        compiled: Compiled,
    ) -> None:
        self._config = config
        self._data = data
        self._public, self.address = public
        self._encrypted = encrypted[0] if encrypted else []
        self.tls_address = encrypted[1] if encrypted else None
        # Made before the workers are, so that a session that one of them began is resumed by the others.
        self._tls = make_context()
        self._console, self.console_address = console
        self._stamps = _stamps(compiled.files)
        self._reading: Reading | None = None
        self._tallies = [Tally() for _ in self._public]
        self._token = secrets.token_urlsafe(24)
        self._children: list[Child] = []
        self._stopping = False
        self._reload_asked = False
        data.write_snapshot(compiled.snapshot)

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Leaves nothing running behind."""
        recover_all(self._data.spool)
        standings.forget_all(self._data.health)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._ask_reload)
        alarm, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._children = [Child("console", self._run_console)]
        self._children += [
            Child(f"worker {number}", self._worker(number), self._mourner(number))
            for number in range(len(self._public))
        ]
        for child in self._children:
            child.start()
        try:
            config = str(self._config.absolute())
            self._data.announce(Running(os.getpid(), self.console_address.url, self._token, config))
        except OSError as error:
            logger.error("`waypost stats` will not find this server: %s", error.strerror)
        next_look = time.monotonic() + CONFIG_POLL
        while not self._stopping:
            next_thing = self._reading.deadline if self._reading is not None else next_look
            _wait(alarm, self._reading, max(0.0, min(next_thing, *self._restarts()) - time.monotonic()))
            self._reap()
            self._restart()
            if self._reading is not None:
                self._finish_reading(self._reading)
            elif self._reload_asked or time.monotonic() >= next_look:
                spent = time.process_time()
                self._look_at_files()
                next_look = time.monotonic() + max(CONFIG_POLL, (time.process_time() - spent) / LOOKING)
        self._end_children()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _ask_reload(self, *_: object) -> None:
        self._reload_asked = True

    def _worker(self, number: int) -> Callable[[], None]:
        def run() -> None:
            from waypost.gateway import worker

            own = [group[number] for group in (self._public, self._encrypted) if group]
            for one in [*self._public, *self._encrypted, *self._console]:
                if one not in own:
                    one.close()
            listening = worker.Listening(own[0], own[1] if self._encrypted else None, self._tls)
            worker.run(number, len(self._public), listening, self._data, self._tallies[number])

        return run

    def _mourner(self, number: int) -> Callable[[], None]:
        def mourn() -> None:
            # What the dead one told of itself no longer holds: readiness must not wait until it is stale.
            self._tallies[number].tell({"at_ms": 0, "connections": 0})
            standings.forget(self._data.health, number)
            try:
                recover_writer(self._data.spool, f"worker{number}")
            except OSError as error:
                logger.error("the spool of worker %d cannot be looked after now: %s", number, error.strerror)

        return mourn

    def _run_console(self) -> None:
        from waypost.console import server

        for one in [*self._public, *self._encrypted]:
            one.close()
        server.run(self._console, self._data, self._token, self._tallies)

    def _restarts(self) -> list[float]:
        return [child.restart_at for child in self._children if not child.pid] or [float("inf")]

    def _reap(self) -> None:
        """All that have ended. As the first process of a container we are also left with those of others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if self._reading is not None and self._reading.pid == pid:
                self._reading.pid = 0
            for child in self._children:
                if child.pid == pid:
                    self._note_death(child, status)

    def _note_death(self, child: Child, status: int) -> None:
        delay = child.ended()
        if not self._stopping:
            later = f" in {delay:.1f} s" if delay else ""
            logger.error("%s %s; starting it again%s", child.name, fate(status), later)

    def _restart(self) -> None:
        for child in self._children:
            if not child.pid and not self._stopping and time.monotonic() >= child.restart_at:
                child.start()

    def _look_at_files(self) -> None:
        stamps = _stamps(self._stamps)
        if stamps == self._stamps and not self._reload_asked:
            return
        # Of the moment before it is read: an edit during the reading is seen as one after it.
        self._stamps = stamps
        self._reload_asked = False
        tls_port = None if self.tls_address is None else self.tls_address.port
        try:
            self._reading = Reading(self._config, self.address.port, tls_port, self._data)
        except OSError as error:
            self._reload_asked = True
            logger.error("the configuration cannot be read now: %s", error.strerror)

    def _finish_reading(self, reading: Reading) -> None:
        outcome = reading.outcome()
        if outcome is None:
            return
        self._reading = None
        if outcome.error:
            logger.error("%s", outcome.error)
            return
        # A file that it names for the first time has no stamp yet, and is read once more.
        self._stamps = {file: self._stamps.get(file) for file in map(Path, outcome.files)}
        for warning in outcome.warnings:
            logger.warning("%s", warning)
        logger.info("configuration applied: %s", outcome.summary)

    def _end_children(self) -> None:
        """Workers first: what they still write, the console still stores."""
        if self._reading is not None:
            self._reading.end()
            self._reading = None
        # Workers close theirs; with ours gone too nobody queues for an answer that will not come.
        for one in [*self._public, *self._encrypted]:
            one.close()
        for group in (self._children[1:], self._children[:1]):
            deadline = time.monotonic() + DRAIN
            for child in group:
                if child.pid:
                    os.kill(child.pid, signal.SIGTERM)
            while any(child.pid for child in group) and time.monotonic() < deadline:
                time.sleep(0.01)
                self._reap()
            for child in group:
                if child.pid:
                    logger.error("%s did not end in time", child.name)
                    os.kill(child.pid, signal.SIGKILL)
                    os.waitpid(child.pid, 0)
                    child.ended()


Stamp = tuple[int, int, int]


def _stamps(files: Iterable[Path]) -> dict[Path, Stamp | None]:
    """By which a change of a file is noticed; None for one that is not there."""
    stamps: dict[Path, Stamp | None] = {}
    for file in files:
        try:
            status = file.stat()
            stamps[file] = (status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError:
            stamps[file] = None
    return stamps


def _wait(alarm: int, reading: Reading | None, seconds: float) -> None:
    """Until a signal, news of a reading, or a deadline."""
    select.select([alarm] if reading is None else [alarm, reading.pipe], [], [], seconds)
    try:
        while os.read(alarm, 512):
            pass
    except BlockingIOError:
        pass
