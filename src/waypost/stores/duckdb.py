"""The event store in one DuckDB file, owned by the collector's process.

Rows arrive as columns in memory (stores/arrow.py): hundreds of times faster than executemany, and without a
columnar library. There is no index: rows come roughly in order of time, DuckDB skips what lies outside a
time span, and an index would turn every changed verdict into a delete and an insert.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from waypost.stores.arrow import Table
from waypost.stores.duckdb_schema import (
    CREATE,
    EVENTS,
    IN_USE,
    INDEXES,
    INSERT,
    KEYS,
    MIGRATIONS,
    SCHEMA,
    SUMS,
    TIMELINE,
    UPDATE,
    incoming_changes,
    incoming_rows,
    stored,
)
from waypost.stores.store import (
    BY,
    COUNTED_CLASSES,
    Change,
    InUse,
    Line,
    Row,
    Stats,
    Store,
    StoreBusyError,
    Stored,
    StoreError,
    StoreFailedError,
    StoreMissingError,
    StoreVersionError,
    Used,
)

MEMORY_LIMIT = "1GB"
THREADS = 2
CHECKPOINT_THRESHOLD = "64MB"


def _moment(us: int) -> str:
    seconds, micros = divmod(us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{micros:06}Z"


class DuckStore(Store):
    """The store in PATH. Raises StoreBusyError, StoreMissingError, StoreVersionError, StoreFailedError.

    path       DATA/events.duckdb
    tmp        DATA/tmp, for what a query or a commit cannot hold in memory
    read_only  look only; works while no other process owns the file

    One thread commits; any thread may query.
    """

    def __init__(self, path: Path, tmp: Path | None = None, *, read_only: bool = False) -> None:
        self._path = path
        self._tmp = tmp if tmp is not None else path.parent / "tmp"
        self._read_only = read_only
        self._lock = threading.Lock()
        self._broken = False
        self._connection = self._connect()
        self._seq = 0
        if not read_only:
            self._tmp.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._seq = self.last_cursor()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        if self._read_only and not self._path.exists():
            raise StoreMissingError(f"{self._path} does not exist; nothing has been served from this folder yet")
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY_LIMIT,
            "threads": THREADS,
            "checkpoint_threshold": CHECKPOINT_THRESHOLD,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "temp_directory": str(self._tmp),
        }
        try:
            connection = duckdb.connect(str(self._path), read_only=self._read_only, config=config)
        except duckdb.IOException as error:
            if "lock" in str(error):
                raise StoreBusyError(
                    f"{self._path} belongs to another running process: ask that server, or stop it first"
                ) from error
            raise StoreFailedError(f"cannot open {self._path}: {error}") from error
        except duckdb.Error as error:
            raise StoreFailedError(f"cannot open {self._path}: {error}") from error
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("SET TimeZone = 'UTC'")
        known = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'meta'").fetchone()
        if known == (0,):
            if self._read_only:
                raise StoreMissingError(f"{self._path} is empty; nothing has been served from this folder yet")
            connection.execute(f"BEGIN; {CREATE} COMMIT;")
        found = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        if found is None or int(found[0]) > SCHEMA:
            raise StoreVersionError(f"{self._path} has schema {found and found[0]}; this Waypost knows up to {SCHEMA}")
        if int(found[0]) < SCHEMA:
            self._migrate(connection, int(found[0]))

    def _migrate(self, connection: duckdb.DuckDBPyConnection, schema: int) -> None:
        if self._read_only:
            raise StoreVersionError(
                f"{self._path} has schema {schema} of an earlier Waypost; `waypost serve` brings it to {SCHEMA}"
            )
        steps = "; ".join(MIGRATIONS[step] for step in range(schema, SCHEMA))
        connection.execute(f"BEGIN; {steps}; UPDATE meta SET value = '{SCHEMA}' WHERE key = 'schema'; COMMIT;")

    def positions(self) -> dict[str, int]:
        return dict(self._query("SELECT segment, position FROM positions"))

    def newest_us(self) -> int | None:
        newest: int | None = self._query("SELECT epoch_us(max(time)) FROM events")[0][0]
        return newest

    def last_cursor(self) -> int:
        return int(self._query("SELECT coalesce(max(seq), 0) FROM events")[0][0])

    def commit(
        self,
        rows: Sequence[Row],
        changes: Sequence[Change],
        positions: Mapping[str, int],
        forget: Sequence[str] = (),
    ) -> None:
        try:
            connection = self._alive()
            new = incoming_rows(self._seq + 1, rows) if rows else None
            amended = incoming_changes(changes) if changes else None
            connection.execute("BEGIN")
            if new:
                self._take_in(connection, new, INSERT)
            if amended:
                times = [change.time for change in changes]
                self._take_in(connection, amended, UPDATE, [min(times), max(times)])
            gone = [*positions, *forget]
            if gone:
                connection.execute("DELETE FROM positions WHERE segment IN (SELECT unnest(?))", [gone])
            if positions:
                connection.execute(
                    "INSERT INTO positions SELECT unnest(?), unnest(?::BIGINT[])",
                    [list(positions), list(positions.values())],
                )
            connection.execute("COMMIT")
        except duckdb.Error as error:
            self._broken = True
            raise StoreFailedError(f"cannot store events in {self._path}: {error}") from error
        self._seq += len(rows)

    def _take_in(
        self, connection: duckdb.DuckDBPyConnection, table: Table, sql: str, values: Sequence[Any] = ()
    ) -> None:
        connection.register("incoming", table)
        connection.execute(sql, list(values))
        connection.unregister("incoming")

    def timeline(self, since_us: Mapping[bytes, int]) -> dict[bytes, list[Stored]]:
        found: dict[bytes, list[Stored]] = {}
        if since_us:
            origins = [origin.hex() for origin in since_us]
            moments = list(since_us.values())
            for columns in self._query(TIMELINE, [origins, moments, min(moments)]):
                one = stored(columns)
                assert one.fact.origin_id is not None
                found.setdefault(one.fact.origin_id, []).append(one)
            for rows in found.values():
                rows.sort(key=lambda row: (row.fact.time, row.fact.id))
        return found

    def stats(
        self,
        package: str | None = None,
        *,
        since_us: int,
        until_us: int,
        by: str | None = None,
        everything: bool = False,
    ) -> Stats:
        if by is not None and by not in KEYS:
            raise ValueError(f"by: found {by!r}; expected one of {', '.join(BY)}")
        span = "time >= make_timestamp(?) AND time < make_timestamp(?) AND (counted OR rule = 'C6')"
        values: list[Any] = [since_us, until_us]
        if package is not None:
            span += " AND package = ?"
            values.append(package)
        shown = span if everything else f"{span} AND class IN (SELECT unnest(?))"
        shown_values = values if everything else [*values, list(COUNTED_CLASSES)]
        lines = []
        if by is not None:
            order = "1" if by == "day" else "2 DESC, 4 DESC, 5 DESC, 1"
            sql = f"SELECT {KEYS[by]}, {SUMS} FROM events WHERE {shown} GROUP BY 1 ORDER BY {order} NULLS LAST"
            lines = [Line(None if key is None else str(key), *sums) for key, *sums in self._query(sql, shown_values)]
        total = Line(None, *self._query(f"SELECT {SUMS} FROM events WHERE {shown}", shown_values)[0])
        left_out: dict[str, int] = {}
        if not everything:
            sql = f"SELECT class, count(*) FROM events WHERE {span} AND counted AND class NOT IN (SELECT unnest(?)) "
            left_out = dict(self._query(sql + "GROUP BY 1 ORDER BY 1", shown_values))
        return Stats(by, since_us, until_us, lines, total, left_out)

    def events(
        self, after: int = 0, *, limit: int = 1000, since_us: int | None = None, package: str | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        values = {"after": after, "limit": limit, "since": since_us, "package": package}
        with self._cursor() as cursor:
            cursor.execute(EVENTS, values)
            names = [column[0] for column in cursor.description or ()]
            rows = cursor.fetchall()
        for columns in rows:
            event = {name: value for name, value in zip(names, columns, strict=True) if value is not None}
            cursor_at = event.pop("seq")
            event["time"] = _moment(event["time"])
            if "variables" in event:
                event["variables"] = json.loads(event["variables"])
            yield cursor_at, event

    def in_use(self, package: str, *, since_us: int) -> InUse:
        asked = [package, since_us]
        used = [Used(*columns) for columns in self._query(IN_USE, asked)]
        return InUse(used, {digest: list(json.loads(lists)) for digest, lists in self._query(INDEXES, asked)})

    def close(self) -> None:
        """Write everything into the file and let go of it."""
        with self._lock, contextlib.suppress(duckdb.Error):
            self._connection.close()

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of the calling thread's own."""
        try:
            with self._lock:
                cursor = self._connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()
        except duckdb.Error as error:
            raise StoreFailedError(f"cannot query {self._path}: {error}") from error

    def _query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor:
            return cursor.execute(sql, list(values)).fetchall()

    def _alive(self) -> duckdb.DuckDBPyConnection:
        """The writer's connection; opened anew after an error, since DuckDB may refuse to go on with the old one."""
        if self._broken:
            with self._lock:
                with contextlib.suppress(duckdb.Error):
                    self._connection.close()
                self._connection = self._connect()
            self._seq = self.last_cursor()
            self._broken = False
        return self._connection


__all__ = ["DuckStore", "StoreError"]
