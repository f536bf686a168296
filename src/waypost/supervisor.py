"""`waypost serve`: one process that starts the others, restarts them when they die, and watches the configuration.

It holds the listening sockets, so that connections wait instead of failing while a worker is restarted. It is
plain and single-threaded, so that it may fork at any time, and it serves nobody itself.
"""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from waypost import log
from waypost.catalog.compile import Compiled, compile_file
from waypost.data import DataDirectory, Running
from waypost.events.spool import recover_all, recover_writer
from waypost.events.tally import Tally
from waypost.settings import SettingsError

logger = logging.getLogger("waypost")

CONFIG_POLL = 0.25  # seconds between looks at the files
DRAIN = 20.0  # seconds that processes get to finish what they are doing
QUICK_DEATH = 1.0  # a process that lived shorter is restarted with a growing delay
MAX_DELAY = 10.0
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
        if not colon or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"found {text!r}; expected HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ValueError(f"found {text!r}; an IPv6 address needs brackets, such as [::1]:8080")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where a command on the same machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{Address(host, self.port)}"


def listen(address: Address, count: int) -> tuple[list[socket.socket], Address]:
    """`count` sockets on one address, one for each worker; the kernel spreads connections over them.

    Raises ListenError. Port 0 takes a free one, which is returned.
    """
    try:
        info = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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


class Child:
    """One process of ours: started, watched, started again."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.name = name
        self._run = run
        self.pid = 0
        self._started = 0.0
        self._delay = 0.0
        self.restart_at = 0.0

    def start(self) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _die_with(parent)
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                    signal.signal(number, signal.SIG_DFL)
                log.configure(self.name)
                self._run()
                status = 0
            except BaseException:
                logger.exception("ended by an error of ours")
            finally:
                sys.stderr.flush()
                os._exit(status)
        self.pid = pid
        self._started = time.monotonic()
        self.restart_at = 0.0

    def ended(self) -> float:
        """Notes that the process is gone; seconds to wait before it is started again."""
        self.pid = 0
        lived = time.monotonic() - self._started
        self._delay = 0.0 if lived > QUICK_DEATH else min(MAX_DELAY, max(0.05, self._delay * 2))
        self.restart_at = time.monotonic() + self._delay
        return self._delay


def _die_with(parent: int) -> None:
    """When the supervisor dies its children die too, so that spool and store always have one owner.

    Linux: PR_SET_PDEATHSIG. Elsewhere the lock of the data directory, which children inherit, keeps a second
    owner out for as long as one of them lives.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class Supervisor:
    """Everything that `waypost serve` keeps running. Built with sockets already listening."""

    def __init__(
        self,
        config: Path,
        data: DataDirectory,
        public: tuple[list[socket.socket], Address],
        console: tuple[list[socket.socket], Address],
        compiled: Compiled,
    ) -> None:
        self._config = config
        self._data = data
        self._public, self.address = public
        self._console, self.console_address = console
        self._watched = compiled.files
        self._stamps = _stamps(self._watched)
        self._tallies = [Tally() for _ in self._public]
        self._token = secrets.token_urlsafe(24)
        self._children: list[Child] = []
        self._stopping = False
        self._reload_asked = False
        data.write_snapshot(compiled.snapshot)

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Leaves nothing running behind."""
        recover_all(self._data.spool)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._ask_reload)
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._children = [Child("console", self._run_console)]
        self._children += [Child(f"worker {number}", self._worker(number)) for number in range(len(self._public))]
        for child in self._children:
            child.start()
        self._data.announce(Running(os.getpid(), self.console_address.url, self._token))
        next_look = time.monotonic() + CONFIG_POLL
        while not self._stopping:
            _wait(reading, max(0.0, min(next_look, *self._restarts()) - time.monotonic()))
            self._reap()
            self._restart()
            if self._reload_asked or time.monotonic() >= next_look:
                self._look_at_files()
                next_look = time.monotonic() + CONFIG_POLL
        self._end_children()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _ask_reload(self, *_: object) -> None:
        self._reload_asked = True

    def _worker(self, number: int) -> Callable[[], None]:
        def run() -> None:
            from waypost.gateway import worker

            own = self._public[number]
            for one in [*self._public, *self._console]:
                if one is not own:
                    one.close()
            worker.run(number, len(self._public), own, self._data, self._tallies[number])

        return run

    def _run_console(self) -> None:
        from waypost.console import server

        for one in self._public:
            one.close()
        server.run(self._console, self._data, self._token, self._tallies)

    def _restarts(self) -> list[float]:
        return [child.restart_at for child in self._children if not child.pid] or [float("inf")]

    def _reap(self) -> list[Child]:
        gone = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for child in self._children:
                if child.pid == pid:
                    delay = child.ended()
                    gone.append(child)
                    if child.name.startswith("worker"):
                        recover_writer(self._data.spool, child.name.replace(" ", ""))
                    if not self._stopping:
                        logger.error(
                            "%s %s; starting it again%s", child.name, _fate(status), f" in {delay:.1f} s" * (delay > 0)
                        )
        return gone

    def _restart(self) -> None:
        for child in self._children:
            if not child.pid and not self._stopping and time.monotonic() >= child.restart_at:
                child.start()

    def _look_at_files(self) -> None:
        stamps = _stamps(self._watched)
        if stamps == self._stamps and not self._reload_asked:
            return
        self._stamps = stamps
        self._reload_asked = False
        try:
            compiled = compile_file(self._config, self.address.port)
            self._data.write_snapshot(compiled.snapshot)
        except SettingsError as error:
            logger.error("the configuration was not taken; the one before keeps serving:\n%s", error)
            return
        except OSError as error:
            logger.error("the new configuration cannot be written (%s); the one before keeps serving", error.strerror)
            return
        self._watched = compiled.files
        self._stamps = _stamps(self._watched)
        for warning in compiled.warnings:
            logger.warning("%s", warning)
        logger.info("configuration applied: %s", compiled.summary)

    def _end_children(self) -> None:
        """Workers first: what they still write, the console still stores."""
        deadline = time.monotonic() + DRAIN
        for group in (self._children[1:], self._children[:1]):
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
                    child.pid = 0


def _stamps(files: tuple[Path, ...]) -> list[tuple[int, int, int] | None]:
    stamps: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = file.stat()
            stamps.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            stamps.append(None)
    return stamps


def _wait(reading: int, seconds: float) -> None:
    """Until a signal or a deadline."""
    select.select([reading], [], [], seconds)
    try:
        while os.read(reading, 512):
            pass
    except BlockingIOError:
        pass


def _fate(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.WEXITSTATUS(status)}"
