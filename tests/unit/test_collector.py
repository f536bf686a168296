from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from waypost.counting import collector as module
from waypost.counting.collector import FUTURE_US, HOLD_BACK_US, Collector, Settings
from waypost.events.event import Event, encode_event
from waypost.events.spool import Spool, frame, recover_all, segments
from waypost.stores.duckdb import DuckStore
from waypost.stores.store import Stored, StoreFailedError

S = 1_000_000
MINUTE = 60 * S
NOW = 1_795_219_200 * S


class CountingStore(DuckStore):
    """Knows how often it was asked for timelines, and fails when told to."""

    asked = 0
    fail = False

    def timeline(self, since_us: Mapping[bytes, int]) -> dict[bytes, list[Stored]]:
        self.asked += bool(since_us)
        return super().timeline(since_us)

    def commit(self, *arguments: Any, **named: Any) -> None:
        if self.fail:
            raise StoreFailedError("told to")
        super().commit(*arguments, **named)


class House:
    """A spool, a store and a collector with a clock that we set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "spool"
        self.folder.mkdir()
        self.now = NOW
        self.store = CountingStore(folder / "events.duckdb")
        self.collector = self.new_collector()
        self.spools: dict[str, Spool] = {}
        self._ids = count(1)

    def new_collector(self, **options: Any) -> Collector:
        return Collector(self.folder, self.store, Settings(), clock=lambda: self.now, **options)

    def spool(self, worker: str = "w0") -> Spool:
        return self.spools.setdefault(worker, Spool(self.folder, worker, 1 << 30))

    def happen(self, at: int, worker: str = "w0", **fields: Any) -> Event:
        defaults: dict[str, Any] = {"kind": "binary-download", "package": "skates", "domain": "acme.example"}
        defaults |= {"path": "/x", "origin_id": b"o" * 16, "endpoint_id": b"e" * 16}
        event = Event(id=next(self._ids).to_bytes(16), time=at, **defaults | fields)
        self.spool(worker).append(encode_event(event))
        self.spool(worker).flush()
        return event

    def drain(self) -> int:
        total = 0
        while (done := self.collector.step()) or self.collector.backlog:
            total += done
        return total

    def events(self) -> list[dict[str, Any]]:
        return [event for _, event in self.store.events()]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    for spool in made.spools.values():
        spool.close()
    made.store.close()


def test_from_the_spool_to_the_numbers(house: House) -> None:
    house.happen(NOW - S, version="1", user_agent='pip/26.3 {"ci":true}')
    house.happen(NOW - S + 1, version="1", user_agent="curl/8.1", origin_id=b"p" * 16)
    assert house.collector.step() == 2
    answer = house.store.stats("skates", since_us=0, until_us=NOW, by="version")
    assert [(line.key, line.downloads) for line in answer.lines] == [("1", 1)]
    assert answer.left_out == {"ci": 1}
    assert [(e["client"], e["class"]) for e in house.events()] == [("pip", "ci"), ("curl", "person-or-machine")]


def test_young_facts_wait_until_other_workers_had_their_say(house: House) -> None:
    house.happen(NOW, "w0", path="/b")
    assert house.collector.step() == 0
    house.happen(NOW - 1, "w1", path="/a")
    house.now += HOLD_BACK_US
    assert house.collector.step() == 2
    assert house.store.asked == 0


def test_facts_from_the_future_do_not_stop_the_line(house: House) -> None:
    house.happen(NOW + FUTURE_US + 1)
    house.happen(NOW - S, path="/y")
    assert house.collector.step() == 2


def test_a_segment_is_deleted_once_it_is_sealed_and_stored(house: House) -> None:
    house.happen(NOW - S)
    house.drain()
    assert len(segments(house.folder)) == 1, "its worker still writes it"
    house.spools["w0"].close()
    house.drain()
    assert segments(house.folder) == []
    house.collector.step()
    assert house.store.positions() == {}


def test_what_is_still_waiting_keeps_its_segment(house: House) -> None:
    house.happen(NOW - S)
    house.happen(NOW)
    house.spools["w0"].close()
    assert house.collector.step() == 1
    assert len(segments(house.folder)) == 1
    house.now += S
    assert house.collector.step() == 1
    assert segments(house.folder) == []


def test_positions_of_segments_that_are_gone_are_forgotten_after_a_crash(house: House) -> None:
    house.happen(NOW - S)
    house.spools["w0"].close()
    house.collector.step()
    assert len(house.store.positions()) == 1
    house.collector = house.new_collector()
    house.collector.step()
    assert house.store.positions() == {}


def test_after_a_failed_commit_everything_is_tried_again(house: House) -> None:
    house.happen(NOW - S)
    house.store.fail = True
    for _ in range(3):
        with pytest.raises(StoreFailedError):
            house.collector.step()
    house.store.fail = False
    house.happen(NOW - S + 1)
    assert house.collector.step() == 2
    assert [event.get("rule") for event in house.events()] == [None, "C6"]


def test_a_restart_in_the_middle_of_a_pull_changes_nothing(house: House) -> None:
    lists = {"sha256:a": "linux/amd64"}
    house.happen(NOW - 5 * S, kind="manifest-fetch", tag="1", digest="sha256:i", lists=lists)
    house.drain()
    house.collector = house.new_collector()
    house.happen(NOW - 4 * S, kind="manifest-fetch", digest="sha256:a")
    house.drain()
    opener, image = house.events()
    assert (opener["counted"], opener["version"], opener["platform"]) == (True, "1", "linux/amd64")
    assert (image["counted"], image["rule"], image["part_of"]) == (False, "C7", opener["id"])


def test_a_late_fact_is_judged_where_it_belongs(house: House) -> None:
    second = house.happen(NOW - 5 * S, "w0")
    house.drain()
    first = house.happen(NOW - 9 * S, "w1")
    house.drain()
    rules = {event["id"][-2:]: (event["counted"], event.get("rule")) for event in house.events()}
    assert rules == {f"{second.id[-1]:02x}": (False, "C6"), f"{first.id[-1]:02x}": (True, None)}


def test_facts_in_order_do_not_ask_the_store(house: House) -> None:
    for n in range(50):
        house.happen(NOW + n * MINUTE, origin_id=bytes([n % 7]) * 16)
        house.now = NOW + n * MINUTE + S
        assert house.collector.step() == 1
    assert house.store.asked == 0
    assert len(house.collector._sources) <= 2, "sources that rest are forgotten"
    house.happen(NOW, origin_id=b"\x08" * 16)
    house.drain()
    assert house.store.asked == 1, "one that may have been forgotten is looked up"


def test_a_backlog_is_worked_off_in_order_and_bounded(house: House) -> None:
    house.collector = house.new_collector(batch=10)
    for n in range(60):
        house.happen(NOW - 100 * S + n * S, "w0", path=f"/{n}")
    for n in range(30):
        house.happen(NOW - 100 * S + n * 2 * S + 1, "w1", path=f"/{n}")
    sizes = []
    while (done := house.collector.step()) or house.collector.backlog:
        sizes.append(done)
    assert sum(sizes) == 90
    assert max(sizes) <= 10
    times = [event["time"] for event in house.events()]
    assert times == sorted(times)
    assert house.store.asked == 0


def test_a_step_takes_a_bounded_part_of_the_spool(house: House) -> None:
    house.collector = house.new_collector(batch_bytes=2_000)
    for n in range(30):
        house.happen(NOW - 100 * S + n, path=f"/{n:0400}")
    huge = house.happen(NOW - 50 * S, path="/" + "x" * 5_000)
    sizes = []
    while (done := house.collector.step()) or house.collector.backlog:
        sizes.append(done)
    assert sum(sizes) == 31
    assert max(sizes) <= 5
    assert house.events()[-1]["id"].endswith(f"{huge.id[-1]:02x}"), "larger than the bound, and stored all the same"


def test_the_search_for_cycles_goes_on_after_a_step(house: House) -> None:
    house.happen(NOW - S)
    assert gc.isenabled()
    house.collector.step()
    assert gc.isenabled()
    house.store.fail = True
    house.happen(NOW - S)
    with pytest.raises(StoreFailedError):
        house.collector.step()
    assert gc.isenabled()


def test_facts_without_a_source_are_judged_each_by_itself(house: House) -> None:
    for _ in range(2):
        house.happen(NOW - S, origin_id=None, endpoint_id=None)
    house.drain()
    assert [event["counted"] for event in house.events()] == [True, True]
    assert "origin_id" not in house.events()[0]


def test_damage_is_put_aside_and_the_rest_goes_on(house: House) -> None:
    house.happen(NOW - S)
    house.spools["w0"].close()
    (segment,) = segments(house.folder)
    with segment.path.open("ab") as file:
        file.write(b"garbage, and what is behind it")
    house.happen(NOW - S, "w1", path="/y")
    assert house.drain() == 2
    assert house.collector.damaged_bytes == 30
    assert [path.read_bytes() for path in house.folder.glob("*.damaged")] == [b"garbage, and what is behind it"]
    house.collector.step()
    assert [s.worker for s in segments(house.folder)] == ["w1"]


def test_a_frame_that_is_no_event_is_put_aside(house: House) -> None:
    house.spool().append(b"\xc1 no msgpack")
    house.happen(NOW - S)
    assert house.drain() == 1
    assert house.collector.unreadable == 1
    assert [path.read_bytes() for path in house.folder.glob("*.damaged")] == [b"\xc1 no msgpack"]


def test_a_torn_tail_of_a_living_writer_is_waited_for(house: House) -> None:
    event = Event(id=b"i" * 16, time=NOW - S, kind="binary-download", package="p", domain="d")
    data = frame(encode_event(event))
    path = house.folder / f"{'0' * 32}-w0.open"
    path.write_bytes(data[:-5])
    assert house.drain() == 0
    path.write_bytes(data)
    assert house.drain() == 1


def test_what_recovery_sealed_is_read_on_from_the_position(house: House) -> None:
    house.happen(NOW - 2 * S)
    house.drain()
    house.happen(NOW - S, path="/y")
    (segment,) = segments(house.folder)
    with segment.path.open("ab") as file:
        file.write(frame(b"torn")[:6])
    house.spools.clear()
    assert recover_all(house.folder).torn_bytes == 6
    assert house.drain() == 1
    assert len(house.events()) == 2


OLD, NEW = {"origin_id": b"o" * 16, "endpoint_id": b"e" * 16}, {"origin_id": b"n" * 16, "endpoint_id": b"f" * 16}
BOTH = NEW | {"origin_was": b"o" * 16, "endpoint_was": b"e" * 16}


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("minutes", "kept"), [(0, True), (14, True), (16, False)])
def test_a_source_just_seen_keeps_its_identity_when_the_key_changes(
    house: House, restart: bool, minutes: int, kept: bool
) -> None:
    house.happen(NOW, **OLD)
    house.now = NOW + S
    house.drain()
    if restart:
        house.collector = house.new_collector()
    at = NOW + minutes * MINUTE + S
    house.happen(at, path="/y", **BOTH)
    house.now = at + S
    house.drain()
    seen = house.events()[1]
    expected = OLD if kept else NEW
    assert seen["origin_id"].replace("-", "") == expected["origin_id"].hex()
    assert seen["endpoint_id"].replace("-", "") == expected["endpoint_id"].hex()


def test_a_source_not_seen_before_takes_the_new_identity_and_keeps_it(house: House) -> None:
    for n in range(3):
        house.happen(NOW + n * S, path=f"/{n}", **BOTH)
        house.now = NOW + n * S + S
        house.drain()
    assert {event["origin_id"].replace("-", "") for event in house.events()} == {NEW["origin_id"].hex()}


def test_seen_within_the_same_batch_is_seen(house: House) -> None:
    house.happen(NOW - 3 * S, **OLD)
    house.happen(NOW - 2 * S, **BOTH)
    house.drain()
    first, second = house.events()
    assert first["origin_id"] == second["origin_id"]
    assert second["rule"] == "C6"


KILLED = """
import sys, time
from pathlib import Path
from waypost.counting.collector import Collector, Settings
from waypost.stores.duckdb import DuckStore
folder = Path(sys.argv[1])
collector = Collector(folder / "spool", DuckStore(folder / "events.duckdb"), Settings(), batch=200)
print("ready", flush=True)
while True:
    if not collector.step():
        time.sleep(0.001)
"""


def test_killed_at_any_moment_each_event_is_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_BACK_US", 0)
    (tmp_path / "spool").mkdir()
    spools = [Spool(tmp_path / "spool", f"w{n}", 1 << 30, segment_bytes=20_000) for n in range(2)]
    chance = random.Random(7)
    sent = set()
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        until = time.monotonic() + chance.uniform(0.0, 0.12)
        while time.monotonic() < until:
            for spool in spools:
                for _ in range(20):
                    event = Event(
                        id=len(sent).to_bytes(16),
                        time=time.time_ns() // 1000 - S,
                        kind="binary-download",
                        package="p",
                        domain="d",
                        path=f"/{chance.randrange(50)}",
                        origin_id=bytes([chance.randrange(5)]) * 16,
                    )
                    sent.add(event.id)
                    spool.append(encode_event(event))
                spool.flush()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    for spool in spools:
        spool.close()
    store = DuckStore(tmp_path / "events.duckdb")
    collector = Collector(tmp_path / "spool", store, Settings())
    while collector.step() or collector.backlog:
        pass
    collector.step()
    ids = [event["id"].replace("-", "") for _, event in store.events(limit=1_000_000)]
    assert len(ids) == len(sent)
    assert {bytes.fromhex(id_) for id_ in ids} == sent
    assert list((tmp_path / "spool").iterdir()) == []
    assert store.positions() == {}
    store.close()
