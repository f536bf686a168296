"""wrk, which asks a server as fast as that answers, and says how much came back."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import cpu_seconds

_SCRIPT = """
local requests = {{}}
for line in io.lines("{requests}") do
    requests[#requests + 1] = (line:gsub("|", "\\r\\n"))
end
local next = 0
request = function()
    next = next % #requests + 1
    return requests[next]
end
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format("TOTAL %d %d %d\\n", summary.requests, summary.bytes,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class Round(NamedTuple):
    """What a server did in one round: answers, bytes of them with their heads, and seconds of CPU and by the clock."""

    answers: int
    size: int
    cpu: float
    wall: float

    @property
    def cost(self) -> float:
        """Microseconds of CPU for an answer."""
        return self.cpu / self.answers * 1e6

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answers / self.wall

    @property
    def flow(self) -> float:
        """Bytes per second of CPU."""
        return self.size / self.cpu


class Wrk:
    """Drives a port with one set of requests, again and again in their order."""

    def __init__(
        self, script: Path, requests: Iterable[bytes], core: int, connections: int, scheme: str = "http"
    ) -> None:
        texts = script.with_suffix(".txt")
        # The script reads them line by line; "|" stands for the ends of their own lines.
        texts.write_text("\n".join(raw.decode().replace("\r\n", "|") for raw in requests))
        script.write_text(_SCRIPT.format(requests=texts))
        self._scheme = scheme
        self._command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", "-s", str(script)]

    def round(self, port: int, pid: int, seconds: int) -> Round:
        """Raises if any answer was not as it should be."""
        before, start = cpu_seconds(pid), time.monotonic()
        done = subprocess.run(
            [*self._command, f"-d{seconds}s", "--timeout", "60s", f"{self._scheme}://127.0.0.1:{port}/"],
            capture_output=True,
            text=True,
            check=True,
        )
        wall, cpu = time.monotonic() - start, cpu_seconds(pid) - before
        total = re.search(r"^TOTAL (\d+) (\d+) (\d+)$", done.stdout, re.MULTILINE)
        assert total is not None, done.stdout
        assert total[3] == "0", done.stdout
        return Round(int(total[1]), int(total[2]), cpu, wall)
