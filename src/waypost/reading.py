"""The configuration being read, compiled and put in place, beside everything that goes on."""

from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from waypost.catalog.compile import compile_file
from waypost.data import DataDirectory
from waypost.process import spawn
from waypost.settings import SettingsError

LONGEST = 300.0  # seconds after which nobody believes that it will be read
_KEPT = "the one before keeps serving"


class Outcome(Struct, frozen=True):
    """What came of reading the configuration: what it says and which files it is made of, or why not."""

    summary: str = ""
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    error: str = ""


class Reading:
    """The configuration being read and compiled, in a process of its own.

    Whatever is in those files (no end, no bottom, a pipe that nobody writes to, what crashes a parser), the
    supervisor goes on supervising meanwhile, and stays small.

    pipe  has something to read when it is worth asking for the outcome
    pid   of the process; whoever has reaped it says so with 0
    """

    def __init__(self, config: Path, port: int, tls_port: int | None, data: DataDirectory) -> None:
        """Begins. Raises OSError if no process can be made."""
        self.pipe, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.deadline = time.monotonic() + LONGEST
        self._got = b""

        def run() -> None:
            gc.disable()  # short-lived, and a million rules are no garbage
            os.set_blocking(writing, True)
            with open(writing, "wb") as file:
                file.write(msgspec.msgpack.encode(_read(config, port, tls_port, data)))

        try:
            self.pid = spawn("configuration", run)
        except OSError:
            os.close(self.pipe)
            raise
        finally:
            os.close(writing)

    def outcome(self) -> Outcome | None:
        """None while it goes on. To be asked until there is one, and not again."""
        try:
            while piece := os.read(self.pipe, 65536):
                self._got += piece
        except BlockingIOError:
            if time.monotonic() < self.deadline:
                return None
            self.end()
            return Outcome(error=f"the configuration was not read within {LONGEST:g} s; {_KEPT}")
        self.end()
        try:
            return msgspec.msgpack.decode(self._got, type=Outcome)
        except msgspec.DecodeError:
            return Outcome(error=f"reading the configuration failed; {_KEPT}")

    def end(self) -> None:
        """Stops it where it is: the snapshot in use is the old one or the new one."""
        os.close(self.pipe)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _read(config: Path, port: int, tls_port: int | None, data: DataDirectory) -> Outcome:
    try:
        compiled = compile_file(config, port, tls_port)
        data.write_snapshot(compiled.snapshot)
    except SettingsError as error:
        return Outcome(error=f"the configuration was not taken; {_KEPT}:\n{error}")
    except RecursionError:
        return Outcome(error=f"the configuration was not taken, since it is nested too deeply; {_KEPT}")
    except OSError as error:
        return Outcome(error=f"the new configuration cannot be written ({error.strerror}); {_KEPT}")
    return Outcome(compiled.summary, compiled.warnings, tuple(map(str, compiled.files)))
