"""A real `waypost serve` for tests: started, asked, killed, and always gone in the end."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from waypost.data import DataDirectory


def until(condition: Callable[[], object], seconds: float = 20.0, what: str = "") -> object:
    """Waits for a condition to hold; returns its value. Fails loudly when it does not come to hold."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what or condition}")
        time.sleep(0.02)


class WaypostServer:
    """One `waypost serve` below a folder. `port` and `console_port` are known once it runs."""

    def __init__(
        self, folder: Path, config: str, workers: int = 2, listen: str = "127.0.0.1:0", tls: bool = False
    ) -> None:
        """`tls`: listens for https, too."""
        self.folder = folder
        self.config = folder / "waypost.toml"
        self.data = DataDirectory(folder / "data")
        self.log = folder / "log.txt"
        self._workers = workers
        self._listen = listen
        self._process: subprocess.Popen[bytes] | None = None
        self._tls = tls
        self.port = 0
        self.tls_port = 0
        self.console_port = 0
        self.configure(config)

    def configure(self, text: str) -> None:
        temporary = self.config.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self.config)

    def start(self, seconds: float = 20.0) -> WaypostServer:
        """Starts it, on the same port as before if there was one."""
        listen = self._listen if not self.port else f"{self._listen.rpartition(':')[0]}:{self.port}"
        command = [
            sys.executable, "-m", "waypost", "serve", "--config", str(self.config), "--data", str(self.data.root),
            "--listen", listen, "--console", f"127.0.0.1:{self.console_port}", "--workers", str(self._workers),
        ]  # fmt: skip
        if self._tls:
            command += ["--listen-tls", f"127.0.0.1:{self.tls_port}"]
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        started = until(lambda: self._started(before), seconds, what="waypost serve to start")
        assert isinstance(started, re.Match), started
        self.port, self.tls_port, self.console_port = int(started[1]), int(started[2] or 0), int(started[3])
        until(self.ready, seconds, what="all workers to be ready")
        return self

    def _started(self, before: int) -> re.Match[str] | None:
        assert self._process is not None
        text = self.log.read_bytes()[before:].decode()
        if self._process.poll() is not None:
            raise AssertionError(f"waypost serve ended with {self._process.returncode}:\n{text}")
        return re.search(r"at http://\S+:(\d+)(?: and https://\S+:(\d+))?; console at http://\S+:(\d+)", text)

    def ready(self) -> bool:
        try:
            return self.console("/readyz")[0] == 200
        except OSError:
            return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[int]:
        """Process ids of console and workers, in the order of their start."""
        try:
            with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
                return [int(word) for word in file.read().split()]
        except FileNotFoundError:
            return []

    def kill(self) -> None:
        """SIGKILL to the supervisor; returns when it and its children are gone."""
        children = self.children()
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        until(lambda: not any(map(_alive, children)), what="children to die with their supervisor")

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, and the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise

    def get(
        self,
        host: str,
        target: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request on a connection of its own."""
        return self._ask(self.port, method, target, {"Host": host, "User-Agent": "test/1", **(headers or {})}, body)

    def console(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        status, _, body = self._ask(self.console_port, "GET", path, headers or {}, None)
        return status, body

    def _ask(
        self, port: int, method: str, target: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def command(self, *arguments: str, status: int = 0) -> str:
        """Runs another `waypost` command on this data directory; its standard output."""
        command = [
            sys.executable,
            "-m",
            "waypost",
            *arguments,
            "--config",
            str(self.config),
            "--data",
            str(self.data.root),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stderr
        return done.stdout

    def metric(self, name: str) -> float:
        """A metric, summed over its labels."""
        text = self.console("/metrics")[1].decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE))


def _alive(pid: int) -> bool:
    """Running, as opposed to gone or a zombie that its reaper has not collected yet."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Background:
    """Runs a function in threads until told to stop; errors surface in `join`."""

    def __init__(self, function: Callable[[int], None], threads: int) -> None:
        self.stopping = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(function, number)) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, function: Callable[[int], None], number: int) -> None:
        try:
            while not self.stopping.is_set():
                function(number)
        except BaseException as error:
            self._errors.append(error)

    def join(self) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join(30)
        if self._errors:
            raise self._errors[0]
