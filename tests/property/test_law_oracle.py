"""The collector against the law told slowly: any order of arrival, any batches, any crash, the same numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from waypost.counting.collector import Collector, Settings
from waypost.events.event import Event, encode_event
from waypost.events.spool import Spool
from waypost.stores.duckdb import DuckStore
from waypost.stores.store import Change, Row, Stored, StoreFailedError, Verdict

S = 1_000_000
BASE = 1_790_000_000 * S
MERGE = 10 * S
TEN_MINUTES = 600 * S

INDEXES = {
    "sha256:i1": {"sha256:a": "linux/amd64", "sha256:b": "linux/arm64"},
    "sha256:i2": {"sha256:a": "", "sha256:att": "unknown/unknown"},
    "sha256:i3": {"sha256:i1": "", "sha256:c": "linux/s390x"},
}


# The law, told slowly


def judged(facts: Sequence[Event]) -> dict[bytes, Verdict]:
    """Sort everything, then look back over everything for each fact."""
    verdicts: dict[bytes, Verdict] = {}
    for origin in {fact.origin_id for fact in facts}:
        own = sorted((f for f in facts if f.origin_id == origin), key=lambda f: (f.time, f.id))
        pulls: list[dict] = []
        for number, fact in enumerate(own):
            verdicts[fact.id] = one(fact, own[:number], pulls, verdicts)
    return verdicts


def one(fact: Event, before: Sequence[Event], pulls: list[dict], verdicts: dict[bytes, Verdict]) -> Verdict:
    told = {"version": fact.version, "tag": fact.tag, "platform": fact.platform}
    rule = None
    if fact.status not in (200, 206, 307):
        rule = "C1"
    elif fact.method == "HEAD":
        rule = "C2"
    elif fact.kind == "index-fetch":
        rule = "C3"
    elif fact.kind == "blob-fetch" or (fact.kind == "manifest-fetch" and fact.artifact == "signature"):
        rule = "C9"
    elif fact.kind == "binary-download" and fact.path.endswith(".sha256"):
        rule = "C3"
    elif fact.partial:
        rule = "C4"
    if rule:
        return Verdict(False, rule, None, **told)
    if fact.kind == "binary-download":
        for other in reversed(before):
            same = (other.kind, other.package, other.domain, other.path) == (
                fact.kind,
                fact.package,
                fact.domain,
                fact.path,
            )
            if same and verdicts[other.id].counted:
                if fact.time - other.time < MERGE:
                    return Verdict(False, "C6", other.id, **told)
                break
    if fact.kind == "manifest-fetch":
        return pulled(fact, before, pulls, told)
    return Verdict(True, None, None, **told)


def pulled(fact: Event, before: Sequence[Event], pulls: list[dict], told: dict) -> Verdict:
    image = (fact.package, fact.domain)
    if fact.tag is None:
        able = [
            p
            for p in pulls
            if p["image"] == image
            and fact.time - p["opener"].time < TEN_MINUTES
            and fact.digest in p["lists"]
            and fact.digest not in p["took"]
        ]
        bare = [p for p in able if not p["has_image"]]
        if able:
            pull = bare[0] if bare else able[-1]
            platform = pull["lists"][fact.digest]
            pull["took"].add(fact.digest)
            if fact.lists is not None:
                pull["lists"] = {**fact.lists, **pull["lists"]}
            elif not pull["has_image"] and platform != "unknown/unknown":
                pull["has_image"] = True
                opened = pull["verdict"]
                opened.platform = platform or fact.platform or opened.platform
            told = {"version": pull["verdict"].version, "tag": pull["verdict"].tag}
            return Verdict(False, "C7", pull["opener"].id, platform=fact.platform or platform or None, **told)
    tag = fact.tag
    if tag is None:
        for head in before:
            same = (head.package, head.domain) == image and head.digest == fact.digest
            recent = fact.time - head.time < TEN_MINUTES and head.status == 200
            if head.kind == "manifest-head" and same and recent and head.tag:
                tag = head.tag
    verdict = Verdict(True, None, None, tag or fact.digest, tag, fact.platform)
    pulls.append(
        {
            "image": image,
            "opener": fact,
            "verdict": verdict,
            "lists": dict(fact.lists or {}),
            "took": set(),
            "has_image": fact.lists is None,
        }
    )
    return verdict


# A store in memory, which fails where it is told to


class MemoryStore:
    def __init__(self) -> None:
        self.rows: dict[bytes, Row] = {}
        self.at: dict[str, int] = {}
        self.fail: str | None = None

    def positions(self) -> dict[str, int]:
        return dict(self.at)

    def newest_us(self) -> int | None:
        return max((row.fact.time for row in self.rows.values()), default=None)

    def commit(
        self,
        rows: Sequence[Row],
        changes: Sequence[Change],
        positions: Mapping[str, int],
        forget: Sequence[str] = (),
    ) -> None:
        fail, self.fail = self.fail, None
        if fail == "before":
            raise StoreFailedError("told to")
        for row in rows:
            assert row.fact.id not in self.rows, "stored twice"
            self.rows[row.fact.id] = deepcopy(row)
        for change in changes:
            assert self.rows[change.id].fact.time == change.time
            self.rows[change.id].verdict = deepcopy(change.verdict)
        for name in forget:
            self.at.pop(name, None)
        self.at.update(positions)
        if fail == "after":
            raise StoreFailedError("told to")

    def timeline(self, since_us: Mapping[bytes, int]) -> dict[bytes, list[Stored]]:
        found: dict[bytes, list[Stored]] = {}
        for row in sorted(self.rows.values(), key=lambda row: (row.fact.time, row.fact.id)):
            origin = row.fact.origin_id
            if origin in since_us and row.fact.time >= since_us[origin]:
                found.setdefault(origin, []).append(Stored(deepcopy(row.fact), deepcopy(row.verdict)))
        return found

    def verdicts(self) -> dict[bytes, Verdict]:
        return {id_: row.verdict for id_, row in self.rows.items()}

    def close(self) -> None: ...


class DuckVerdicts(DuckStore):
    fail: str | None = None

    def commit(self, *arguments: object, **named: object) -> None:
        fail, self.fail = self.fail, None
        if fail == "before":
            raise StoreFailedError("told to")
        super().commit(*arguments, **named)  # type: ignore[arg-type]
        if fail == "after":
            raise StoreFailedError("told to")

    def verdicts(self) -> dict[bytes, Verdict]:
        ids = [origin.bytes for (origin,) in self._query("SELECT DISTINCT origin_id FROM events")]
        stored = [row for rows in self.timeline(dict.fromkeys(ids, 0)).values() for row in rows]
        assert len({row.fact.id for row in stored}) == len(stored) == self.last_cursor(), "stored twice"
        return {row.fact.id: row.verdict for row in stored}


# Facts that meet: clients' habits, a few at a time, from few sources, around the edges of the windows

# (kind, reference or path): "1" is a tag, "i1" and "a" are digests
HABITS = (
    ("manifest-head 1 i1", "manifest-fetch - i1", "manifest-fetch - a"),
    ("manifest-head 2 a", "manifest-fetch - a"),
    ("manifest-fetch 1 i1", "manifest-fetch - a"),
    ("manifest-fetch 1 i1", "manifest-fetch - b", "manifest-fetch - a", "manifest-fetch - a"),
    ("manifest-fetch 2 i3", "manifest-fetch - i1", "manifest-fetch - b", "manifest-fetch - c"),
    ("manifest-fetch 2 i2", "manifest-fetch - att", "manifest-fetch - a"),
    ("manifest-fetch 1 a",),
    ("manifest-fetch - b",),
    ("binary-download /1", "binary-download /1", "binary-download /1"),
    ("binary-download /1", "binary-download /1.sha256", "binary-download /2"),
    ("pixel-fetch /p", "pixel-fetch /p"),
    ("index-fetch /i", "blob-fetch /b"),
)
STARTS = st.sampled_from([0, 0, 0, 1, 5, 60, 300, 599, 600, 601, 1200])
GAPS = st.sampled_from([0, 0, 1, 1, 5, 9, 10, 11, 300, 599, 600, 601])


@st.composite
def habit(draw: st.DrawFn) -> list[Event]:
    time = BASE + draw(STARTS) * S
    package = draw(st.sampled_from(["acme/x", "acme/x", "acme/x", "acme/y"]))
    origin = draw(st.sampled_from([b"A", b"A", b"A", b"B"])) * 16
    facts = []
    for step in draw(st.sampled_from(HABITS)):
        kind, *reference = step.split()
        fact = Event(id=b"", time=time, kind=kind, package=package, domain="acme.example", origin_id=origin)
        if kind.startswith("manifest"):
            tag, digest = reference
            fact.tag, fact.digest = (None if tag == "-" else tag), f"sha256:{digest}"
            fact.method = "HEAD" if kind == "manifest-head" else "GET"
            if kind == "manifest-fetch":
                fact.lists = INDEXES.get(fact.digest)
                fact.platform = draw(st.sampled_from([None, None, "linux/riscv64"])) if fact.lists is None else None
        else:
            fact.path = reference[0]
        oddity = draw(st.integers(0, 40))
        if oddity == 0:
            fact.status = 404
        elif oddity == 1:
            fact.method = "HEAD"
        elif oddity == 2:
            fact.artifact = "signature"
        elif oddity == 3:
            fact.partial = True
        facts.append(fact)
        time += draw(GAPS) * S + draw(st.sampled_from([0, 0, 0, -1, 1]))
    return facts


@st.composite
def histories(draw: st.DrawFn, most: int) -> list[tuple[Event, int, str]]:
    """Facts in the order of arrival, each with the worker that saw it, and what happens then."""
    facts = [fact for facts in draw(st.lists(habit(), min_size=1, max_size=most)) for fact in facts]
    for fact, number in zip(facts, draw(st.permutations(range(len(facts)))), strict=True):
        fact.id = number.to_bytes(16)
    facts.sort(key=lambda f: (f.time, f.id))
    order = draw(st.sampled_from(["sorted", "any", "one late"]))
    if order == "any":
        facts = draw(st.permutations(facts))
    elif order == "one late":
        late = facts.pop(draw(st.integers(0, len(facts) - 1)))
        facts.insert(draw(st.integers(0, len(facts))), late)
    quiet = draw(st.booleans())
    happenings = st.sampled_from(["step"] if quiet else ["", "", "step", "step", "seal", "restart", "before", "after"])
    workers = st.just(0) if quiet else st.integers(0, 1)
    return [(fact, draw(workers), draw(happenings)) for fact in facts]


def play(folder: Path, store: MemoryStore | DuckVerdicts, history: list[tuple[Event, int, str]], batch: int) -> None:
    """Write the facts into two workers' spools, and let collectors come, step, fail and go."""
    (folder / "spool").mkdir()
    spools = [Spool(folder / "spool", f"w{n}", 1 << 30) for n in range(2)]
    clock = [0]

    def begin() -> Collector:
        return Collector(
            folder / "spool", store, Settings(merge_seconds=MERGE / S), clock=lambda: clock[0], batch=batch
        )

    collector = begin()
    for fact, worker, happening in history:
        clock[0] = max(clock[0], fact.time + S)
        spools[worker].append(encode_event(fact))
        spools[worker].flush()
        if happening == "seal":
            spools[worker].close()
        elif happening == "restart":
            collector.step()
            collector = begin()
        elif happening in ("before", "after"):
            store.fail = happening
            try:
                collector.step()
            except StoreFailedError:
                pass
            store.fail = None
        elif happening == "step":
            collector.step()
    clock[0] += 3600 * S
    for spool in spools:
        spool.close()
    while collector.step() or collector.backlog:
        pass
    collector.step()
    assert not list((folder / "spool").iterdir())
    assert store.positions() == {}


@given(histories(6), st.sampled_from([1, 2, 7, 50]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_arrival_any_batch_any_crash(history: list[tuple[Event, int, str]], batch: int) -> None:
    facts = [msgspec.structs.replace(fact) for fact, _, _ in history]
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder), store, history, batch)
    assert store.verdicts() == judged(facts)


@pytest.mark.parametrize("batch", [3, 50])
@given(histories(3))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_with_duckdb(batch: int, history: list[tuple[Event, int, str]]) -> None:
    facts = [msgspec.structs.replace(fact) for fact, _, _ in history]
    with tempfile.TemporaryDirectory() as folder:
        store = DuckVerdicts(Path(folder) / "events.duckdb")
        play(Path(folder), store, history, batch)
        found = store.verdicts()
        store.close()
    assert found == judged(facts)
