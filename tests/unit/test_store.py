"""The contract of the event store. An engine is added by adding it to ENGINES; nothing below knows which one runs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from waypost.events.event import Event
from waypost.stores import duckdb as engine
from waypost.stores import duckdb_schema
from waypost.stores.duckdb import DuckStore
from waypost.stores.store import (
    BY,
    Change,
    InUse,
    Line,
    Row,
    Store,
    StoreBusyError,
    Stored,
    StoreFailedError,
    StoreMissingError,
    StoreVersionError,
    Used,
    Verdict,
)

ENGINES: dict[str, Callable[[Path], Store]] = {"duckdb": lambda folder: DuckStore(folder / "events.duckdb")}
T0 = 1_795_219_200_000_000  # 2026-11-21T00:00:00Z
DAY = 86_400 * 1_000_000
_ids = count(1)


@pytest.fixture(params=ENGINES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    return lambda: ENGINES[request.param](tmp_path)


@pytest.fixture
def store(opened: Callable[[], Store]) -> Iterator[Store]:
    made = opened()
    yield made
    made.close()


def row(time: int = T0, *, class_: str = "person-or-machine", verdict: Verdict | None = None, **fields: Any) -> Row:
    defaults = {"kind": "binary-download", "package": "skates", "domain": "acme.example", "origin_id": b"o" * 16}
    fact = Event(id=next(_ids).to_bytes(16), time=time, **defaults | fields)
    own = Verdict(True, None, None, fact.version, fact.tag, fact.platform)
    return Row(fact, verdict or own, "curl", "8.1", class_)


FULL = Event(
    id=bytes(range(16)),
    time=T0 + 123_456,
    kind="manifest-fetch",
    package="acme/skates",
    domain="acme.example",
    path="/v2/acme/skates/manifests/1",
    status=200,
    partial=True,
    owner="acme",
    version="1",
    tag="1",
    digest="sha256:x",
    platform="linux/amd64",
    artifact="index",
    variables={"q": 'ü "quoted", \n', "": ""},
    upstream="ghcr.io",
    lists={"sha256:a": "linux/amd64"},
    user_agent="curl/8.1 \x00\x7f\ud7ff ü\"',;",
    referer="https://acme.example/",
    origin_id=b"o" * 16,
    endpoint_id=b"e" * 16,
    origin_was=b"O" * 16,
    endpoint_was=b"E" * 16,
    country="DE",
    network="AS64496 Example",
    size=1 << 40,
)


def test_a_row_comes_back_as_the_law_needs_it(store: Store) -> None:
    verdict = Verdict(False, "C7", b"p" * 16, "2", "2", "linux/arm64")
    store.commit([Row(FULL, verdict, "curl", "8.1", "ci")], [], {})
    assert store.timeline({b"o" * 16: 0}) == {
        b"o" * 16: [
            Stored(
                Event(
                    id=FULL.id,
                    time=FULL.time,
                    kind=FULL.kind,
                    package=FULL.package,
                    domain=FULL.domain,
                    path=FULL.path,
                    status=FULL.status,
                    partial=True,
                    version="1",
                    tag="1",
                    digest="sha256:x",
                    platform="linux/amd64",
                    artifact="index",
                    lists=FULL.lists,
                    origin_id=FULL.origin_id,
                ),
                verdict,
            )
        ]
    }


def test_an_event_comes_back_as_people_see_it(store: Store) -> None:
    store.commit([Row(FULL, Verdict(True, None, None, "2", "2", "linux/arm64"), "curl", "8.1", "ci")], [], {})
    ((cursor, event),) = store.events()
    assert cursor == store.last_cursor()
    assert event == {
        "id": "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "time": "2026-11-21T00:00:00.123456Z",
        "kind": "manifest-fetch",
        "counted": True,
        "owner": "acme",
        "package": "acme/skates",
        "domain": "acme.example",
        "version": "2",
        "tag": "2",
        "digest": "sha256:x",
        "platform": "linux/arm64",
        "variables": FULL.variables,
        "client": "curl",
        "client_version": "8.1",
        "user_agent": FULL.user_agent,
        "referer": "https://acme.example/",
        "origin_id": "6f6f6f6f-6f6f-6f6f-6f6f-6f6f6f6f6f6f",
        "endpoint_id": "65656565-6565-6565-6565-656565656565",
        "artifact": "index",
        "class": "ci",
        "upstream": "ghcr.io",
        "status": 200,
        "country": "DE",
        "network": "AS64496 Example",
        "partial": True,
        "size": 1 << 40,
    }


def test_a_size_is_there_or_not(store: Store) -> None:
    sizes = [None, 0, 7, None, (1 << 63) - 1]
    store.commit([row(size=size) for size in sizes], [], {})
    assert [event.get("size") for _, event in store.events()] == sizes


HOSTILE = [
    "",
    "\x00",
    "a\x00b",
    "\n",
    "\r\n",
    "\t,",
    '"',
    "\\",
    "\\n",
    "\\N",
    "null",
    "NULL",
    "'",
    "{",
    "é",
    "\ud7ff",
    "🛼",
]


def test_any_text_comes_back_exactly_and_empty_is_not_absent(store: Store) -> None:
    texts = [*HOSTILE, None]
    made = [
        row(
            T0 + n,
            path=text or "",
            version=text,
            referer=text,
            variables=None if text is None else {text: text},
            lists=None if text is None else {"d": text},
        )
        for n, text in enumerate(texts)
    ]
    store.commit(made, [], {})
    seen = [event for _, event in store.events()]
    assert [(e.get("version"), e.get("referer")) for e in seen] == [(text, text) for text in texts]
    assert [e.get("variables") for e in seen] == [one.fact.variables for one in made]
    stored = store.timeline({b"o" * 16: 0})[b"o" * 16]
    assert [(s.fact.path, s.fact.version, s.fact.lists) for s in stored] == [
        (r.fact.path, r.fact.version, r.fact.lists) for r in made
    ]


def test_many_rows_of_all_sorts_in_one_commit(store: Store) -> None:
    """More than are turned into columns at a time, with columns that are empty, constant, or neither, in parts of it."""
    made = [
        row(
            T0 + n,
            origin_id=b"o" * 16,
            version=None if n < 1500 else str(n % 5),
            tag="t" if 1000 < n < 2500 else None,
            verdict=Verdict(n % 2 == 0, None if n % 2 == 0 else "C6", None if n < 2000 else n.to_bytes(16), str(n % 5)),
        )
        for n in range(3000)
    ]
    store.commit(made, [], {})
    stored = store.timeline({b"o" * 16: 0})[b"o" * 16]
    assert [(s.fact.id, s.fact.version, s.fact.tag) for s in stored] == [
        (r.fact.id, r.fact.version, r.fact.tag) for r in made
    ]
    assert [(s.verdict.counted, s.verdict.rule, s.verdict.part_of, s.verdict.version) for s in stored] == [
        (r.verdict.counted, r.verdict.rule, r.verdict.part_of, r.verdict.version) for r in made
    ]


def test_what_was_never_to_be_stored_is_not(store: Store, tmp_path: Path) -> None:
    store.commit([Row(FULL, Verdict(True), None, None, "ci")], [], {})
    store.close()
    disk = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for was in (FULL.origin_was, FULL.endpoint_was):
        assert was is not None
        assert was not in disk
        assert was.hex().encode() not in disk


def test_absent_stays_absent(store: Store) -> None:
    store.commit([row()], [], {})
    ((_, event),) = store.events()
    assert "owner" not in event
    assert "merged" not in event
    assert "variables" not in event
    ((stored,),) = store.timeline({b"o" * 16: 0}).values()
    assert stored.fact.lists is None


def test_positions_are_kept_moved_and_forgotten(store: Store, opened: Callable[[], Store]) -> None:
    assert store.positions() == {}
    store.commit([], [], {"a": 10, "b": 20})
    store.commit([row()], [], {"a": 15})
    assert store.positions() == {"a": 15, "b": 20}
    store.commit([], [], {"c": 1}, ["a"])
    store.close()
    again = opened()
    assert again.positions() == {"b": 20, "c": 1}
    again.close()


def test_timeline_is_sorted_and_begins_where_each_source_says(store: Store) -> None:
    a, b = b"a" * 16, b"b" * 16
    rows = [row(T0 + n, origin_id=origin) for n in (5, 3, 9) for origin in (a, b)]
    rows.append(row(T0 + 3, origin_id=a))
    store.commit(rows, [], {})
    found = store.timeline({a: T0 + 3, b: T0 + 5, b"c" * 16: 0})
    assert {origin: [s.fact.time - T0 for s in own] for origin, own in found.items()} == {
        a: [3, 3, 5, 9],
        b: [5, 9],
    }
    assert found[a][0].fact.id < found[a][1].fact.id
    assert store.timeline({}) == {}
    assert store.newest_us() == T0 + 9


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert store.newest_us() is None
    assert store.last_cursor() == 0
    assert list(store.events()) == []
    answer = store.stats(since_us=0, until_us=T0, by="day")
    assert (answer.lines, answer.total, answer.left_out) == ([], Line(None, 0, 0, 0, 0, 0), {})


def test_a_verdict_changes_and_the_fact_does_not(store: Store) -> None:
    first, second = row(version="1"), row(T0 + DAY, version="2")
    store.commit([first, second], [], {})
    other = Verdict(False, "C7", first.fact.id, "x", "x", "linux/arm64")
    store.commit([], [Change(second.fact.id, second.fact.time, other)], {})
    kept, changed = store.timeline({b"o" * 16: 0})[b"o" * 16]
    assert kept.verdict == first.verdict
    assert changed.verdict == other
    assert changed.fact.version == "2"
    back = Verdict(True, None, None, "2", None, None)
    store.commit([], [Change(second.fact.id, second.fact.time, back)], {})
    assert store.timeline({b"o" * 16: 0})[b"o" * 16][1].verdict == back


def counts(store: Store, **question: Any) -> dict[str | None, tuple[int, int]]:
    answer = store.stats(**{"since_us": 0, "until_us": T0 + 9 * DAY} | question)
    return {line.key: (line.downloads, line.sources) for line in answer.lines}


def test_stats_by_everything_that_can_be_asked(store: Store) -> None:
    a, b = b"a" * 16, b"b" * 16
    store.commit(
        [
            row(T0, version="1", origin_id=a, country="DE", owner="acme", upstream="ghcr.io", artifact="deb"),
            row(T0 + 1, version="2", origin_id=a),
            row(T0 + DAY, version="2", origin_id=b, platform="linux", package="boots", domain="b.example", tag="t"),
            row(T0 + DAY, kind="manifest-fetch", verdict=Verdict(True, version="3", tag="3", platform="linux/arm64")),
        ],
        [],
        {},
    )
    assert counts(store, by="version") == {"2": (2, 2), "1": (1, 1), "3": (1, 1)}
    assert counts(store, by="day") == {"2026-11-21": (2, 1), "2026-11-22": (2, 2)}
    assert counts(store, by="package") == {"skates": (3, 2), "boots": (1, 1)}
    assert counts(store, by="platform") == {None: (2, 1), "linux": (1, 1), "linux/arm64": (1, 1)}
    assert counts(store, by="country") == {None: (3, 3), "DE": (1, 1)}
    assert counts(store, by="tag") == {None: (2, 1), "3": (1, 1), "t": (1, 1)}
    assert counts(store, by="client") == {"curl": (4, 3)}
    assert counts(store, by="version", package="boots") == {"2": (1, 1)}
    assert counts(store, by="version", until_us=T0 + 1) == {"1": (1, 1)}, "until is the first moment left out"
    assert counts(store, by="version", since_us=T0 + 1) == {"2": (2, 2), "3": (1, 1)}
    for by in BY:
        assert sum(downloads for downloads, _ in counts(store, by=by).values()) == 4
    total = store.stats(since_us=0, until_us=T0 + 9 * DAY).total
    assert (total.downloads, total.sources) == (4, 3)
    with pytest.raises(ValueError, match="shoe size"):
        store.stats(since_us=0, until_us=1, by="shoe size")


def test_views_telemetry_and_merges_are_told_apart(store: Store) -> None:
    first = row()
    store.commit(
        [
            first,
            row(verdict=Verdict(False, "C6", first.fact.id)),
            row(verdict=Verdict(False, "C6", first.fact.id)),
            row(verdict=Verdict(False, "C4")),
            row(kind="pixel-fetch", origin_id=b"p" * 16),
            row(kind="telemetry", origin_id=b"t" * 16),
            row(kind="telemetry", origin_id=b"t" * 16),
        ],
        [],
        {},
    )
    answer = store.stats(since_us=0, until_us=T0 + 1, by="package")
    assert answer.lines == [Line("skates", 1, 1, 1, 2, 2)]
    assert answer.total == Line(None, 1, 1, 1, 2, 2)
    events = [event for _, event in store.events()]
    assert [event.get("merged") for event in events] == [2, None, None, None, None, None, None]
    assert events[1]["rule"] == "C6"
    assert events[1]["part_of"] == events[0]["id"]


def test_c12_ci_mirrors_and_bots_are_left_out_and_said_so(store: Store) -> None:
    store.commit([row(), *(row(class_=c) for c in ("ci", "ci", "mirror", "bot"))], [], {})
    answer = store.stats(since_us=0, until_us=T0 + 1, by="class")
    assert [line.key for line in answer.lines] == ["person-or-machine"]
    assert answer.left_out == {"bot": 1, "ci": 2, "mirror": 1}
    whole = store.stats(since_us=0, until_us=T0 + 1, everything=True)
    assert (whole.total.downloads, whole.left_out) == (5, {})


def test_events_go_on_where_the_last_page_ended(store: Store) -> None:
    for n in range(3):
        store.commit([row(T0 + 10 * n + m, version=f"{n}.{m}") for m in range(4)], [], {})
    cursor, seen = 0, []
    while page := list(store.events(cursor, limit=5)):
        assert len(page) <= 5
        seen += [event["version"] for _, event in page]
        cursor = page[-1][0]
    assert seen == [f"{n}.{m}" for n in range(3) for m in range(4)]
    store.commit([row(T0, version="late")], [], {})
    assert [event["version"] for _, event in store.events(cursor)] == ["late"]
    assert [event["version"] for _, event in store.events(since_us=T0 + 23)] == ["2.3"]
    assert list(store.events(package="boots")) == []


def test_in_use_is_what_was_asked_for_by_itself(store: Store) -> None:
    """A tag that a HEAD resolved is that tag (C8); what belongs to a pull is not named; whoever asks is somebody."""
    image: dict[str, Any] = {"kind": "manifest-fetch", "package": "acme/x"}
    opener = row(T0 + 10, **image, tag="1", digest="sha256:new", lists={"sha256:child": "linux/amd64", "sha256:y": ""})
    rows = [
        row(T0 + 5, **image, tag="1", digest="sha256:old"),
        opener,
        row(T0 + 11, **image, digest="sha256:child", verdict=Verdict(False, "C7", part_of=opener.fact.id)),
        row(T0 + 12, **image, tag="1", digest="sha256:new", class_="ci"),
        row(
            T0, **image | {"kind": "manifest-head"}, tag="2", digest="sha256:two", verdict=Verdict(False, "C2", tag="2")
        ),
        row(T0 + 1, **image, digest="sha256:two", verdict=Verdict(True, tag="2")),
        row(T0, **image, digest="sha256:pinned"),
        row(T0, **image, tag="sha256-aa.sig", digest="sha256:sig", verdict=Verdict(False, "C9", tag="sha256-aa.sig")),
        row(T0 - DAY, **image, tag="0", digest="sha256:zero"),
        row(T0, **image | {"package": "acme/y"}, tag="3", digest="sha256:three"),
        row(T0, **image | {"kind": "blob-fetch"}, digest="sha256:layer"),
    ]
    store.commit(rows, [], {})
    found = store.in_use("acme/x", since_us=T0)
    assert found.used == [
        Used("1", "sha256:new", 3, 3),
        Used("2", "sha256:two", 1, 2),
        Used("sha256:pinned", "sha256:pinned", 1, 1),
        Used("sha256-aa.sig", "sha256:sig", 0, 1),
    ]
    assert found.indexes == {"sha256:new": ["sha256:child", "sha256:y"]}
    assert [one.reference for one in store.in_use("acme/x", since_us=T0 - DAY).used][-2:] == [
        "sha256:pinned",
        "sha256-aa.sig",
    ]
    assert store.in_use("acme/none", since_us=0) == InUse([], {})


def test_queries_from_other_threads_while_it_commits(store: Store) -> None:
    errors: list[BaseException] = []
    done = threading.Event()

    def look() -> None:
        try:
            while not done.is_set():
                total = store.stats(since_us=0, until_us=T0 + DAY).total
                assert total.downloads % 10 == 0, "a commit is seen whole"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(30):
        store.commit([row(T0 + n) for _ in range(10)], [], {"s": n})
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.stats(since_us=0, until_us=T0 + DAY).total.downloads == 300


# DuckDB's own


def test_a_commit_that_fails_leaves_nothing_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DuckStore(tmp_path / "events.duckdb")
    store.commit([row()], [], {"s": 1})
    with monkeypatch.context() as patch:
        patch.setattr(engine, "UPDATE", "SELECT error('told to'), ?, ?")
        with pytest.raises(StoreFailedError, match="told to"):
            store.commit([row()], [Change(b"x" * 16, T0, Verdict(True))], {"s": 2})
    assert store.positions() == {"s": 1}
    assert store.last_cursor() == 1
    assert list((tmp_path / "tmp").iterdir()) == []
    store.commit([row()], [], {"s": 3})
    assert (store.positions(), store.last_cursor()) == ({"s": 3}, 2)
    store.close()


def test_what_is_no_text_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "events.duckdb")
    with pytest.raises(UnicodeEncodeError):
        store.commit([row(), row(path="/\ud800")], [], {"s": 1})
    assert (store.positions(), store.last_cursor()) == ({}, 0)
    store.commit([row()], [], {"s": 2})
    assert (store.positions(), store.last_cursor()) == ({"s": 2}, 1)
    store.close()


def test_looking_without_a_server(tmp_path: Path) -> None:
    path = tmp_path / "events.duckdb"
    with pytest.raises(StoreMissingError, match="does not exist"):
        DuckStore(path, read_only=True)
    owner = DuckStore(path)
    owner.commit([row()], [], {})
    look = f"from waypost.stores.duckdb import DuckStore; import pathlib; DuckStore(pathlib.Path({str(path)!r}), read_only=True)"
    busy = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert "StoreBusyError" in busy.stderr
    assert "ask that server, or stop it" in busy.stderr
    assert StoreBusyError.__doc__ is not None
    owner.close()
    reader = DuckStore(path, read_only=True)
    assert reader.last_cursor() == 1
    with pytest.raises(StoreFailedError):
        reader.commit([row()], [], {})
    reader.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.duckdb"
    store = DuckStore(path)
    store._connection.execute("UPDATE meta SET value = '99'")
    store.close()
    with pytest.raises(StoreVersionError, match="99"):
        DuckStore(path)


# What the first schema was, written out: it must not change with the code.
FIRST_SCHEMA = """
CREATE TABLE meta (key VARCHAR, value VARCHAR);
INSERT INTO meta VALUES ('schema', '1');
CREATE TABLE positions (segment VARCHAR, position BIGINT);
CREATE TABLE events (
    seq BIGINT, id UUID, time TIMESTAMP, kind VARCHAR, package VARCHAR, domain VARCHAR, method VARCHAR, path VARCHAR,
    status USMALLINT, partial BOOLEAN, owner VARCHAR, version VARCHAR, tag VARCHAR, digest VARCHAR, platform VARCHAR,
    artifact VARCHAR, variables JSON, upstream VARCHAR, lists JSON, user_agent VARCHAR, referer VARCHAR,
    origin_id UUID, endpoint_id UUID, country VARCHAR, network VARCHAR, client VARCHAR, client_version VARCHAR,
    class VARCHAR, counted BOOLEAN, rule VARCHAR, part_of UUID, pull_version VARCHAR, pull_tag VARCHAR,
    pull_platform VARCHAR
);
INSERT INTO events (seq, id, time, kind, package, domain, method, path, status, partial, counted, class)
VALUES (1, '00000000-0000-0000-0000-000000000001', '2026-11-21', 'blob-fetch', 'old', 'd', 'GET', '/', 200, false, false, 'ci');
"""


@pytest.fixture
def first_schema(tmp_path: Path) -> Path:
    path = tmp_path / "events.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(FIRST_SCHEMA)
    return path


def test_a_store_of_the_first_schema_is_brought_up_to_date_once(first_schema: Path) -> None:
    for size in (5, None):
        store = DuckStore(first_schema)
        store.commit([row(package="new", network="n", size=size, version="v")], [], {})
        store.close()
    store = DuckStore(first_schema, read_only=True)
    shown = [(event["package"], event.get("network"), event.get("size")) for _, event in store.events()]
    assert shown == [("old", None, None), ("new", "n", 5), ("new", "n", None)]
    store.close()


def test_a_store_of_the_first_schema_is_not_changed_by_who_only_reads(first_schema: Path) -> None:
    before = first_schema.read_bytes()
    with pytest.raises(StoreVersionError, match="waypost serve"):
        DuckStore(first_schema, read_only=True)
    assert first_schema.read_bytes() == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.duckdb"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreFailedError, match="cannot open"):
        DuckStore(path)


def test_every_column_is_filled_from_somewhere(tmp_path: Path) -> None:
    """Whoever adds a field to Event, or a column, also says how one gets into the other."""
    dropped = {"origin_was", "endpoint_was"}
    assert {field.name for field in msgspec.structs.fields(Event)} - set(duckdb_schema.COLUMNS) == dropped
    across = duckdb_schema._across([Row(FULL, Verdict(True), "curl", "8.1", "ci")])
    assert set(across) == set(duckdb_schema.COLUMNS) - {"seq"}
    assert all(len(values) == 1 for values in across.values())
