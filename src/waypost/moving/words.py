"""A comparison as people read it, and the commands that would make both sides the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from waypost.artifacts.reference import DOCKER_HUB, ImageName
from waypost.moving.compare import Comparison, Row, to_copy

EVERY = 20
_UNUSED = "not pulled lately"


class Counter:
    """Says how far it is: in one place on a terminal, else in a line for every twenty."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._in_place = stream.isatty()

    def __call__(self, done: int, total: int) -> None:
        text = f"asked {done:,} of {total:,}"
        if self._in_place:
            self._stream.write(f"\x1b[K{text}\r" if done < total else "\x1b[K")
        elif done % EVERY == 0 or done == total:
            self._stream.write(f"{text}\n")
        self._stream.flush()


def image(name: ImageName) -> str:
    """As clients call it."""
    return f"{'docker.io' if name.registry == DOCKER_HUB else name.registry}/{name.repository}"


def lines(comparison: Comparison) -> Iterator[str]:
    """What is the same in one line; of the rest, each row in one."""
    other = [row for row in comparison.rows if row.state != "same"]
    same = len(comparison.rows) - len(other)
    used = sum(row.used is not None for row in comparison.rows if row.state == "same")
    cells = [(row.state, _short(row.reference), _usage(row), _detail(row)) for row in other]
    widths = [max((len(cell[column]) for cell in cells), default=0) for column in range(3)]
    for *cell, detail in cells:
        yield "  ".join([*map(str.ljust, cell, widths), detail]).rstrip()
    yield f"same: {same:,} of {len(comparison.rows):,}, {used:,} of them pulled lately"


def commands(
    comparison: Comparison, old: ImageName, new: ImageName, indexes: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """skopeo, since it copies every platform and keeps digests; a digest that cannot be kept is an error of its own."""
    for row in to_copy(comparison.rows, indexes):
        at = f"@{row.reference}" if row.is_digest else f":{row.reference}"
        yield f"skopeo copy --all --preserve-digests docker://{image(old)}{at} docker://{image(new)}{at}"


def _usage(row: Row) -> str:
    if row.used is None:
        return _UNUSED
    if row.used.pulls:
        return f"{row.used.pulls:,} pull{'s' * (row.used.pulls != 1)}"
    return f"asked for {row.used.times:,} time{'s' * (row.used.times != 1)}"


def _detail(row: Row) -> str:
    if row.why:
        return row.why
    return f"{_short(row.old or '')} became {_short(row.new or '')}" if row.state == "different" else ""


def _short(reference: str) -> str:
    """Enough of a digest to find it by."""
    algorithm, colon, encoded = reference.partition(":")
    return f"{algorithm}:{encoded[:12]}" if colon else reference
