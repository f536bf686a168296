"""How things are measured: CPU time of processes, memory, the machine, and the table that results stand in."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Figure(NamedTuple):
    """One line of a result. `met` is None where there is no target."""

    what: str
    value: str
    target: str = ""
    met: bool | None = None


def at_most(what: str, value: float, bound: float, unit: str = "") -> Figure:
    return Figure(what, f"{value:,.3g}{unit}", f"≤ {bound:,g}{unit}", value <= bound)


def at_least(what: str, value: float, bound: float, unit: str = "") -> Figure:
    return Figure(what, f"{value:,.3g}{unit}", f"≥ {bound:,g}{unit}", value >= bound)


def table(figures: Iterable[Figure]) -> str:
    """Markdown."""
    lines = ["| what | measured | target | met |", "|---|---|---|---|"]
    said = {None: "", True: "yes", False: "**no**"}
    lines += [f"| {figure.what} | {figure.value} | {figure.target} | {said[figure.met]} |" for figure in figures]
    return "\n".join([*lines, ""])


def machine() -> str:
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = model[1] if model else platform.machine()
    linux = os.uname().release.partition("-")[0]
    return f"{os.cpu_count()} cores of {name}, Linux {linux}, Python {platform.python_version()}"


def cores() -> tuple[int, int]:
    """One core for what is measured, and another for what drives it."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise SystemExit("this benchmark needs two cores: one for the server, one for its clients")
    return available[0], available[-1]


def pin(pid: int, core: int, idle: bool = False) -> None:
    """Every thread of a process to one core; `idle`: only with time that nobody else there wants."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})
        if idle:
            os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its threads included, in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int) -> dict[str, int]:
    """Bytes: Rss, and Anonymous of it (what is this process's own, not the mapped snapshot)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def microseconds(function: Callable[[], object], calls: int, rounds: int = 7) -> float:
    """CPU time of one call, where `function` makes `calls` of them; the median of several rounds."""
    times = []
    for _ in range(rounds):
        start = time.process_time_ns()
        function()
        times.append(time.process_time_ns() - start)
    return median(times) / calls / 1000


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f}–{max(values):.2f}"
