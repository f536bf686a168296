"""Processes of the supervisor: forked with a clean slate, watched, started again, and never outliving it."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable

from waypost import log

logger = logging.getLogger("waypost")

QUICK_DEATH = 1.0  # seconds; a process that lived shorter is restarted with a growing delay
MAX_DELAY = 10.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

_SIGNAL_NAMES = {one.value: one.name for one in signal.Signals}


def spawn(name: str, run: Callable[[], None]) -> int:
    """Forks a process that does `run` and ends; its process id. Raises OSError if there is no room for one."""
    parent = os.getpid()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed before we started
        stream.flush()
    # A signal that came before the new process has let go of our handlers would be lost in it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            _die_with(parent)
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            log.configure(name)
            run()
            status = 0
        except BaseException:
            logger.exception("ended by an error of ours")
        finally:
            os._exit(status)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _die_with(parent: int) -> None:
    """When the supervisor dies its children die too, so that spool and store always have one owner.

    Linux: PR_SET_PDEATHSIG. Elsewhere the lock of the data directory, which children inherit, keeps a second
    owner out for as long as one of them lives.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class Child:
    """One process of ours: started, watched, started again. `mourn` tidies up after each of its deaths."""

    def __init__(self, name: str, run: Callable[[], None], mourn: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self._run = run
        self._mourn = mourn
        self.pid = 0
        self._started = 0.0
        self._delay = 0.0
        self.restart_at = 0.0

    def start(self) -> None:
        self._started = time.monotonic()
        self.restart_at = 0.0
        try:
            self.pid = spawn(self.name, self._run)
        except OSError as error:
            self.restart_at = self._started + MAX_DELAY
            logger.error("%s cannot be started now: %s", self.name, error.strerror)

    def ended(self) -> float:
        """Notes that the process is gone; seconds to wait before it is started again."""
        self.pid = 0
        lived = time.monotonic() - self._started
        self._delay = 0.0 if lived > QUICK_DEATH else min(MAX_DELAY, max(0.05, self._delay * 2))
        self.restart_at = time.monotonic() + self._delay
        self._mourn()
        return self._delay


def fate(status: int) -> str:
    """What a wait status says, as the end of a sentence."""
    if os.WIFSIGNALED(status):
        return f"was killed by {_SIGNAL_NAMES.get(os.WTERMSIG(status), 'a real-time signal')}"
    return f"ended with status {os.WEXITSTATUS(status)}"
