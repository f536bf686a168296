"""Numbers as people read them: tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from waypost.console.question import Question
from waypost.stores.store import BY, Line, Stats

FORMATS = ("table", "json", "csv")
EVENT_FIELDS = (
    "id", "time", "kind", "counted", "owner", "package", "domain", "version", "tag", "digest", "platform", "variables",
    "client", "client_version", "user_agent", "referer", "origin_id", "endpoint_id", "artifact", "class", "merged",
    "upstream", "status", "partial", "size",
)  # fmt: skip

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COLUMNS = ("downloads", "sources", "views", "telemetry", "merged")


def question(
    package: str | None, since: str, by: str | None, everything: bool, now: datetime | None = None
) -> Question:
    """Words of the command line → a question. Raises ValueError with a sentence."""
    if by is not None and by not in BY:
        raise ValueError(f"--by: found {by!r}; expected one of {', '.join(BY)}")
    now = now or datetime.now(UTC)
    return Question(
        package=package,
        since_us=int(_moment(since, now).timestamp() * 1_000_000),
        # Clocks of workers and of this command may differ by a little: nothing recorded so far is cut off.
        until_us=int((now + timedelta(minutes=1)).timestamp() * 1_000_000),
        by=by,
        everything=everything,
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(since: str, now: datetime) -> datetime:
    """Never before 1970: nothing was recorded then."""
    if since == "all":
        return _EPOCH
    if span := re.fullmatch(r"(\d{1,6})([mhdw])", since, re.ASCII):
        try:
            return max(_EPOCH, now - timedelta(**{_UNITS[span[2]]: int(span[1])}))
        except OverflowError:
            return _EPOCH
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise ValueError(
            f"--since: found {since!r}; expected 30d, 12h, 45m, 8w, a date such as 2026-11-01, or all"
        ) from None
    return max(_EPOCH, moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def render(stats: Stats, asked: Question, form: str) -> str:
    """`form` is one of FORMATS."""
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(stats), indent=2).decode() + "\n"
    if form == "csv":
        return _csv([(stats.by or "package", *_COLUMNS), *(_cells(line) for line in stats.lines)])
    return _table(stats, asked)


def _cells(line: Line) -> tuple[Any, ...]:
    return (line.key, line.downloads, line.sources, line.views, line.telemetry, line.merged)


def _table(stats: Stats, asked: Question) -> str:
    shown = [name for name in _COLUMNS if name in ("downloads", "sources") or getattr(stats.total, name)]
    if not stats.lines:
        whose = f" of {asked.package}" if asked.package else ""
        return f"Nothing was counted{whose} since {_day(stats.since_us)}.{_beside(stats)}\n"
    head = [stats.by or "package", *shown]
    rows = [[line.key or "(unknown)", *(f"{getattr(line, name):,}" for name in shown)] for line in stats.lines]
    if len(rows) > 1:
        rows.append(["total", *(f"{getattr(stats.total, name):,}" for name in shown)])
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    if len(rows) > 1:
        lines.insert(len(lines) - 1, "  ".join("─" * width for width in widths))
    return "\n".join(lines) + f"\n\nSince {_day(stats.since_us)}, UTC.{_beside(stats)}\n"


def _beside(stats: Stats) -> str:
    """What the numbers leave out stands beside them (C12)."""
    text = ""
    if left_out := [
        f"{count:,} by {_CLASSES.get(name, name)}" for name, count in sorted(stats.left_out.items()) if count
    ]:
        text += f" Left out: {', '.join(left_out)}; --all shows them."
    if stats.total.merged and "merged" not in text:
        text += f" {stats.total.merged:,} repeated within seconds and merged."
    return text


_CLASSES = {"ci": "CI systems", "mirror": "mirrors", "bot": "bots"}


def _day(us: int) -> str:
    return "the beginning" if us <= 0 else f"{datetime.fromtimestamp(us / 1_000_000, UTC):%Y-%m-%d %H:%M}"


def event_lines(events: Iterable[dict[str, Any]], form: str) -> Iterator[str]:
    """Events as text, one a line: `form` is ndjson or csv."""
    if form == "csv":
        yield _csv([EVENT_FIELDS])
    for event in events:
        if form == "ndjson":
            yield msgspec.json.encode(event).decode() + "\n"
        else:
            yield _csv([[_flat(event.get(field)) for field in EVENT_FIELDS]])


def _flat(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list | bool) else value


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
