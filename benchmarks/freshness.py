"""From an answer to its being counted in `waypost stats`, asked as that command asks."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

from tests.support.server import WaypostServer, until

from benchmarks import clients
from benchmarks.measure import Figure, at_most
from waypost.console.client import Numbers, numbers
from waypost.console.question import Question
from waypost.events.event import now_us

SAMPLES = 20
TARGET = 2.0  # seconds


def run(quick: bool) -> list[Figure]:
    samples = 5 if quick else SAMPLES
    with tempfile.TemporaryDirectory() as name:
        server = WaypostServer(Path(name), clients.CONFIG, workers=2).start()
        try:
            asked = numbers(server.data.root)
            question = Question(since_us=0, until_us=now_us() + 3_600_000_000)
            delays = []
            for number in range(samples):
                status, _, _ = server.get(clients.HOST, f"/{number}/linux-amd64/skates.tar.gz")
                start = time.monotonic()
                assert status == 307, status
                until(partial(_counted, asked, question, number + 1), 20, "it to be counted")
                delays.append(time.monotonic() - start)
                time.sleep(number * 0.137 % 0.4)  # not in step with anything
        finally:
            server.stop()
    return [
        Figure(f"from an answer to its being in the statistics, median of {samples}", f"{median(delays):.2f} s"),
        at_most("… the longest", max(delays), TARGET, " s"),
    ]


def _counted(asked: Numbers, question: Question, downloads: int) -> bool:
    return asked.stats(question).total.downloads >= downloads
