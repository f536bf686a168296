"""Runs benchmarks and prints what they found as Markdown tables, in the order of this list."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TypeAlias

from benchmarks import (
    certificates,
    collector,
    freshness,
    idle,
    index,
    kept,
    load,
    match,
    packument,
    redirect,
    reload,
    stages,
    stream,
    tls,
)
from benchmarks.measure import Figure, machine, table

Benchmark: TypeAlias = Callable[[bool], list[Figure]]

BENCHMARKS: dict[str, Benchmark] = {
    "redirect": redirect.run,
    "kept": kept.run,
    "index": index.run,
    "packument": packument.run,
    "tls": tls.run,
    "idle": idle.run,
    "certificates": certificates.run,
    "stages": stages.run,
    "stream": stream.run,
    "match": match.run,
    "load": load.run,
    "collector": collector.run,
    "freshness": freshness.run,
    "reload": reload.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)} [all]")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes: does it run at all?")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    print(f"{machine()}; load before the run {os.getloadavg()[0]:.1f}\n", flush=True)
    for name in arguments.names or BENCHMARKS:
        print(f"## {name}\n", flush=True)
        print(table(BENCHMARKS[name](arguments.quick)), flush=True)


if __name__ == "__main__":
    main()
