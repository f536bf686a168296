"""Numbers as people read them."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pytest

from waypost.console.report import EVENT_FIELDS, FORMATS, event_lines, question, render
from waypost.stores.store import BY, Line, Stats

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
US = 1_000_000


def since(text):
    return datetime.fromtimestamp(question(None, text, "package", False, NOW).since_us / US, UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30d", datetime(2026, 10, 22, 12, tzinfo=UTC)),
        ("12h", datetime(2026, 11, 21, 0, tzinfo=UTC)),
        ("45m", datetime(2026, 11, 21, 11, 15, tzinfo=UTC)),
        ("2w", datetime(2026, 11, 7, 12, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T06:00:00+01:00", datetime(2026, 11, 1, 5, tzinfo=UTC)),
        ("all", datetime(1970, 1, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00+23:59", datetime(1970, 1, 1, tzinfo=UTC)),
        ("1000w", datetime(2007, 9, 22, 12, tzinfo=UTC)),
        ("999999w", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_since(text, moment):
    assert since(text) == moment


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "yesterday", "2026-13-01", "1y"])
def test_since_what(text):
    with pytest.raises(ValueError, match="--since: found"):
        since(text)


def test_by_what():
    with pytest.raises(ValueError, match="--by: found 'colour'; expected one of"):
        question(None, "30d", "colour", False, NOW)
    for by in BY:
        assert question("skates", "30d", by, True, NOW).by == by


def line(key, downloads, **more):
    return Line(
        key=key, **{"downloads": downloads, "sources": downloads, "views": 0, "telemetry": 0, "merged": 0, **more}
    )


def stats(*lines, total=None, left_out=None, by="package"):
    total = total or line("", sum(one.downloads for one in lines))
    asked = question(None, "30d", by, False, NOW)
    return Stats(
        since_us=asked.since_us, until_us=asked.until_us, by=by, lines=list(lines), total=total, left_out=left_out or {}
    )


ASKED = question(None, "30d", "package", False, NOW)


def test_a_table():
    assert render(stats(line("rocket-skates", 1234), line("boots", 5)), ASKED, "table") == (
        "package        downloads  sources\n"
        "rocket-skates      1,234    1,234\n"
        "boots                  5        5\n"
        "─────────────  ─────────  ───────\n"
        "total              1,239    1,239\n"
        "\n"
        "Since 2026-10-22 12:00, UTC.\n"
    )


def test_one_line_needs_no_total_and_other_columns_show_when_there_is_something():
    text = render(stats(line("x", 1, views=3), total=line("", 1, views=3)), ASKED, "table")
    assert text.startswith("package  downloads  sources  views\nx                1        1      3\n\nSince")


def test_what_is_left_out_and_merged_is_said():
    total = line("", 1, merged=4)
    text = render(
        stats(line("x", 1, merged=4), total=total, left_out={"bot": 3, "ci": 2000, "mirror": 0}), ASKED, "table"
    )
    assert "Left out: 3 by bots, 2,000 by CI systems; --all shows them." in text
    assert "4 repeated within seconds and merged." in text


def test_nothing():
    assert render(stats(), ASKED, "table") == "Nothing was counted since 2026-10-22 12:00.\n"
    asked = question("boots", "all", "version", False, NOW)
    one = stats(by="version", left_out={"ci": 2})
    one.since_us = asked.since_us
    text = render(one, asked, "table")
    assert text == "Nothing was counted of boots since the beginning. Left out: 2 by CI systems; --all shows them.\n"


def test_unknown_is_called_so():
    assert "(unknown)" in render(stats(line("", 1), by="country"), ASKED, "table")


def test_json_and_csv():
    one = stats(line('a,"b"', 2))
    assert json.loads(render(one, ASKED, "json"))["lines"][0]["downloads"] == 2
    rows = list(csv.reader(io.StringIO(render(one, ASKED, "csv"))))
    assert rows == [
        ["package", "downloads", "sources", "views", "telemetry", "merged"],
        ['a,"b"', "2", "2", "0", "0", "0"],
    ]
    assert FORMATS == ("table", "json", "csv")


EVENT = {
    "id": "0193",
    "kind": "telemetry",
    "counted": True,
    "variables": {"a": "x,y"},
    "package": 'q"uote',
    "status": 200,
}


def test_events_as_ndjson():
    assert [json.loads(text) for text in event_lines([EVENT, EVENT], "ndjson")] == [EVENT, EVENT]


def test_events_as_csv():
    rows = list(csv.DictReader(io.StringIO("".join(event_lines([EVENT], "csv")))))
    assert list(rows[0]) == list(EVENT_FIELDS)
    assert (rows[0]["package"], rows[0]["variables"], rows[0]["counted"], rows[0]["owner"]) == (
        'q"uote',
        '{"a":"x,y"}',
        "true",
        "",
    )
    assert list(csv.reader(io.StringIO("".join(event_lines([], "csv"))))) == [list(EVENT_FIELDS)]
