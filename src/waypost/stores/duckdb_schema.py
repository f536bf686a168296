"""What stands in the DuckDB file: its columns, the statements about them, and how rows travel in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from waypost.events.event import Event
from waypost.stores.arrow import Blocks, Coded, Column, Numbers, Table
from waypost.stores.store import BY, Change, Row, Stored, Verdict

SCHEMA = 2

# Columns as they are stored, with their types. Those called pull_… hold what C7 and C8 resolve, and are NULL where the
# fact itself says so: changing a verdict then never touches a fact.
COLUMNS = {
    "seq": "BIGINT",
    "id": "UUID",
    "time": "TIMESTAMP",
    "kind": "VARCHAR",
    "package": "VARCHAR",
    "domain": "VARCHAR",
    "method": "VARCHAR",
    "path": "VARCHAR",
    "status": "USMALLINT",
    "partial": "BOOLEAN",
    "owner": "VARCHAR",
    "version": "VARCHAR",
    "tag": "VARCHAR",
    "digest": "VARCHAR",
    "platform": "VARCHAR",
    "artifact": "VARCHAR",
    "variables": "JSON",
    "upstream": "VARCHAR",
    "lists": "JSON",
    "user_agent": "VARCHAR",
    "referer": "VARCHAR",
    "origin_id": "UUID",
    "endpoint_id": "UUID",
    "country": "VARCHAR",
    "network": "VARCHAR",
    "size": "BIGINT",
    "client": "VARCHAR",
    "client_version": "VARCHAR",
    "class": "VARCHAR",
    "counted": "BOOLEAN",
    "rule": "VARCHAR",
    "part_of": "UUID",
    "pull_version": "VARCHAR",
    "pull_tag": "VARCHAR",
    "pull_platform": "VARCHAR",
}
VERDICT = ("counted", "rule", "part_of", "pull_version", "pull_tag", "pull_platform")

CREATE = f"""
CREATE TABLE meta (key VARCHAR, value VARCHAR);
INSERT INTO meta VALUES ('schema', '{SCHEMA}');
CREATE TABLE positions (segment VARCHAR, position BIGINT);
CREATE TABLE events ({", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())});
"""


# What makes a store of the schema after it out of one of this schema. Columns are only ever added.
MIGRATIONS = {1: "ALTER TABLE events ADD COLUMN size BIGINT"}


# How a value that stands in `incoming`, as _COLUMN_OF below has it there, becomes what is stored.
_CAST = {
    "BOOLEAN": "CAST({} AS BOOLEAN)",
    "JSON": "CAST({} AS JSON)",
    "TIMESTAMP": "make_timestamp({})",
    "UUID": "CAST({} AS UUID)",
}


def _stored(name: str) -> str:
    return _CAST.get(COLUMNS[name], "{}").format(f'incoming."{name}"')


# By name: in a store that was migrated the columns stand in another order.
_COLUMNS = ", ".join(f'"{name}"' for name in COLUMNS)
INSERT = f"INSERT INTO events ({_COLUMNS}) SELECT {', '.join(map(_stored, COLUMNS))} FROM incoming"
UPDATE = f"""
UPDATE events SET {", ".join(f"{name} = {_stored(name)}" for name in VERDICT)}
FROM incoming WHERE events.id = {_stored("id")} AND events.time BETWEEN make_timestamp(?) AND make_timestamp(?)
"""

# What the law needs of a fact, in the order in which stored() takes it.
TIMELINE = """
SELECT events.id, epoch_us(time), kind, package, domain, method, path, status, partial, version, tag, digest,
       platform, artifact, lists, events.origin_id,
       counted, rule, part_of, pull_version, pull_tag, pull_platform
FROM events JOIN (SELECT unnest(?::UUID[]) AS origin, unnest(?::BIGINT[]) AS since) AS sources
  ON events.origin_id = sources.origin AND events.time >= make_timestamp(sources.since)
WHERE time >= make_timestamp(?)
"""

_VERSION = "coalesce(pull_version, version)"
_TAG = "coalesce(pull_tag, tag)"
_PLATFORM = "coalesce(pull_platform, platform)"
KEYS = {name: f'"{name}"' for name in BY} | {
    "version": _VERSION,
    "tag": _TAG,
    "platform": _PLATFORM,
    "day": "CAST(time AS DATE)",
}
_DOWNLOAD = "counted AND kind NOT IN ('pixel-fetch', 'telemetry')"
SUMS = f"""
count(*) FILTER ({_DOWNLOAD}), count(DISTINCT origin_id) FILTER ({_DOWNLOAD}),
count(*) FILTER (counted AND kind = 'pixel-fetch'), count(*) FILTER (counted AND kind = 'telemetry'),
count(*) FILTER (rule = 'C6')
"""

EVENTS = f"""
WITH page AS (
    SELECT * FROM events
    WHERE seq > $after AND ($since IS NULL OR time >= make_timestamp($since))
      AND ($package IS NULL OR package = $package)
    ORDER BY seq LIMIT $limit
), merges AS (
    SELECT part_of, count(*) AS merged FROM events
    WHERE rule = 'C6' AND time >= (SELECT min(time) FROM page) AND part_of IN (SELECT id FROM page)
    GROUP BY part_of
)
SELECT seq, id::VARCHAR AS id, epoch_us(time) AS time, kind, counted, owner, package, domain, {_VERSION} AS version,
       {_TAG} AS tag, digest, {_PLATFORM} AS platform, variables, client, client_version, user_agent, referer,
       origin_id::VARCHAR AS origin_id, endpoint_id::VARCHAR AS endpoint_id, artifact, class, merged, upstream,
       status, country, network, rule, page.part_of::VARCHAR AS part_of, partial, size
FROM page LEFT JOIN merges ON page.id = merges.part_of ORDER BY seq
"""

# Manifests that were asked for by themselves. Of a tag that moved, what it was last.
_ASKED = """
package = ? AND time >= make_timestamp(?) AND kind IN ('manifest-fetch', 'manifest-head') AND status < 400
"""
IN_USE = f"""
SELECT coalesce({_TAG}, digest) AS reference, arg_max(digest, time), count(*) FILTER (counted), count(*)
FROM events WHERE {_ASKED} AND part_of IS NULL AND reference IS NOT NULL
GROUP BY 1 ORDER BY 3 DESC, 4 DESC, 1
"""
INDEXES = f"""
SELECT digest, any_value(lists) FROM events WHERE {_ASKED} AND digest IS NOT NULL AND lists IS NOT NULL GROUP BY 1
"""


_COLUMN_OF: dict[str, Callable[[], Column]] = {
    "BIGINT": lambda: Numbers("q"),
    "BOOLEAN": lambda: Numbers("B"),
    "JSON": Coded,
    "TIMESTAMP": lambda: Numbers("q"),
    "USMALLINT": lambda: Numbers("H"),
    "UUID": lambda: Coded(blob=True),
    "VARCHAR": Coded,
}
_NAMES = [field.name for field in msgspec.structs.fields(Event)]
_KEPT = [name for name in _NAMES if name in COLUMNS]
# Rows that are turned into columns at a time: few enough to stay in the processor's cache meanwhile.
_SLICE = 1024

_encode_json = msgspec.json.Encoder().encode
_tuple: Callable[[Struct], tuple[Any, ...]] = msgspec.structs.astuple


def incoming_rows(first: int, rows: Sequence[Row]) -> Table:
    """What INSERT reads; the rows are numbered from `first`. Raises UnicodeEncodeError."""
    columns = {name: _COLUMN_OF[kind]() for name, kind in COLUMNS.items()}
    columns |= {"id": Blocks(16), "size": Numbers("q", sparse=True)}
    columns["seq"].extend(range(first, first + len(rows)))
    for start in range(0, len(rows), _SLICE):
        for name, values in _across(rows[start : start + _SLICE]).items():
            columns[name].extend(values)
    return Table(columns)


def _across(rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
    """Columns, save seq, of some rows."""
    facts, verdicts, clients, client_versions, classes = zip(*map(_tuple, rows), strict=True)
    of = dict(zip(_NAMES, zip(*map(_tuple, facts), strict=True), strict=True))
    counted, rules, wholes, versions, tags, platforms = zip(*map(_tuple, verdicts), strict=True)
    given: dict[str, Sequence[Any]] = {name: of[name] for name in _KEPT}
    return given | {
        "variables": _json(of["variables"]),
        "lists": _json(of["lists"]),
        "client": clients,
        "client_version": client_versions,
        "class": classes,
        "counted": counted,
        "rule": rules,
        "part_of": wholes,
        "pull_version": _where_other(versions, of["version"]),
        "pull_tag": _where_other(tags, of["tag"]),
        "pull_platform": _where_other(platforms, of["platform"]),
    }


def _json(values: Sequence[Any]) -> list[bytes | None]:
    return [None if value is None else _encode_json(value) for value in values]


def _where_other(resolved: tuple[str | None, ...], said: tuple[str | None, ...]) -> Sequence[str | None]:
    """None where the fact itself says what was resolved."""
    if resolved == said:
        return [None] * len(said)
    return [None if one == other else one for one, other in zip(resolved, said, strict=True)]


def incoming_changes(changes: Sequence[Change]) -> Table:
    """What UPDATE reads. Raises UnicodeEncodeError."""
    columns = {name: _COLUMN_OF[COLUMNS[name]]() for name in ("id", *VERDICT)}
    columns["id"].extend([change.id for change in changes])
    verdicts = zip(*(_tuple(change.verdict) for change in changes), strict=True)
    for name, values in zip(VERDICT, verdicts, strict=True):
        columns[name].extend(values)
    return Table(columns)


def stored(columns: tuple[Any, ...]) -> Stored:
    (
        (id_, time, kind, package, domain, method, path, status, partial, version, tag, digest, platform),
        (artifact, lists, origin, counted, rule, part_of, pull_version, pull_tag, pull_platform),
    ) = columns[:13], columns[13:]
    fact = Event(
        id=id_.bytes,
        time=time,
        kind=kind,
        package=package,
        domain=domain,
        method=method,
        path=path,
        status=status,
        partial=partial,
        version=version,
        tag=tag,
        digest=digest,
        platform=platform,
        artifact=artifact,
        lists=None if lists is None else msgspec.json.decode(lists),
        origin_id=origin.bytes,
    )
    verdict = Verdict(
        counted,
        rule,
        None if part_of is None else part_of.bytes,
        version if pull_version is None else pull_version,
        tag if pull_tag is None else pull_tag,
        platform if pull_platform is None else pull_platform,
    )
    return Stored(fact, verdict)
