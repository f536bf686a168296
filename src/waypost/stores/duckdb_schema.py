"""What stands in the DuckDB file: its columns, the statements about them, and how rows travel in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from waypost.events.event import Event
from waypost.stores.store import BY, Change, Row, Stored, Verdict

SCHEMA = 1

# Columns as they are stored, with their types. The last three hold what C7 and C8 resolve, and are NULL where the
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


def _reader(columns: Mapping[str, str]) -> str:
    """The table function that reads a file of our records. Times travel as integers."""
    types = ", ".join(f"'{c}': '{'BIGINT' if t == 'TIMESTAMP' else t}'" for c, t in columns.items())
    return f"read_json(?, format = 'newline_delimited', columns = {{{types}}})"


INSERT = f"""
INSERT INTO events SELECT {", ".join("make_timestamp(time)" if c == "time" else f'"{c}"' for c in COLUMNS)}
FROM {_reader(COLUMNS)}
"""
UPDATE = f"""
UPDATE events SET {", ".join(f"{c} = changes.{c}" for c in VERDICT)}
FROM {_reader({c: COLUMNS[c] for c in ("id", *VERDICT)})} AS changes
WHERE events.id = changes.id AND events.time BETWEEN make_timestamp(?) AND make_timestamp(?)
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
       status, country, network, rule, page.part_of::VARCHAR AS part_of
FROM page LEFT JOIN merges ON page.id = merges.part_of ORDER BY seq
"""


class Record(Struct, omit_defaults=True, gc=False):
    """A row on its way into DuckDB: `COLUMNS`, ids in hexadecimal, time in microseconds."""

    seq: int
    id: str
    time: int
    kind: str
    package: str
    domain: str
    method: str
    path: str
    status: int
    partial: bool
    owner: str | None = None
    version: str | None = None
    tag: str | None = None
    digest: str | None = None
    platform: str | None = None
    artifact: str | None = None
    variables: dict[str, str] | None = None
    upstream: str | None = None
    lists: dict[str, str] | None = None
    user_agent: str | None = None
    referer: str | None = None
    origin_id: str | None = None
    endpoint_id: str | None = None
    country: str | None = None
    network: str | None = None
    client: str | None = None
    client_version: str | None = None
    class_: str | None = msgspec.field(name="class", default=None)
    counted: bool | None = None
    rule: str | None = None
    part_of: str | None = None
    pull_version: str | None = None
    pull_tag: str | None = None
    pull_platform: str | None = None


class Amendment(Struct, omit_defaults=True, gc=False):
    id: str
    counted: bool
    rule: str | None = None
    part_of: str | None = None
    pull_version: str | None = None
    pull_tag: str | None = None
    pull_platform: str | None = None


encode_lines = msgspec.json.Encoder().encode_lines


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def record(seq: int, row: Row) -> Record:
    f, v = row.fact, row.verdict
    return Record(
        seq,
        f.id.hex(),
        f.time,
        f.kind,
        f.package,
        f.domain,
        f.method,
        f.path,
        f.status,
        f.partial,
        f.owner,
        f.version,
        f.tag,
        f.digest,
        f.platform,
        f.artifact,
        f.variables,
        f.upstream,
        f.lists,
        f.user_agent,
        f.referer,
        _hex(f.origin_id),
        _hex(f.endpoint_id),
        f.country,
        f.network,
        row.client,
        row.client_version,
        row.class_,
        v.counted,
        v.rule,
        _hex(v.part_of),
        None if v.version == f.version else v.version,
        None if v.tag == f.tag else v.tag,
        None if v.platform == f.platform else v.platform,
    )


def amendment(change: Change) -> Amendment:
    v = change.verdict
    return Amendment(change.id.hex(), v.counted, v.rule, _hex(v.part_of), v.version, v.tag, v.platform)


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
